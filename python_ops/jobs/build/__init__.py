"""Calls dbt in this process, so that it shares the Spark session (one invocation at a time). `before` checks what must
hold before any dbt command of this project, also one that is typed by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from python_ops.jobs.build.first_loads import set_aside
from python_ops.jobs.build.mistakes import explained
from python_ops.lake.buckets import on_bucket
from python_ops.lake.config import PROJECT_ROOT, load_settings
from python_ops.lake.errors import ConfigError
from python_ops.lake.home import require
from python_ops.lake.lake import Lake
from python_ops.lake.local_copy import artifacts_kept
from python_ops.lake.lock import ENVIRONMENT, in_use, leased
from python_ops.lake.spark import PROFILES, export_environment, is_connect, server_place

# dbt's commands that need no Spark; every other one does.
_WITHOUT_SPARK = frozenset({"clean", "debug", "deps", "init", "list", "parse", "serve"})
_WITHOUT_PROFILE = frozenset({"clean", "deps", "init"})  # these read no profile, so they have no environment
_LOADS = frozenset({"build", "retry", "run", "seed", "snapshot"})


def arguments(
    command: Sequence[str],
    lake: Lake,
    select: Sequence[str] = (),
    *,
    exclude: Sequence[str] = (),
    full_refresh: bool = False,
) -> list[str]:
    """dbt's argument list.

    Args:
        command: Such as `["build"]` or `["docs", "generate"]`.
        lake: The environment; its target is dbt's target.
        select: dbt's node selection; everything when empty.
        exclude: What is left out of it.
        full_refresh: Adds `--full-refresh`.
    """
    listed = [*command, "--target", lake.settings.target, "--profiles-dir", str(PROFILES.parent)]
    listed += ["--project-dir", str(PROJECT_ROOT), "--log-path", str(lake.workspace / "logs")]
    listed += ["--select", *select] if select else []
    listed += ["--exclude", *exclude] if exclude else []
    listed += ["--full-refresh"] if full_refresh else []
    listed += ["--target-path", str(lake.artifacts)]
    return listed


def before(context: Any) -> None:
    """What dbt does before a command of this project (dbt_lakehouse.py): it checks the home, puts artifacts under it,
    locks it, starts Spark, as `lakeops` does, and sets aside what a killed first load left.

    Args:
        context: The command's click context; dbt keeps its flags, profile and project there.

    Raises:
        OpsError: the settings, the home or Spark do not allow it; nothing was read or written.
    """
    flags, project = context.obj["flags"], context.obj["project"]
    if flags.WHICH in _WITHOUT_PROFILE:
        return
    from dbt_common.events.functions import fire_event
    from dbt_common.events.types import Note

    settings = load_settings(context.obj["profile"].target_name)
    lake = Lake(settings)
    refuse_other_variables(lake)
    require(settings)
    os.umask(int(settings.umask, 8))
    with suppress(FileNotFoundError, PermissionError):  # there is none, or it is another user's
        (Path(flags.LOG_PATH) / "dbt.log").chmod(0o666 & ~int(settings.umask, 8))  # it has SQL, and was opened before
    # `lakeops` names the target, and dbt parses everything anew where the last command spelled it otherwise.
    for name in ("TARGET", "target"):
        object.__setattr__(flags, name, settings.target)
    if not flags.TARGET_PATH:
        project.target_path = str(lake.artifacts)
    if on_bucket(lake.home):
        context.with_resource(artifacts_kept(lake.kept_artifacts, Path(flags.TARGET_PATH or project.target_path)))
    if flags.WHICH not in _WITHOUT_SPARK:
        if is_connect(settings):
            server_place(settings)  # before anything is made under the home
        context.with_resource(in_use(lake, f"dbt {flags.WHICH}"))
        if on_bucket(lake.home):
            context.with_resource(leased(lake, [ENVIRONMENT], f"dbt {flags.WHICH}"))
        _ = lake.spark  # dbt takes the process's session
        if flags.WHICH in _LOADS:
            for told in set_aside(lake):
                fire_event(Note(msg=told))


def refuse_other_variables(lake: Lake) -> None:
    """Refuses variables that differ from the environment's file, because profiles.yml reads only variables."""
    given = os.environ.get("LAKEHOUSE_HOME", ".lake")
    for name, has, wants in (
        ("LAKEHOUSE_HOME", lake.settings.model_copy(update={"home": Path(given)}).place, lake.home),
        ("LAKEHOUSE_SCHEMA_PREFIX", os.environ.get("LAKEHOUSE_SCHEMA_PREFIX", ""), lake.settings.schema_prefix),
    ):
        if has != wants:
            raise ConfigError(
                f"Environment {lake.settings.target} sets {wants}, and dbt's profile would take {has}. Run "
                f"`export {name}={wants}` first."
            )


def invoke(lake: Lake, listed: Sequence[str], on_event: Callable[[Any], None] | None = None) -> Any:
    """Runs dbt.

    Args:
        lake: The environment, exported as the variables that profiles.yml reads.
        listed: Arguments, as `arguments` gives them.
        on_event: Called with each of dbt's structured events.

    Returns:
        dbt's `dbtRunnerResult`: `success`, `result`, `exception`.

    Raises:
        KeyboardInterrupt: Ctrl-C, SIGTERM or a lost lease.
    """
    export_environment(lake.settings)
    os.chdir(PROJECT_ROOT)  # profiles.yml names log4j2's file relative to the project
    from dbt.cli.main import dbtRunner

    result = dbtRunner(callbacks=[on_event] if on_event else []).invoke(list(listed))
    if isinstance(result.exception, KeyboardInterrupt):
        raise result.exception
    return result


def readers_of(sources: Iterable[str]) -> list[str]:
    """dbt's selection of these sources' tables and of everything that reads them, directly or not, tests included."""
    return [f"source:bronze.{source}+" for source in sorted(sources)]


def failure(result: Any) -> str:
    """What went wrong in a failed `dbtRunnerResult`: the first five nodes, each with file, line and fix where known."""
    nodes = result.result.results if result.result is not None else []
    bad = [node for node in nodes if str(node.status) in ("error", "fail", "runtime error")]
    told = "; ".join(f"{node.node.name}: {in_short(node.message)}" for node in bad[:5])
    return told or f"dbt: {in_short(str(result.exception))}"


def in_short(message: str | None) -> str:
    """A message of dbt's in one line: its meaning and the next step where they are known, else its first lines."""
    return explained(message or "") or first_lines(message)


def first_lines(message: str | None) -> str:
    """The first lines of a message of dbt's, as one of at most 500 characters."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return " ".join(lines[:3])[:500]
