"""dbt, called in this process so that it shares the Spark session. One invocation at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from python_ops.config import PROJECT_ROOT, Settings
from python_ops.spark import PROFILES, export_environment


def arguments(
    command: Sequence[str],
    settings: Settings,
    select: Sequence[str] = (),
    exclude: Sequence[str] = (),
    full_refresh: bool = False,
    target_path: Path | None = None,
) -> list[str]:
    """dbt's argument list.

    Args:
        command: Such as `["build"]` or `["docs", "generate"]`.
        settings: The environment; its target is dbt's target.
        select: dbt's node selection; everything when empty.
        exclude: What is left out of it.
        full_refresh: Adds `--full-refresh`.
        target_path: Folder of the artifacts; dbt_project.yml's when None.
    """
    listed = [*command, "--target", settings.target, "--profiles-dir", str(PROFILES.parent)]
    listed += ["--project-dir", str(PROJECT_ROOT), "--log-path", str(settings.home_path / "logs")]
    listed += ["--select", *select] if select else []
    listed += ["--exclude", *exclude] if exclude else []
    listed += ["--full-refresh"] if full_refresh else []
    listed += ["--target-path", str(target_path)] if target_path else []
    return listed


def invoke(settings: Settings, listed: Sequence[str], on_event: Callable[[Any], None] | None = None) -> Any:
    """Runs dbt.

    Args:
        settings: The environment, exported as the variables that profiles.yml reads.
        listed: Arguments, as `arguments` gives them.
        on_event: Called with each of dbt's structured events.

    Returns:
        dbt's `dbtRunnerResult`: `success`, `result`, `exception`.
    """
    export_environment(settings)
    os.chdir(PROJECT_ROOT)  # profiles.yml names log4j2's file relative to the project
    from dbt.cli.main import dbtRunner

    return dbtRunner(callbacks=[on_event] if on_event else []).invoke(list(listed))


def readers_of(sources: Iterable[str]) -> list[str]:
    """dbt's selection of these sources' tables and everything that reads them, however far away, tests included.

    `python_ops.artifacts` reads it back from run_results.json.
    """
    return [f"source:bronze.{source}+" for source in sorted(sources)]


def failure(result: Any) -> str:
    """What went wrong in a `dbtRunnerResult` that is no success: the first five nodes with their messages."""
    nodes = result.result.results if result.result is not None else []
    bad = [node for node in nodes if str(node.status) in ("error", "fail", "runtime error")]
    told = "; ".join(f"{node.node.name}: {first_lines(node.message)}" for node in bad[:5])
    return told or f"dbt: {first_lines(str(result.exception))}"


def first_lines(message: str | None) -> str:
    """The first lines of a message of dbt's, as one of at most 500 characters."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return " ".join(lines[:3])[:500]
