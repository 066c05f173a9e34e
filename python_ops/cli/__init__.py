"""The command line: parsing, printing and exit codes. One module per noun."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from python_ops.lake import interrupts
from python_ops.lake.config import environments, load_settings, local_path
from python_ops.lake.errors import OpsError, Terminated
from python_ops.lake.home import require
from python_ops.lake.lake import Lake
from python_ops.lake.secrets import mask


class Environment(StrEnum):
    """Environments that this project has: one for each file of python_ops/lake/config."""

    LOCAL = "local"  # the default of `--env`
    vars().update({name.upper(): name for name in environments() if name != "local"})


Env = Annotated[Environment, typer.Option("--env", help="Environment: a file of python_ops/lake/config.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Execute = Annotated[bool, typer.Option("--execute", help="Act; without it the plan is shown.")]
Source = Annotated[str, typer.Argument(help="Name of the source.")]
Sources = Annotated[list[str] | None, typer.Argument(help="Sources; all when none is named.")]


def lake_of(env: Environment) -> Lake:
    """The lake of an environment, on a home that is its own.

    Raises:
        ConfigError: a LAKEHOUSE_* variable has a value that it cannot have, or the home is another environment's, or
            was copied or moved.
    """
    settings = load_settings(env.value)
    require(settings)
    os.umask(int(settings.umask, 8))
    return Lake(settings)


def local_file(given: Path | None) -> Path | None:
    """Callback of options that take a file or folder of this machine."""
    return None if given is None else local_path(given, "A file or folder")


def print_json(value: Any) -> None:
    """Prints dataclasses, lists and dictionaries as JSON."""
    typer.echo(json.dumps(value, default=_as_data, indent=2))


def say_if_planned(executed: bool) -> None:
    """Says that a plan is a plan."""
    if not executed:
        typer.echo("Nothing was done. `--execute` acts.")


def _as_data(item: Any) -> Any:
    return asdict(item) if is_dataclass(item) and not isinstance(item, type) else str(item)


def _terminate(number: int, frame: object) -> None:
    interrupts.see()
    raise Terminated


def main() -> None:
    """Runs a command; a failure is one message on stderr and its exit code. SIGTERM stops it as Ctrl-C does."""
    from python_ops.cli.commands import made

    signal.signal(signal.SIGTERM, _terminate)
    try:
        made(sys.argv[1:])()
    except OpsError as exc:
        typer.echo(f"lakeops: {mask(str(exc))}", err=True)
        if os.environ.get("LAKEHOUSE_DEBUG"):
            raise
        sys.exit(exc.exit_code)
    except Exception as exc:
        if os.environ.get("LAKEHOUSE_DEBUG"):
            raise
        text = mask(f"{type(exc).__name__}: {exc}".splitlines()[0][:500])
        typer.echo(f"lakeops: unexpected {text}. Set LAKEHOUSE_DEBUG=1 for the stack trace.", err=True)
        sys.exit(1)
