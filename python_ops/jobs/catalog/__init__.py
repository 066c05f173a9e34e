"""The lake in AWS Glue's Data Catalog, for Athena, Trino and EMR: made from contracts, models and Delta logs.

An entry belongs to the environment that its parameter `lakehouse.environment` names. Entries of others are never
changed: they are named as `refused`. Tables that Spark itself entered, where Glue is its metastore, are the lake's own
if they lie where the lake's table lies; they keep the parameters that Spark needs. Spark's views are left to it.
docs/guides/catalog.md says what each reader needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

from python_ops.jobs.catalog.entries import LAYERS, MARK, PARAMETERS, Entries
from python_ops.lake import aws
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake

_RIGHT = (
    "The role must have the calls of `catalog` in infra/terraform/roles.tf, and with Lake Formation CREATE_TABLE and "
    "ALTER on the database."
)


class Action(StrEnum):
    """What becomes of an entry."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    REMOVE = "remove"
    LEFT = "left"  # a view that Spark keeps in Glue under the same name
    REFUSED = "refused"  # somebody else's
    FAILED = "failed"


@dataclass(frozen=True)
class Change:
    """What is to be done, or was done, with one entry.

    Attributes:
        name: A database, or `database.table`.
        why: What differs, or what is in the way.
    """

    name: str
    action: Action
    why: str = ""


def register(lake: Lake, execute: bool = False, on_change: Callable[[Change], None] | None = None) -> list[Change]:
    """Makes the catalog say what the lake has: databases, tables, views; what is gone is removed.

    Args:
        execute: Act; otherwise only the plan is made.
        on_change: Called with each change when it is done, or planned.

    Returns:
        Every entry, in the order of its name.

    Raises:
        ConfigError: boto3 is not installed.
        OpsError: Glue does not answer or admit, there is no manifest, or the lake is empty. What fails at one entry is
            its `FAILED` change.
    """
    glue, entries = _Glue(), Entries(lake)
    if not (wanted := list(entries.names())):
        raise OpsError(f"The lake in {lake.settings.place} has no tables: nothing was registered, and nothing removed.")
    done: list[Change] = []

    def take(change: Change, act: Callable[[], Any] | None = None) -> None:
        done.append(carried_out(change, act if execute else None))
        if on_change:
            on_change(done[-1])

    told = f"Layer of the lakehouse {lake.settings.target}"
    for schema in map(lake.schema_name, LAYERS):
        exists = glue.database(schema) is not None
        made = partial(glue.change_database, schema, {"Description": told, "Parameters": {MARK: lake.settings.target}})
        take(Change(schema, Action.UNCHANGED if exists else Action.CREATE), None if exists else made)
        found = glue.tables(schema) if exists else {}
        for name in (each for each in wanted if each.partition(".")[0] == schema):
            take(*_planned(glue, entries, name, found.pop(name.partition(".")[2], None)))
        for table in (table for table, entry in found.items() if _mark(entry) == lake.settings.target):
            gone = Change(f"{schema}.{table}", Action.REMOVE, "the lake has no such table")
            take(gone, partial(glue.change_table, "delete_table", schema, {"Name": table}))
    return done


def unregister(lake: Lake, execute: bool = False) -> list[Change]:
    """Removes the environment's own entries, then the databases that it made and that are empty. No data is touched.

    Raises:
        OpsError: Glue does not answer or admit.
    """
    glue, done = _Glue(), []
    for schema in map(lake.schema_name, LAYERS):
        if (database := glue.database(schema)) is None:
            continue
        others = 0
        for table, entry in glue.tables(schema).items():
            if _mark(entry) != lake.settings.target:
                others += 1
                done.append(Change(f"{schema}.{table}", Action.LEFT, "not registered by this environment"))
                continue
            done.append(Change(f"{schema}.{table}", Action.REMOVE))
            if execute:
                glue.change_table("delete_table", schema, {"Name": table})
        if _mark(database) == lake.settings.target and not others:
            done.append(Change(schema, Action.REMOVE))
            if execute:
                glue.change_database(schema, None)
    return done


def carried_out(change: Change, act: Callable[[], Any] | None) -> Change:
    """The change when it is done, or has failed; without an act, the plan."""
    try:
        if act:
            act()
    except OpsError as exc:
        return replace(change, action=Action.FAILED, why=str(exc))
    return change


def refuse_incomplete(changes: list[Change]) -> None:
    """Raises what could not be registered.

    Raises:
        OpsError: an entry failed or is somebody else's; the text names each.
    """
    bad = [change for change in changes if change.action in (Action.REFUSED, Action.FAILED)]
    if bad:
        told = "; ".join(f"{change.name} {change.action.value}: {change.why}" for change in bad)
        raise OpsError(f"{len(bad)} of {len(changes)} entries are not in the catalog as they should be. {told}")


def _planned(
    glue: _Glue, entries: Entries, name: str, there: Mapping[str, Any] | None
) -> tuple[Change, Callable[[], Any] | None]:
    """What becomes of one entry, and the call that does it."""
    schema = name.partition(".")[0]
    try:
        wanted = entries.entry(name)
    except ConfigError:
        raise
    except OpsError as exc:
        return Change(name, Action.FAILED, str(exc)), None
    if there is None:
        return Change(name, Action.CREATE), partial(glue.change_table, "create_table", schema, wanted)
    has = there.get("Parameters") or {}
    if MARK not in has and _is_spark_view(there):
        return Change(name, Action.LEFT, "Spark's own view, in its metastore"), None
    if _mark(there) != entries.lake.settings.target and not (MARK not in has and _lies_there(there, wanted)):
        whose = f"of environment {has[MARK]}" if MARK in has else "that this project did not register"
        return Change(name, Action.REFUSED, f"there is an entry {whose}; remove or rename it"), None
    of_others = {name: value for name, value in has.items() if name not in PARAMETERS}
    wanted = {**wanted, "Parameters": {**of_others, **wanted["Parameters"]}}
    if differs := _differences(there, wanted):
        update = partial(glue.change_table, "update_table", schema, wanted)
        return Change(name, Action.UPDATE, ", ".join(differs)), update
    return Change(name, Action.UNCHANGED), None


def _mark(entry: Mapping[str, Any]) -> str | None:
    mark: str | None = (entry.get("Parameters") or {}).get(MARK)
    return mark


def _is_spark_view(entry: Mapping[str, Any]) -> bool:
    names = entry.get("Parameters") or {}
    return entry.get("TableType") == "VIRTUAL_VIEW" and any(name.startswith(("spark.sql.", "view.")) for name in names)


def _lies_there(entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an entry is Spark's own of the very table: its location is in the descriptor or in the serde's `path`."""
    descriptor = entry.get("StorageDescriptor") or {}
    places = {descriptor.get("Location"), ((descriptor.get("SerdeInfo") or {}).get("Parameters") or {}).get("path")}
    plain = {str(place).rstrip("/").replace("s3a://", "s3://") for place in places if place}
    return wanted["TableType"] != "VIRTUAL_VIEW" and wanted["StorageDescriptor"]["Location"].rstrip("/") in plain


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of what an entry should have otherwise."""
    had, wants = there.get("StorageDescriptor") or {}, wanted["StorageDescriptor"]
    pairs = {
        "columns": ([_column(each) for each in had.get("Columns") or []], [_column(each) for each in wants["Columns"]]),
        "location": (had.get("Location") or "", wants["Location"]),
        "type": (there.get("TableType"), wanted["TableType"]),
        "view": (there.get("ViewOriginalText") or "", wanted.get("ViewOriginalText", "")),
        "description": (there.get("Description") or "", wanted["Description"]),
        "owner": (there.get("Owner") or "", wanted.get("Owner", "")),
        "parameters": (there.get("Parameters") or {}, wanted["Parameters"]),
    }
    return [name for name, (has, should) in pairs.items() if has != should]


def _column(column: Mapping[str, Any]) -> tuple[Any, ...]:
    return column["Name"], column.get("Type"), column.get("Comment") or "", column.get("Parameters") or {}


class _Glue:
    """Calls of AWS Glue, with errors of this project."""

    def __init__(self) -> None:
        with self._asked("anything"):
            self.client = aws.client("glue", answer_seconds=20)

    def _asked(self, what: str) -> AbstractContextManager[None]:
        return aws.explained("Glue", what, _RIGHT)

    def database(self, name: str) -> Mapping[str, Any] | None:
        """The database; None where there is none."""
        with self._asked(f"database {name}"):
            try:
                found: Mapping[str, Any] = self.client.get_database(Name=name)["Database"]
            except self.client.exceptions.EntityNotFoundException:
                return None
        return found

    def tables(self, database: str) -> dict[str, Mapping[str, Any]]:
        with self._asked(f"tables of {database}"):
            pages = self.client.get_paginator("get_tables").paginate(DatabaseName=database)
            return {table["Name"]: table for page in pages for table in page["TableList"]}

    def change_database(self, name: str, given: Mapping[str, Any] | None) -> None:
        """Makes a database; removes it where nothing is given."""
        with self._asked(f"database {name}"):
            if given is None:
                self.client.delete_database(Name=name)
            else:
                self.client.create_database(DatabaseInput={"Name": name, **given})

    def change_table(self, call: str, database: str, given: Mapping[str, Any]) -> None:
        """Calls `create_table`, `update_table` or `delete_table`."""
        with self._asked(f"{database}.{given['Name']}"):
            named = {"Name": given["Name"]} if call == "delete_table" else {"TableInput": given}
            getattr(self.client, call)(DatabaseName=database, **named)
