"""Where Debezium's connectors say in which order the changes of a key come, as two whole numbers: `_source_lsn` and
`_source_position`.

| connector | order of a key's changes | source of the fields |
|---|---|---|
| PostgreSQL | `lsn` | Debezium's page of the connector, "Data change events" |
| MySQL, MariaDB | number of the binlog `file`, `pos`; `row` within an event | the same |
| SQL Server | `change_lsn`, `event_serial_no`; of a snapshot `commit_lsn` | the same; a key's row is locked until a commit, so its next change lies after it |
| Oracle | `scn`; block and offset of `rs_id`, `ssn` within it | the same |
| MongoDB | the oplog's time: seconds of `ts_ms`, `ord` within them; `transaction.total_order` | SourceInfo.java of the connector: both are of the cluster time of the change stream's event. Resume tokens are opaque |

A read of an incremental snapshot carries the position of the last event before it, and comes after that event: Debezium leaves out
reads of keys that changed meanwhile. One without a position comes before every change, in the order of its time.
"""  # noqa: E501 (a table)

from __future__ import annotations

from collections.abc import Callable

AFTER_EVERY_ROW = 1 << 40
"""`_source_position` of an incremental snapshot's read: after every row of the event whose place it carries."""

FIELDS = (
    "table", "schema", "db", "connector", "snapshot", "ts_us", "ts_ns", "ts_ms", "txId", "lsn", "file", "pos", "row",
    "collection", "ord", "change_lsn", "commit_lsn", "event_serial_no", "scn", "rs_id", "ssn",
)  # fmt: skip
"""The fields of an event's `source` that are read."""

_FILE_BITS, _BLOCK_BITS, _ORD_BITS, _SLOT_BITS, _SSN_BITS = 1 << 40, 1 << 32, 1 << 31, 1 << 16, 1 << 14


def positions(number: Callable[[str], str], text: Callable[[str], str], in_transaction: str) -> tuple[str, str]:
    """SQL of the two numbers of a record without `lsn`, NULL where it has no place. (With `lsn` they are that, and 0.)

    Args:
        number: SQL of a field of the event's `source` that is a whole number.
        text: SQL of a field that is a text.
        in_transaction: SQL of the number of the event in its transaction, with `provide.transaction.metadata`.
    """
    file = f"try_cast(regexp_extract({text('file')}, '[.]([0-9]+)$', 1) as bigint)"
    change = f"coalesce({text('change_lsn')}, {text('commit_lsn')})"
    scn = f"coalesce({number('scn')}, try_cast({text('scn')} as bigint))"
    place, ssn = _joined(_hex(text("rs_id"), 2), _SLOT_BITS, _hex(text("rs_id"), 3)), number("ssn")
    ways = {
        _joined(file, _FILE_BITS, number("pos")): f"coalesce({number('row')}, 0)",
        _joined(_hex(change, 1), _BLOCK_BITS, _hex(change, 2)): _joined(
            _hex(change, 3), _SLOT_BITS, f"coalesce({number('event_serial_no')}, 0)"
        ),
        _joined(f"{number('ts_ms')} div 1000", _ORD_BITS, number("ord")): f"coalesce({in_transaction}, 0)",
        scn: f"coalesce({_joined(place, _SSN_BITS, f'coalesce({ssn}, 0)')}, 0)",
    }
    within = " ".join(f"when {lsn} is not null then {position}" for lsn, position in ways.items())
    return f"coalesce({', '.join(ways)})", f"cast(case {within} end as bigint)"


def _joined(high: str, size: int, low: str) -> str:
    """One number of two; NULL where it does not fit, which is no place then and not an error of the whole file."""
    return f"try_add(try_multiply({high}, {size}), {low})"


def _hex(text: str, part: int) -> str:
    """A part of a number such as `00000027:00000758:0005` or `0x00035b.00034d8d.0010`."""
    return f"try_cast(conv(nullif(split_part(replace(trim({text}), '.', ':'), ':', {part}), ''), 16, 10) as bigint)"
