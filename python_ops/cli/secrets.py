"""`lakeops secrets`: which credentials an environment needs, and whether they can be read. Never a value."""

from __future__ import annotations

from dataclasses import asdict

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.cli.tables import print_rows
from python_ops.lake.errors import ConfigError
from python_ops.watch.credentials import faults_of, where_found

app = typer.Typer(help="Which credentials are needed, and where they come from. Never a value.", no_args_is_help=True)


@app.command("list")
def list_(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """List the secrets that the environment's settings ask for, and where each is found.

    Example: lakeops secrets list --env prod
    """
    found = where_found(lake_of(env))
    if as_json:
        print_json(found)
    elif found:
        print_rows(["secret", "needed by", "found in"], [[f.name, f.needed_by, f.source or "nowhere"] for f in found])
    else:
        typer.echo("This environment needs no secrets.")


@app.command()
def check(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Read every secret that is needed, and check its fields. Exit 2 when one is missing or wrong; all are named.

    Example: lakeops secrets check --env prod
    """
    lake = lake_of(env)
    found = where_found(lake)
    wrong = {secret.name: faults_of(lake.secrets, secret) for secret in found}
    if as_json:
        print_json([asdict(secret) | {"faults": wrong[secret.name]} for secret in found])
    elif found:
        rows = [[f.name, f.needed_by, f.source or "nowhere", "wrong" if wrong[f.name] else "ok"] for f in found]
        print_rows(["secret", "needed by", "found in", ""], rows)
    else:
        typer.echo("This environment needs no secrets.")
    if told := [fault for faults in wrong.values() for fault in faults]:
        raise ConfigError("\n".join(told))
