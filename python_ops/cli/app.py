"""All commands: nouns, then verbs."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from python_ops.cli import (
    catalog,
    contracts,
    cost,
    dlq,
    doctor,
    erase,
    extract,
    features,
    home,
    ingest,
    lineage,
    maintain,
    metrics,
    publish,
    report,
    run,
    secrets,
    sla,
    snapshot,
    spark,
    sql,
    stream,
    table,
    watermark,
)

app = typer.Typer(
    name="lakeops",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lakeops {installed_version('lakehouse-ops')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Its version.")] = False,
) -> None:
    """Operations around `dbt build`."""


app.add_typer(extract.app, name="extract")
app.add_typer(ingest.app, name="ingest")
app.add_typer(dlq.app, name="dlq")
app.add_typer(contracts.app, name="contracts")
app.add_typer(publish.app, name="publish")
app.add_typer(maintain.app, name="maintain")
app.add_typer(table.app, name="table")
app.add_typer(catalog.app, name="catalog")
app.add_typer(features.app, name="features")
app.add_typer(erase.app, name="erase")
app.add_typer(snapshot.app, name="snapshot")
app.add_typer(home.app, name="home")
app.add_typer(lineage.app, name="lineage")
app.add_typer(sla.app, name="sla")
app.add_typer(metrics.app, name="metrics")
app.add_typer(secrets.app, name="secrets")
app.add_typer(stream.app, name="stream")
app.add_typer(spark.app, name="spark")
app.add_typer(watermark.app, name="watermark")
for command in (run.run, run.demo, run.status, sql.sql, cost.cost, report.report, doctor.doctor):
    app.command()(command)
