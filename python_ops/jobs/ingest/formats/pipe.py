"""Steps of a projection that become one SQL statement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Pipe:
    """Rows to be, each step a list of columns over the step before it, as `DataFrame.selectExpr` takes them.

    Spark analyses every DataFrame that is made, with all of its plan: the 26 of a projection took a second of each
    batch (2026-11-29). A pipe is one statement (https://spark.apache.org/docs/4.1.0/sql-pipe-syntax.html).
    """

    lines: DataFrame
    steps: tuple[tuple[str, ...], ...] = ()

    def select(self, *columns: str) -> Pipe:
        """The pipe with one more step."""
        return replace(self, steps=(*self.steps, columns))

    def frame(self) -> DataFrame:
        """The rows."""
        text = "".join(f"\n|> select {', '.join(columns)}" for columns in self.steps)
        braces = text.replace("{", "{{").replace("}", "}}")
        return self.lines.sparkSession.sql(f"from {{lines}}{braces}", lines=self.lines)
