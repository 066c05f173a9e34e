"""The lake's views as Spark made them: the statements that dbt keeps in `target/run`, read without a JVM."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.lake.artifacts import Model
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from python_ops.lake.view_sql import View

_STATEMENT = re.compile(r"\s*create or replace view\s", re.IGNORECASE)


class Views(Mapping[str, "View"]):
    """The views of the project's models by name, `<model>__changes` of CDC models among them.

    Each is read when it is asked for. A model that was never built here is left out.

    Args:
        lake: The environment.

    Raises:
        OpsError: there is no manifest; of a view that is asked for: its statement cannot be read.
    """

    def __init__(self, lake: Lake) -> None:
        self._files: dict[str, tuple[Model, Path]] = {}
        self._read: dict[str, View] = {}
        for model in lake.manifest().models.values():
            path = lake.artifacts / "run" / model.unique_id.split(".")[1] / model.path
            if model.is_view and _makes_a_view(path):
                for name in (model.table, f"{model.table}__changes") if model.is_cdc else (model.table,):
                    self._files[name] = (model, path)

    def __getitem__(self, name: str) -> View:
        if name not in self._read:
            from python_ops.lake.view_sql import parsed  # with it comes sqlglot, a tenth of a second

            model, path = self._files[name]
            again = f"Run `dbt build --select {model.name}`."
            try:
                found = {view.name: view for view in parsed(path.read_text(encoding="utf-8"))}
            except (OpsError, OSError) as exc:
                raise OpsError(f"{name} is not known ({path}): {exc} {again}") from exc
            if name not in found:
                raise OpsError(f"{name} is not known: {path} does not make it. {again}")
            self._read |= found
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _makes_a_view(path: Path) -> bool:
    """Whether dbt ran the model here as a view. Of a table or a dry run the file has something else."""
    try:
        with path.open(encoding="utf-8") as file:
            return _STATEMENT.match(file.read(200)) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
