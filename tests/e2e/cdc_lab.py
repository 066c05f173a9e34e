"""A laboratory for the CDC engine: a throw-away dbt project on real Delta with the package of this checkout.

One `Lab` holds bronze tables and the models on them; `build` runs dbt in this process, so the Spark session is shared.
`play` takes scenarios through one laboratory together: a dbt run costs seconds whatever it builds.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc_sets import METADATA
from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION, SMALL = ROOT / "profiles", Path(__file__).parent / "profiles"  # folders of dbt's profile

Watcher = Callable[[Any, str], str | None]  # takes dbt's cursor and a statement before it runs; may give another
FULL_REFRESH, MAY_FAIL = "full refresh", "may fail"
Scenario = Callable[["Lab"], Generator[str | None, None, None]]

PROJECT = """
name: lab
version: "1.0.0"
profile: lakehouse
model-paths: [models]
macro-paths: [macros, "{macros}"]
flags: {{send_anonymous_usage_stats: false}}
dispatch: [{{macro_namespace: dbt, search_order: [lab, delta_cdc, dbt]}}]
models: {{+schema: {schema}, +file_format: delta, +materialized: incremental}}
"""


def install_package(project: Path) -> None:
    """What `dbt deps` does for `local: packages/delta_cdc`, without its second: a link."""
    (project / "dbt_packages").mkdir(parents=True, exist_ok=True)
    (project / "dbt_packages" / "delta_cdc").symlink_to(ROOT / "packages" / "delta_cdc")


class Lab:
    """Bronze tables, CDC models and dbt runs in one schema of their own.

    Args:
        spark: The session that dbt is to share.
        folder: Where the dbt project is written.
        schema: Name of the schema for bronze and models alike.
        profiles: PRODUCTION, or SMALL, which has settings for tables of a few rows.
    """

    def __init__(self, spark: SparkSession, folder: Path, schema: str, profiles: Path = PRODUCTION) -> None:
        self.spark = spark
        self.folder = folder
        self.schema = schema
        self.profiles = profiles
        (folder / "models").mkdir(parents=True, exist_ok=True)
        install_package(folder)
        (folder / "dbt_project.yml").write_text(PROJECT.format(macros=ROOT / "macros", schema=schema))
        spark.sql(f"create schema if not exists {schema}")
        self.prefix = ""
        self.sources: list[str] = []
        self.messages: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.watchers: list[Watcher] = []

    def part(self, prefix: str) -> Lab:
        """The same project for one scenario: tables and models have names of its own, which begin with the prefix."""
        made = copy.copy(self)
        made.prefix, made.sources = prefix, []
        return made

    def table(self, name: str) -> str:
        """Full name of a table, view or model."""
        return f"{self.schema}.{self.prefix}{name}"

    def bronze(self, name: str, columns: str) -> None:
        """Creates an empty bronze table with the given key and value columns and the usual metadata."""
        self.spark.sql(f"create or replace table {self.table(name)} ({columns}, {METADATA}) using delta")
        self.sources.append(name)
        listed = "".join(f"\n      - name: {self.prefix}{source}" for source in self.sources)
        (self.folder / "models" / f"_{self.prefix}sources.yml").write_text(
            f"version: 2\nsources:\n  - name: bronze\n    schema: {self.schema}\n    tables:{listed}\n"
        )

    def deliver(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Appends rows, in the column order of the bronze table, in one commit."""
        schema = self.spark.table(self.table(name)).schema
        frame = self.spark.createDataFrame(list(rows), schema)
        frame.coalesce(1).write.format("delta").mode("append").saveAsTable(self.table(name))

    def model(self, name: str, source: str, select: str, **config: Any) -> None:
        """Writes a CDC model: a plain projection of the bronze table."""
        self.sql(name, f"select {select} from {{{{ source('bronze', '{self.prefix}{source}') }}}}", **config)

    def sql(self, name: str, query: str, **config: Any) -> None:
        """Writes a model of any kind."""
        options = ", ".join(f"{key}={value!r}" for key, value in config.items())
        path = self.folder / "models" / f"{self.prefix}{name}.sql"
        path.write_text(f"{{{{ config({options}) }}}}\n{query}\n")

    def remove(self, name: str) -> None:
        """Takes a model out of the project; its table stays."""
        (self.folder / "models" / f"{self.prefix}{name}.sql").unlink()

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
        """Runs `dbt run`, or another command; keeps each model's message in `messages`, and in `failed` if it failed.
        `callbacks` take dbt's events, `arguments` are added to the command line, `prefix` goes before the schema,
        `target` is the folder of artifacts.

        Raises:
            AssertionError: a model failed and `check` is true; the text is dbt's message.
        """
        from dbt.cli.main import dbtRunner

        line = [
            "--quiet", command, "--project-dir", str(self.folder), "--profiles-dir", str(self.profiles),
            "--target-path", str(self.folder / target), "--log-path", str(self.folder / "logs"),
            *(["--select", *select] if select else []),
            *(["--full-refresh"] if full_refresh else []), *arguments,
        ]  # fmt: skip
        os.environ["LAKEHOUSE_SCHEMA_PREFIX"] = prefix  # another test may have set it
        with _watched(self.watchers):
            result = dbtRunner(callbacks=list(callbacks)).invoke(line)
        if result.exception:
            raise result.exception
        models = [r for r in result.result if r.node.resource_type in ("model", "snapshot")]
        self.messages = {r.node.name: str(r.message) for r in models}
        self.failed = {r.node.name: str(r.message) for r in models if r.status != "success"}
        if check:
            assert not self.failed, "\n".join(f"{name}: {message}" for name, message in self.failed.items())
        return models

    def explain(self, model: str, key: Any, **arguments: Any) -> list[str]:
        """Lines of `dbt run-operation cdc_explain`."""
        from dbt.cli.main import dbtRunner

        lines: list[str] = []

        def note(told: Any) -> None:
            if told.info.name == "JinjaLogInfo":
                lines.append(told.data.msg)

        line = [
            "--quiet", "run-operation", "cdc_explain", "--args",
            json.dumps({"model": f"{self.prefix}{model}", "key": key, **arguments}),
            "--project-dir", str(self.folder), "--profiles-dir", str(self.profiles),
            "--target-path", str(self.folder / "target"), "--log-path", str(self.folder / "logs"),
        ]  # fmt: skip
        result = dbtRunner(callbacks=[note]).invoke(line)
        assert result.success, result.exception or lines
        return lines

    def rows(self, name: str, columns: Iterable[str] | str = "*") -> list[dict[str, Any]]:
        """Rows of a view or table as dictionaries."""
        listed = columns if isinstance(columns, str) else ", ".join(columns)
        return [
            row.asDict(recursive=True) for row in self.spark.sql(f"select {listed} from {self.table(name)}").collect()
        ]

    def version(self, name: str) -> int:
        """Latest Delta version of a table."""
        history = self.spark.sql(f"describe history {self.table(name)} limit 1").collect()
        return int(history[0]["version"])

    def data_commits(self, name: str) -> list[Mapping[str, Any]]:
        """Commits that wrote rows, oldest first."""
        history = self.spark.sql(f"describe history {self.table(name)}").collect()
        kinds = ("MERGE", "WRITE", "CREATE OR REPLACE TABLE AS SELECT", "CREATE TABLE AS SELECT")
        return [row.asDict() for row in reversed(history) if row["operation"] in kinds]


@dataclass
class _Running:
    part: Lab
    steps: Generator[str | None, None, None]
    asked: str | None = None

    def next(self) -> None:
        """To the next `yield`; there, unless it may fail, a failed model is raised."""
        if self.part.failed and self.asked != MAY_FAIL:
            self.asked = self.steps.throw(AssertionError(str(self.part.failed)))
        else:
            self.asked = next(self.steps)

    def take(self, lab: Lab) -> None:
        """What the run said of this part's models, under their own names."""
        for name in ("messages", "failed"):
            found = {node: text for node, text in getattr(lab, name).items() if node.startswith(self.part.prefix)}
            setattr(self.part, name, {node.removeprefix(self.part.prefix): text for node, text in found.items()})


def play(lab: Lab, scenarios: Mapping[str, Scenario]) -> dict[str, Exception | None]:
    """Takes each scenario to its next `yield`, then builds the models of all of them in one dbt run, and so on.

    A scenario yields None, or FULL_REFRESH, or MAY_FAIL when it looks at `failed` itself.

    Returns:
        What ended each: None, or the exception.
    """
    ended: dict[str, Exception | None] = {}
    running = {}
    for number, (name, scenario) in enumerate(scenarios.items()):
        part = lab.part(f"s{number}_")
        running[name] = _Running(part, scenario(part))
    while running:
        for name, one in list(running.items()):
            try:
                one.next()
                continue
            except StopIteration:
                ended[name] = None
            except Exception as exc:
                ended[name] = exc
            del running[name]
        for is_refresh in (False, True):
            if built := [one for one in running.values() if (one.asked == FULL_REFRESH) is is_refresh]:
                lab.build(*(f"{one.part.prefix}*" for one in built), full_refresh=is_refresh, check=False)
                for one in built:
                    one.take(lab)
    return ended


@contextmanager
def _watched(watchers: Sequence[Watcher]) -> Iterator[None]:
    """Shows every statement of a dbt run to the watchers."""
    import dbt_spark_sessions as sessions

    execute = sessions.Cursor.execute

    def execute_watched(cursor: Any, sql: str, *parameters: Any) -> None:
        for watcher in list(watchers):
            sql = watcher(cursor, sql) or sql
        execute(cursor, sql, *parameters)

    sessions.Cursor.execute = execute_watched
    try:
        yield
    finally:
        sessions.Cursor.execute = execute
