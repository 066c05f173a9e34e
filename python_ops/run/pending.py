"""Whether a run would find anything to do, decided without a JVM: from ledgers, Delta logs and a hash of the project.

A green run writes `state/green.json`: the hash of the project, and every table's Delta identifier
and version. A run is skipped only when all of it still holds, nothing waits in the landing folders, and the last dbt
command was green, whoever ran it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from python_ops.jobs.ingest import has_new_files
from python_ops.jobs.publish import Publication
from python_ops.jobs.publish import status as publish_status
from python_ops.lake.artifacts import Manifest
from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.errors import OpsError
from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake, LakeAtRest

# What a build's result depends on, besides the data.
_PROJECT = (
    "dbt_project", "macros", "packages", "profiles", "python_ops", "seeds/reference", "tests/contracts",
    "dbt_project.yml", "packages.yml", "requirements.lock",
)  # fmt: skip


def remember(lake: Lake) -> None:
    """Writes `state/green.json`. Call it at the end of a green run."""
    record = {**_now(lake), "tables": _tables(lake, lake.manifest())}
    write_whole(lake.state / "green.json", json.dumps(record, indent=1))


def reason_to_run(lake: Lake) -> str | None:
    """The first reason to run: something to do, or something wrong; None if there is none."""
    lake = LakeAtRest(lake)
    try:
        then = json.loads((lake.state / "green.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "no green run yet"
    now = _now(lake)
    if then.get("project") != now["project"]:
        return "the project has changed"
    try:
        if waiting := [source for source in lake.contracts.sources if has_new_files(lake, source)]:
            return f"new files of {', '.join(waiting)}"
        manifest = lake.manifest()
        if failed := lake.run_results().failed():
            return f"the last dbt command was not green: {failed[0].unique_id}"
        if changed := _changed(lake, manifest, then.get("tables", {})):
            return f"changed since the last green run: {', '.join(changed)}"
        if behind := [t for t in publish_status(lake) if _is_behind(t.state)]:
            return f"not published yet: {', '.join(f'{t.table} to {t.target}' for t in behind)}"
    except OpsError as exc:
        return str(exc)
    return None


def green_since(lake: Lake) -> str:
    """When the last green run ended, ISO 8601, UTC."""
    return str(json.loads((lake.state / "green.json").read_text(encoding="utf-8"))["at"])


def _is_behind(state: Publication) -> bool:
    return state not in (Publication.CURRENT, Publication.DROPPED)


def _now(lake: Lake) -> dict[str, str]:
    return {"project": _project_hash(lake), "at": datetime.now(UTC).isoformat(timespec="seconds")}


def _project_hash(lake: Lake) -> str:
    digest = hashlib.sha256(lake.settings.target.encode())
    for path in _project_files():
        digest.update(str(path.relative_to(PROJECT_ROOT)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _project_files() -> Iterator[Path]:
    for name in _PROJECT:
        path = PROJECT_ROOT / name
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (file for file in found if file.is_file() and "__pycache__" not in file.parts)


def _changed(lake: Lake, manifest: Manifest, then: dict[str, list[Any]]) -> list[str]:
    """Tables that are new, gone, created again, or whose rows may have changed. OPTIMIZE and the like do not count."""
    now = _tables(lake, manifest)
    paths = _paths(lake, manifest)
    return sorted(
        name
        for name in now.keys() | then.keys()
        if name not in now
        or name not in then
        or now[name][0] != then[name][0]
        or lake.log(paths[name]).rows_changed_since(then[name][1])
    )


def _tables(lake: Lake, manifest: Manifest) -> dict[str, list[Any]]:
    """Delta identifier and version of every table of the environment that exists."""
    found = {}
    for name, path in _paths(lake, manifest).items():
        log = lake.log(path)
        if log.exists:
            found[name] = [str(log.table.metadata().id), log.table.version()]
    return found


def _paths(lake: Lake, manifest: Manifest) -> dict[str, Path]:
    paths = {f"bronze.{source}": lake.table_path("bronze", source) for source in lake.contracts.sources}
    for model in manifest.models.values():
        if model.storage:
            paths[f"{model.layer}.{model.storage}"] = lake.table_path(model.layer, model.storage)
    return paths
