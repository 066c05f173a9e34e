"""`lakeops features`: what is known of entities, as of any time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, local_file, print_json
from python_ops.cli.tables import print_rows
from python_ops.jobs.features import changed_at, feature_tables
from python_ops.jobs.features import export as export_features
from python_ops.jobs.features.asof import Engine
from python_ops.jobs.features.asof import asof as join_features
from python_ops.lake.errors import ConfigError
from python_ops.lake.files import draft_of, settle

app = typer.Typer(help="Features of entities: list them, export them, join them as of a time.", no_args_is_help=True)

Out = Annotated[
    Path, typer.Option("--out", callback=local_file, help="The parquet file to write; it must not be there.")
]


@app.command("list")
def list_features(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show every feature with its type, time to live, source, owner and freshness. Starts no JVM.

    Example: lakeops features list
    """
    found = feature_tables(lake_of(env))
    if as_json:
        print_json([{**asdict(table), "changed_at": changed_at(table)} for table in found])
        return
    print_rows(
        ["feature", "type", "key", "ttl hours", "made from", "owner", "fresh within minutes", "changed at"],
        [
            [f"{t.name}.{f.name}", f.type, t.key, f.ttl_hours, f.source, t.owner, t.freshness_minutes, changed]
            for t, changed in [(table, changed_at(table)) for table in found]
            for f in t.features
        ],
    )


@app.command()
def export(
    table: Annotated[str, typer.Argument(help="Name of a feature table, such as feat_customer.")],
    out: Out,
    latest: Annotated[bool, typer.Option("--latest", help="Only the newest row of each key, as known today.")] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Write the rows of a feature table, all or the latest of each key, as parquet. Starts no JVM.

    Example: lakeops features export feat_customer --latest --out customers.parquet
    """
    _refuse_existing(out)
    rows = export_features(lake_of(env), table, latest)
    _write(rows, out)
    if as_json:
        print_json({"out": out, "rows": len(rows)})
    else:
        typer.echo(f"{out}: {len(rows)} rows of {table}.")


@app.command()
def asof(
    entities: Annotated[
        Path, typer.Option("--entities", callback=local_file, help="Parquet or csv: a key, a time, and what is kept.")
    ],
    out: Out,
    features: Annotated[
        list[str] | None, typer.Option("--features", help="A feature table, or table.feature; all that fit if none.")
    ] = None,
    time_column: Annotated[str, typer.Option("--time-column", help="Column of the time.")] = "event_at",
    time_zone: Annotated[
        str | None, typer.Option("--time-zone", help="Zone of times that do not say theirs, such as UTC.")
    ] = None,
    valid_time: Annotated[
        bool, typer.Option("--valid-time", help="What was so then as known today, not what was known then.")
    ] = False,
    engine: Annotated[Engine, typer.Option("--engine", help="DuckDB for small files, Spark for size.")] = Engine.AUTO,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Join features to rows of keys and times, as they were known at each row's time. NULL where nothing was.

    Example: lakeops features asof --entities labels.parquet --features feat_customer --out training.parquet
    """
    _refuse_existing(out)
    done = join_features(lake_of(env), entities, features or (), time_column, time_zone, valid_time, engine)
    _write(done.rows, out)
    if as_json:
        told = {"out": out, "rows": len(done.rows), "engine": done.engine, "found": done.found, "unknown": done.unknown}
        print_json(told)
        return
    print_rows(["feature", "rows with a value"], [[name, count] for name, count in done.found.items()])
    for name, count in done.unknown.items():
        if count:
            typer.echo(f"{count} of {len(done.rows)} rows have nothing in {name} at their time.")
    typer.echo(f"{out}: {len(done.rows)} rows, by {done.engine.value}.")


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise ConfigError(f"{out} is there already. Give another --out, or remove it.")


def _write(rows: Any, out: Path) -> None:
    """Whole or not at all."""
    import pyarrow.parquet as pq

    draft = draft_of(out)
    pq.write_table(rows, draft)
    settle(draft, out)
