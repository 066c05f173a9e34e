"""What is left of people beside tables and landing files: logs and spools, the DuckDB file, snapshots."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from python_ops.jobs.publish.duckdb_target import DuckDBTarget
from python_ops.jobs.publish.warehouses import warehouse
from python_ops.jobs.recovery.manifest import identifiers, load, store_of
from python_ops.lake.artifacts import Manifest
from python_ops.lake.buckets import on_bucket
from python_ops.lake.delta import exists, query
from python_ops.lake.erasure import KIND, Subject
from python_ops.lake.files import files_under, on_this_machine, write_whole
from python_ops.lake.lake import Lake
from python_ops.lake.sql import literal

# What is looked for in texts: a shorter value, or one of letters alone, is a word that others have too.
_TELLING = re.compile(r"(?=.{6}).*[0-9@]", re.DOTALL)

_BY_LINES = re.compile(r"\.(log(\.[0-9]+)?|jsonl)$")  # dbt numbers its older logs
_TEXTS = (".json", ".sql", ".html", ".txt")


def values_of(lake: Lake, people: Sequence[Subject]) -> list[str]:
    """What bronze's columns of personal data say of people, and what identifies them, as far as it tells one from
    another. Starts no JVM.
    """
    asked = {(person.kind, person.value) for person in people}
    found = {person.value for person in people}
    for contract in map(lake.contracts.load, lake.contracts.sources):
        path = lake.table_path("bronze", contract.source)
        personal = [column.name for column in contract.columns if column.pii and not column.subject]
        for subject in (c for c in contract.columns if c.subject and c.on_erasure == "remove" and personal):
            listed = ", ".join(literal(value) for kind, value in asked if kind == subject.subject)
            if listed and exists(path):
                columns = ", ".join(f'"{name}"' for name in personal)
                rows = query(path, f'select {columns} from t where cast("{subject.name}" as varchar) in ({listed})')
                found |= {str(v) for row in rows.to_pylist() for v in row.values() if v is not None}
    return sorted(filter(_TELLING.match, found))


def texts(lake: Lake, values: Sequence[str], execute: bool = False) -> Iterator[tuple[str, int, bool]]:
    """Files of texts that hold one of these values: name, lines, and whether they can be taken out line by line.

    Args:
        execute: Take them out where that can be.
    """
    if not values:
        return
    written = {form for value in values for form in (value, json.dumps(value)[1:-1])}  # as it is, and in JSON
    word = re.compile("|".join(rf"(?<![\w-]){re.escape(form)}(?![\w-])" for form in sorted(written)))
    for folder in dict.fromkeys([lake.workspace / "logs", lake.state, lake.artifacts]):
        for name in sorted(files_under(folder)) if folder.exists() else ():
            path, is_by_lines = folder / name, _BY_LINES.search(name) is not None
            if not (is_by_lines or path.suffix in _TEXTS) or f"/{KIND}/" in f"/{name}":
                continue
            with on_this_machine(path) as own:
                lines = own.read_bytes().decode("utf-8", "surrogateescape").split("\n")
            kept = [line for line in lines if not word.search(line)]
            if len(kept) == len(lines):
                continue
            if execute and is_by_lines:
                _replace(path, "\n".join(kept))
            yield f"{folder.name}/{name}", len(lines) - len(kept), is_by_lines


def _replace(path: Path, text: str) -> None:
    """Writes a log in place where it is a file of this machine: a process that appends to it goes on doing so."""
    data = text.encode("utf-8", "surrogateescape")
    if not on_bucket(path):
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()
    else:
        write_whole(path, data)


def published_rows(lake: Lake, manifest: Manifest, people: Sequence[Subject]) -> Iterator[tuple[str, int | None]]:
    """Published tables that people are in; of a server, and where values are hashed, the number
    of rows is not asked (None).

    Raises:
        OpsError: the DuckDB file is held open, or is none.
    """
    import duckdb

    asked = {person.kind for person in people}
    named = {
        model.table: (model, column)
        for model in manifest.models.values()
        for column in model.columns
        if column.meta.get("subject") in asked
    }
    for target in lake.settings.publish:
        served = [(t, *found) for t, found in sorted(named.items()) if target in found[0].meta.get("publish_to", [])]
        if target != "duckdb":
            yield from ((f"{target}: {table}", None) for table, _, _ in served)
            continue
        file = _duckdb_file(lake)
        known = file.served()
        for table, _, column in served:
            if table not in known:
                continue
            if column.meta.get("pii") and (policy := lake.settings.pii_policy(target)) != "clear":
                if policy == "hash":
                    yield f"duckdb: {table}", None
                continue
            with duckdb.connect(str(file.path), read_only=True) as engine:
                schema, _, name = table.partition(".")
                values = [person.value for person in people if person.kind == column.meta["subject"]]
                sql = f'select count(*) from "{schema}"."{name}" where cast("{column.name}" as varchar) in '
                row = engine.execute(f"{sql}(select unnest(?))", [values]).fetchone()
            yield f"duckdb: {table}", int(row[0]) if row else 0


def compact(lake: Lake) -> None:
    """Writes the DuckDB file anew, without the space of rows that were deleted. DuckDB itself never gives it back.

    Raises:
        OpsError: somebody holds the file open.
    """
    if "duckdb" in lake.settings.publish:
        _duckdb_file(lake).rewrite()


def _duckdb_file(lake: Lake) -> DuckDBTarget:
    file = warehouse(lake, "duckdb")
    assert isinstance(file, DuckDBTarget)
    return file


def copies_before(lake: Lake) -> list[str]:
    """Folders of tables that a restore has replaced."""
    folder = lake.home / "replaced"
    return sorted({name.split("/", 1)[0] for name in files_under(folder)})


def snapshots_before(lake: Lake, at: str) -> list[str]:
    """Snapshots of disaster recovery that were pinned before a time: they hold who was erased since.

    Raises:
        OpsError: the store cannot be read.
    """
    store = store_of(lake)
    return [name for name in identifiers(store) if load(store, name).pinned_at < at]
