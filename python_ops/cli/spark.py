"""`lakeops spark`: a Spark server that stays, for commands on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.lake import warm
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.spark import export_environment, is_connect, spark_settings

app = typer.Typer(help="A warm Spark server for commands on this machine.", no_args_is_help=True)


@app.command()
def start(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on loopback; any that is free.")] = None,
    idle: Annotated[float, typer.Option(min=0.1, help="Minutes without a command after which it ends.")] = 30.0,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Start Spark once; dbt and lakeops then use it instead of starting their own, until it ends.

    Example: lakeops spark start --idle 60
    """
    lake = _own_spark(env)
    export_environment(lake.settings)
    server = warm.start(lake.settings, spark_settings(lake.settings), port, idle)
    if as_json:
        print_json(server)
        return
    typer.echo(
        f"Spark is up on port {server.port}, for commands on {lake.home}. It ends after {idle:g} minutes without one, "
        "or by `lakeops spark stop`."
    )


@app.command()
def stop(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """End the server, if it is up. A command that is under way on it fails.

    Example: lakeops spark stop
    """
    lake = _own_spark(env)
    server = warm.stop(lake.settings)
    if as_json:
        print_json({"stopped": server is not None})
        return
    typer.echo(f"Spark on port {server.port} has ended." if server else f"No Spark server of {lake.home} is up.")


@app.command()
def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show whether the server is up, and whether this environment's commands use it.

    Example: lakeops spark status --json
    """
    lake = _own_spark(env)
    server, is_used = warm.find(lake.settings), False
    if server:
        export_environment(lake.settings)
        is_used = server.fingerprint == warm.fingerprint(spark_settings(lake.settings))
    idle = warm.idle_seconds(lake.settings) if server else None
    if as_json:
        print_json({"server": asdict(server) if server else None, "is_used": is_used, "idle_seconds": idle})
        return
    if server is None:
        typer.echo(f"No Spark server of {lake.home} is up: each command starts its own.")
        return
    typer.echo(f"Spark is up on port {server.port} since {server.since}, unused for {idle:.0f} s.")
    if not is_used:
        typer.echo("It was started with other settings than commands have now: `lakeops spark stop`.")


def _own_spark(env: Environment) -> Lake:
    lake = lake_of(env)
    if is_connect(lake.settings):
        raise ConfigError(
            f"Environment {env.value} works on the Spark Connect server that SPARK_REMOTE names; a server of this "
            "machine is for environments with Spark in the process, such as local."
        )
    return lake
