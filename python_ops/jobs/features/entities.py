"""The file of rows that features are asked for: a key, a time, and columns that are kept, such as labels."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from python_ops.lake.errors import ConfigError, first_line

OWN = "_features_"
"""Names that begin so are the join's own."""


def read_entities(path: Path, keys: dict[str, str | None], time_column: str, zone: str | None) -> Any:
    """Rows of an entity file as an Arrow table, each with its time in UTC (`_features_at`) and its number.

    Args:
        path: A parquet or csv file.
        keys: Key columns that may be there, with the type that the model declares.
        time_column: Column of the time that each row asks for.
        zone: Time zone of times that do not say theirs, such as `Europe/Berlin`; None if all do.

    Raises:
        ConfigError: the file cannot be read, lacks a column, has a time without a zone, an empty key or time, or the
            same key and time twice.
    """
    import pyarrow as pa

    table = _read(path, [*keys, time_column])
    there = [key for key in keys if key in table.column_names]
    if time_column not in table.column_names or not there:
        wanted = [time_column] if time_column not in table.column_names else []
        wanted += [f"one of {', '.join(keys)}"] if not there else []
        raise ConfigError(
            f"{path} lacks the column {' and '.join(wanted)}; it has {', '.join(table.column_names) or 'none'}. "
            "--time-column names the column of the time."
        )
    if own := [name for name in table.column_names if name.startswith(OWN)]:
        raise ConfigError(f"{path}: the column {own[0]} has a name of the join's own. Rename it.")
    moments = _moments(path, table.column(time_column), time_column, _zone(zone))
    for key in there:
        table = table.set_column(table.column_names.index(key), key, _key(path, key, table.column(key), keys[key]))
    table = table.append_column(f"{OWN}at", moments).append_column(f"{OWN}row", pa.array(range(len(table)), pa.int64()))
    for name in (*there, time_column):
        if empty := table.column(name).null_count:
            raise ConfigError(f"{path}: {empty} rows have no {name}. Give every row its key and time.")
    _refuse_duplicates(path, table, there)
    return table


def _read(path: Path, texts: list[str]) -> Any:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".csv":
            # Keys and times as they are written: 007 is no 7, and a time with a zone is not one without.
            options = csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()), strings_can_be_null=True)
            return csv.read_csv(path, convert_options=options)
        if path.suffix == ".parquet":
            return pq.read_table(path)
    except (OSError, pa.ArrowException) as exc:
        raise ConfigError(f"{path} cannot be read: {first_line(exc, 200)}") from exc
    raise ConfigError(f"{path}: an entity file is .parquet or .csv.")


def _zone(name: str | None) -> tzinfo | None:
    try:
        return None if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise ConfigError(f"--time-zone {name} is no time zone; write one such as UTC or Europe/Berlin.") from exc


def _moments(path: Path, column: Any, name: str, zone: tzinfo | None) -> Any:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        try:
            return column.cast(pa.timestamp("us", kind.tz)).cast(pa.timestamp("us", "UTC"))
        except pa.ArrowInvalid as exc:
            raise ConfigError(f"{path}: {name} has parts of a microsecond, which the lake's times lack.") from exc
    if not (pa.types.is_timestamp(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ConfigError(f"{path}: {name} is of type {kind}; a time is a timestamp or an ISO 8601 text.")
    return pa.array(
        [_moment(path, name, number, value, zone) for number, value in enumerate(column.to_pylist(), 1)],
        pa.timestamp("us", "UTC"),
    )


def _moment(path: Path, name: str, number: int, value: Any, zone: tzinfo | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as exc:
        raise ConfigError(f"{path}, row {number}: {name} is no ISO 8601 time.") from exc
    if moment.tzinfo is None:
        if zone is None:
            raise ConfigError(
                f"{path}, row {number}: {name} has no time zone. Write one (2025-03-01T12:00:00+01:00), or say which "
                "it is: --time-zone UTC."
            )
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)


def _key(path: Path, name: str, column: Any, declared: str | None) -> Any:
    """A key column in the type that the model declares."""
    import pyarrow as pa

    kinds = {"int": pa.int32(), "bigint": pa.int64(), "string": pa.string()}
    wanted = kinds.get(declared or "")
    try:
        return column if wanted is None else column.cast(wanted)
    except pa.ArrowException as exc:
        raise ConfigError(f"{path}: {name} has a value that is no {declared}, the type of the features' key.") from exc


def _refuse_duplicates(path: Path, table: Any, keys: list[str]) -> None:
    """Values are not shown: a key may be a person's."""
    grouped = table.group_by([*keys, f"{OWN}at"]).aggregate([(f"{OWN}row", "min"), (f"{OWN}row", "max")])
    doubled = [(a, b) for a, b in zip(grouped[f"{OWN}row_min"].to_pylist(), grouped[f"{OWN}row_max"].to_pylist(),
                                      strict=True) if a != b]  # fmt: skip
    if doubled:
        first, other = min(doubled)
        raise ConfigError(
            f"{path}: {len(doubled)} keys and times are there more than once, such as in rows {first + 1} and "
            f"{other + 1}. Each row asks for one key at one time; keep one of them."
        )
