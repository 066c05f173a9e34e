"""AWS DMS on S3: names of its files, and of what it adds to a table's columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

FULL_LOAD = re.compile(r"LOAD[0-9A-Fa-f]{8}")
CHANGES = re.compile(r"[0-9]{8}-[0-9]{9,10}")
"""In the name of a file: a part of a full load, counted, or changes, by the time of the file in UTC."""

OPERATION = "Op"

_BEFORE_IMAGE = "BI_"
_NAME = re.compile(r"[^\W\d][^\r\n]*")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?")


def table_of(
    names: Sequence[str], records: Sequence[dict[str, Any]], has_types: bool
) -> tuple[list[str], list[dict[str, Any]], dict[str, str]]:
    """The table in a file of DMS, for the draft of a contract.

    Args:
        names: The file's columns.
        records: Its rows.
        has_types: Its values have types; else they are texts, `NULL` for none and times without their zone.

    Returns:
        The table's columns, its rows without deletes, which have a key alone, and the contract's fields for what DMS
        added: the commit time, which is the first column after the operation, and before images.

    Raises:
        ValueError: the first line of a csv file is no header.
    """
    if names[0] in ("I", "U", "D") or not all(map(_NAME.fullmatch, names)):
        raise ValueError("it has no header; give a file of a task with AddColumnName, or in parquet")
    first = next((name for name in names if name != OPERATION), "")
    times = [str(record[first]).removesuffix("+00:00") for record in records]
    added = {"timestamp_column": first} if all(map(_TIME.fullmatch, times)) else {}
    images = {name for name in names if name.startswith(_BEFORE_IMAGE) and name[len(_BEFORE_IMAGE) :] in names}
    if images:
        added["before_image_prefix"] = _BEFORE_IMAGE
    of_table = [name for name in names if name not in (OPERATION, added.get("timestamp_column"), *images)]
    living = [record for record in records if record.get(OPERATION) != "D"]
    rows = [{name: record[name] if has_types else _value(record[name]) for name in of_table} for record in living]
    return of_table, rows, added


def _value(text: str | None) -> str | None:
    if text == "NULL":
        return None
    return f"{text}Z" if text and _TIME.fullmatch(text) else text
