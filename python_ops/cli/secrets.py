"""`lakeops secrets`: which credentials an environment needs, and whether they can be read. Never a value."""

from __future__ import annotations

import typer

from python_ops.cli import AsJson, Env, Environment, print_json, settings_for
from python_ops.cli.tables import print_rows
from python_ops.secrets import secrets_for, where_found

app = typer.Typer(help="Which credentials are needed, and where they come from. Never a value.", no_args_is_help=True)


@app.command("list")
def list_(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """List the secrets that the environment's settings ask for, and where each is found.

    Example: lakeops secrets list --env prod
    """
    found = where_found(settings_for(env))
    if as_json:
        print_json(found)
    elif found:
        print_rows(["secret", "needed by", "found in"], [[f.name, f.needed_by, f.source or "nowhere"] for f in found])
    else:
        typer.echo("This environment needs no secrets.")


@app.command()
def check(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Read every secret that is needed; exit 2 names the first that is missing, and where it was looked for.

    Example: lakeops secrets check --env prod
    """
    settings = settings_for(env)
    found = where_found(settings)
    if as_json:
        print_json(found)
    for secret in found:
        secrets_for(settings).get(secret.name)
    if not as_json:
        typer.echo(f"{len(found)} of {len(found)} secrets can be read.")
