"""A laboratory for the CDC engine: a throw-away dbt project on real Delta with the project's own macros.

One `Lab` holds bronze tables and the models on them; `build` runs dbt in this process, so the Spark session is shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cdc_sets import METADATA
from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]

PROJECT = """
name: lab
version: "1.0.0"
profile: lakehouse
model-paths: [models]
macro-paths: ["{macros}"]
flags: {{send_anonymous_usage_stats: false}}
on-run-end: "{{{{ cdc_release_session() }}}}"
models: {{+schema: {schema}, +file_format: delta, +materialized: incremental}}
"""


class Lab:
    """Bronze tables, CDC models and dbt runs in one schema of their own.

    Args:
        spark: The session that dbt is to share.
        folder: Where the dbt project is written.
        schema: Name of the schema for bronze and models alike.
    """

    def __init__(self, spark: SparkSession, folder: Path, schema: str) -> None:
        self.spark = spark
        self.folder = folder
        self.schema = schema
        (folder / "models").mkdir(parents=True, exist_ok=True)
        (folder / "dbt_project.yml").write_text(PROJECT.format(macros=ROOT / "macros", schema=schema))
        spark.sql(f"create schema if not exists {schema}")
        self.sources: list[str] = []
        self.messages: dict[str, str] = {}

    def bronze(self, name: str, columns: str) -> None:
        """Creates an empty bronze table with the given key and value columns and the usual metadata."""
        self.spark.sql(f"create or replace table {self.schema}.{name} ({columns}, {METADATA}) using delta")
        self.sources.append(name)
        listed = "".join(f"\n      - name: {source}" for source in self.sources)
        (self.folder / "models" / "_sources.yml").write_text(
            f"version: 2\nsources:\n  - name: bronze\n    schema: {self.schema}\n    tables:{listed}\n"
        )

    def deliver(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Appends rows, in the column order of the bronze table, in one commit."""
        schema = self.spark.table(f"{self.schema}.{name}").schema
        frame = self.spark.createDataFrame(list(rows), schema)
        frame.coalesce(1).write.format("delta").mode("append").saveAsTable(f"{self.schema}.{name}")

    def model(self, name: str, source: str, select: str, **config: Any) -> None:
        """Writes a CDC model: a plain projection of the bronze table."""
        self.sql(name, f"select {select} from {{{{ source('bronze', '{source}') }}}}", **config)

    def sql(self, name: str, query: str, **config: Any) -> None:
        """Writes a model of any kind."""
        options = ", ".join(f"{key}={value!r}" for key, value in config.items())
        (self.folder / "models" / f"{name}.sql").write_text(f"{{{{ config({options}) }}}}\n{query}\n")

    def build(
        self,
        *select: str,
        full_refresh: bool = False,
        check: bool = True,
        callbacks: Sequence[Callable[[Any], None]] = (),
        command: str = "run",
        arguments: Sequence[str] = (),
        prefix: str = "",
        target: str = "target",
    ) -> Any:
        """Runs `dbt run`, or another command; keeps each model's message in `messages`. `callbacks` take dbt's events,
        `arguments` are added to the command line, `prefix` goes before the schema, `target` is the folder of artifacts.

        Raises:
            AssertionError: a model failed and `check` is true; the text is dbt's message.
        """
        from dbt.cli.main import dbtRunner

        line = [
            "--quiet", command, "--project-dir", str(self.folder), "--profiles-dir", str(ROOT / "profiles"),
            "--target-path", str(self.folder / target), "--log-path", str(self.folder / "logs"),
            *(["--select", *select] if select else []),
            *(["--full-refresh"] if full_refresh else []), *arguments,
        ]  # fmt: skip
        os.environ["LAKEHOUSE_SCHEMA_PREFIX"] = prefix  # another test may have set it
        result = dbtRunner(callbacks=list(callbacks)).invoke(line)
        if result.exception:
            raise result.exception
        models = [r for r in result.result if r.node.resource_type in ("model", "snapshot")]
        failed = [f"{r.node.name}: {r.message}" for r in models if r.status != "success"]
        self.messages = {r.node.name: str(r.message) for r in models}
        if check:
            assert not failed, "\n".join(failed)
        return models

    def rows(self, name: str, columns: Iterable[str] | str = "*") -> list[dict[str, Any]]:
        """Rows of a view or table as dictionaries."""
        listed = columns if isinstance(columns, str) else ", ".join(columns)
        return [
            row.asDict(recursive=True) for row in self.spark.sql(f"select {listed} from {self.schema}.{name}").collect()
        ]

    def version(self, name: str) -> int:
        """Latest Delta version of a table."""
        history = self.spark.sql(f"describe history {self.schema}.{name} limit 1").collect()
        return int(history[0]["version"])

    def data_commits(self, name: str) -> list[Mapping[str, Any]]:
        """Commits that wrote rows, oldest first."""
        history = self.spark.sql(f"describe history {self.schema}.{name}").collect()
        kinds = ("MERGE", "WRITE", "CREATE OR REPLACE TABLE AS SELECT", "CREATE TABLE AS SELECT")
        return [row.asDict() for row in reversed(history) if row["operation"] in kinds]
