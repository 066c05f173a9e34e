"""The lake's views as Spark made them: the statements that dbt keeps in `target/run`, read without a JVM."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from python_ops.lake.artifacts import Model, load_manifest
from python_ops.lake.errors import OpsError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from python_ops.lake.view_sql import View

_STATEMENT = re.compile(r"\s*create or replace view\s", re.IGNORECASE)
_BETWEEN = re.compile(rf";(?={_STATEMENT.pattern})", re.IGNORECASE)


class Views(Mapping[str, "View"]):
    """The views of the project's models by name, `<model>__changes` of CDC models among them.

    Each is read when it is asked for. A model that was never built here is left out.

    Args:
        artifacts: dbt's target folder.

    Raises:
        OpsError: there is no manifest; of a view that is asked for: its statement cannot be read.
    """

    def __init__(self, artifacts: Path) -> None:
        self._files: dict[str, tuple[Model, Path]] = {}
        self._read: dict[str, View] = {}
        for model in load_manifest(artifacts).models.values():
            path = artifacts / "run" / model.unique_id.split(".")[1] / model.path
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

    def text(self, name: str) -> str:
        """The statements of the model that makes the view."""
        return self._files[name][1].read_text(encoding="utf-8")

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def restore(artifacts: Path, spark: SparkSession) -> int:
    """Makes the views that the session's metastore does not know, by the statements with which dbt made them: a new
    metastore knows the tables of `home.register` or `home.adopt`, and a model that is built alone reads views as well.

    A view that cannot be made, because what it reads is gone, is left to the next build.

    Returns:
        Views that were made.
    """
    if not (artifacts / "manifest.json").exists():
        return 0
    from pyspark.errors import PySparkException

    views, known, made = Views(artifacts), set[str](), 0
    for schema in {name.partition(".")[0] for name in views}:
        spark.sql(f"create schema if not exists `{schema}`")
        known |= {f"{schema}.{row['viewName']}" for row in spark.sql(f"show views in `{schema}`").collect()}
    waiting = list(dict.fromkeys(views.text(name) for name in views if name not in known))
    while waiting:
        left = []
        for text in waiting:
            try:
                for statement in _BETWEEN.split(text):
                    spark.sql(statement)
                    made += 1
            except PySparkException:  # it reads a view that comes later
                left.append(text)
        if left == waiting:
            break
        waiting = left
    return made


def _makes_a_view(path: Path) -> bool:
    """Whether dbt ran the model here as a view. Of a table or a dry run the file has something else."""
    try:
        with path.open(encoding="utf-8") as file:
            return _STATEMENT.match(file.read(200)) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
