"""Making a tag of tables' versions, and letting it go.

What protects a version is two properties of its table, so that a VACUUM or a clean-up of the log by hand keeps it too.
Delta deletes by age and not by version: while a table has a tag, no file that was replaced is removed from it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from python_ops.jobs.maintenance import Policy, policies, protect, release
from python_ops.lake.artifacts import Manifest, Model, refuse_red
from python_ops.lake.deltalog import LOG, last_version, read_version
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.lock import leased
from python_ops.lake.storage import folder_at
from python_ops.lake.tags import KIND, Pin, Tag, lost, tag_named, tags

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TRIES, _WAIT_SECONDS = 5, 0.5


def tag(lake: Lake, name: str, select: Sequence[str] = ()) -> Tag:
    """Pins the newest versions of models' tables, as the last green build left them.

    The tables are protected first and the tag is written last: a crash in between leaves tables that keep more than
    they must, until maintenance vacuums them.

    Args:
        name: A name that no tag has.
        select: Names of models; all gold models when empty.

    Raises:
        ConfigError: the name or a model is not valid.
        OpsError: a model is not built, its last build was not green, or a table is damaged. There is no tag then.
        BusyError: another process writes one of the tables.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"A tag's name has letters, digits and . _ - only, at most 63, not {name!r}.")
    if name in (known := [tag.name for tag in tags(lake)]):
        raise ConfigError(
            f"There is a tag {name} already. Choose another name, or let it go first (`lakeops table untag {name}`). "
            f"Tags: {', '.join(known)}."
        )
    manifest = lake.manifest()
    models = _chosen(manifest, select)
    then = "Nothing was tagged. Correct it, run `dbt build`, then tag."
    refuse_red(manifest, lake.run_results(), models, then)
    found = {policy.table: policy for policy in policies(lake, manifest)}
    if missing := [model.name for model in models if model.stored_table not in found]:
        raise OpsError(f"Not built yet: {', '.join(missing)}. Nothing was tagged. Run `dbt build` first.")
    wanted = [found[model.stored_table] for model in models]
    with leased(lake, [policy.table for policy in wanted], f"lakeops table tag {name}"):
        for policy in wanted:
            protect(lake.spark, policy)
        made = Tag(name, datetime.now(UTC).isoformat(timespec="seconds"), _pins(models, wanted))
        if gone := lost(lake, made):
            table, why = next(iter(gone.items()))
            raise OpsError(
                f"{table} cannot be tagged: {why}. Nothing was tagged. Restore it first (docs/runbooks/dr_restore.md)."
            )
        lake.store.put(KIND, name, asdict(made), 0)
    return made


def untag(lake: Lake, name: str, execute: bool = False) -> Tag:
    """Lets a tag go: from the next maintenance on, its tables are kept as their policy says.

    Returns:
        The tag as it was.

    Raises:
        ConfigError: there is no such tag.
        BusyError: another process writes one of the tables, or changed the tag.
    """
    known = tag_named(lake, name)
    if not execute:
        return known
    mine = [policy for policy in policies(lake, lake.manifest()) if policy.table in known.tables]
    with leased(lake, [policy.table for policy in mine], f"lakeops table untag {name}"):
        record = lake.store.get(KIND, name)
        lake.store.delete(KIND, name, record.revision if record else 0)
        for policy in mine:
            if policy.tags == (name,):
                release(lake.spark, policy)
    return known


def _chosen(manifest: Manifest, select: Sequence[str]) -> list[Model]:
    stored = {model.name: model for model in manifest.models.values() if model.storage}
    if unknown := sorted(set(select) - stored.keys()):
        raise ConfigError(
            f"No such model, or none with a table of its own: {', '.join(unknown)}. "
            f"Models: {', '.join(sorted(stored)) or 'none'}."
        )
    chosen = [m for name, m in sorted(stored.items()) if name in select or (not select and m.layer == "gold")]
    if not chosen:
        raise ConfigError("There is no gold model to tag. Name models with --select.")
    return chosen


def _pins(models: Sequence[Model], wanted: Sequence[Policy]) -> dict[str, Pin]:
    """Every table's newest version, read until none has moved meanwhile."""
    folders = [folder_at(policy.path) for policy in wanted]
    for _ in range(_TRIES):
        told = [read_version(folder) for folder in folders]
        if [version.version for version in told] == [last_version(folder.names(LOG)) for folder in folders]:
            found = {
                policy.table: Pin(v.version, v.table_id, model.layer, str(model.storage), v.rows)
                for policy, model, v in zip(wanted, models, told, strict=True)
            }
            return dict(sorted(found.items()))
        time.sleep(_WAIT_SECONDS)
    raise OpsError("Tables are written to without a pause. Nothing was tagged. Run again when the writer has ended.")
