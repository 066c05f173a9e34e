"""What all formats share: JSON lines as variants, their columns typed, the verdict, and the row's last shape.

JSON is read as `variant`: it keeps integers and decimals exact, refuses duplicated keys, and tells a string from a
number, so that a changed type is seen. Column names come from the contract, whose schema admits `[a-z][a-z0-9_]*` only:
names of the projection's own begin with `_`, so that none is a contract's. `source_name` may be any text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence

from python_ops.jobs.ingest.formats.encodings import Encoding
from python_ops.jobs.ingest.formats.pipe import Pipe
from python_ops.jobs.ingest.formats.values import (
    MAX_EXTRA_COLUMNS,
    MAX_RECORD_BYTES,
    NUL,
    Check,
    first_of,
    from_variant,
    normalised,
    plain_text,
    range_checks,
    taken_as_null,
)
from python_ops.lake.contracts import Column, Contract
from python_ops.lake.rejections import Kind
from python_ops.lake.sql import escaped

NUL_IN_JSON = "contains(_raw, '\\\\u0000')"
"""SQL of whether a JSON record has NUL characters."""


def parse_json(lines: Pipe) -> Pipe:
    """Adds `_event`, the one JSON value of the line, and `_is_object`."""
    # In brackets before a word that nobody can guess, because the parser stops at the end of the first value: what
    # follows it on the line, another value or a bracket of the file's own, would be lost.
    # A byte order mark at the start of the file is not data. No regular expression and no schema of the whole event
    # here: each costs as much as parsing.
    end = secrets.token_hex(8)
    marked = "startswith(_raw, '\\uFEFF')"
    text = f"case when {marked} then substr(_raw, 2) else _raw end"
    whole = f"octet_length(_raw) <= {MAX_RECORD_BYTES} and is_valid_utf8(_raw)"
    return lines.select("*", f"case when {whole} then {text} end as _text").select(
        "*", f"try_parse_json(concat('[', _text, ',\"{end}\"]')) as _parsed"
    ).select(
        "*",
        f"case when try_variant_get(_parsed, '$[1]', 'string') = '{end}'"
        " then try_variant_get(_parsed, '$[0]', 'variant') end as _event",
    ).select(
        "*", "_event is not null and startswith(trim(leading ' \\t\\r\\n' from _text), '{') as _is_object"
    )  # fmt: skip


def check_record() -> list[Check]:
    """What every JSON line must be."""
    return [
        *(check._replace(condition=f"not coalesce(_is_object, false) and {check.condition}") for check in check_text()),
        Check("not coalesce(_is_object, false)", Kind.RECORD, "not one JSON object, or a key is there twice"),
        Check(
            "size(_recased) > 0 and _folded is null", Kind.RECORD, "a column is there twice, in upper and lower case"
        ),
        Check(
            f"size(_others) > {MAX_EXTRA_COLUMNS}",
            Kind.RECORD,
            f"more than {MAX_EXTRA_COLUMNS} columns that the contract lacks",
        ),
    ]


def check_text() -> list[Check]:
    """What every line must be, in any format."""
    return [
        Check(f"octet_length(_raw) > {MAX_RECORD_BYTES}", Kind.RECORD, f"longer than {MAX_RECORD_BYTES} bytes"),
        Check("not is_valid_utf8(_raw)", Kind.RECORD, "not valid UTF-8"),
    ]


def column_checks(contract: Contract, column: Column, applies: str) -> list[Check]:
    """What a column's value must be, in the rows that meet a condition: `_kind_…` and `_text_…` are what was given."""
    name = column.name
    checks: list[Check] = []
    if column.required:
        checks.append(
            Check(f"{applies} and `_kind_{name}` is null", Kind.MISSING, "a required column is missing", name)
        )
        checks.append(Check(f"{applies} and `_kind_{name}` = 'VOID'", Kind.MISSING, "a required value is null", name))
    if name in contract.key and column.type == "string":
        checks.append(Check(f"{applies} and trim(`{name}`) = ''", Kind.MISSING, "the key is blank", name))
    wrong = f"{applies} and `_kind_{name}` <> 'VOID' and `{name}` is null"
    wrong += f" and not {taken_as_null(column, f'`_text_{name}`')}"
    checks.append(Check(wrong, Kind.TYPE, f"not a {column.type}", name))
    return [*checks, *range_checks(column, applies)]


def value_columns(
    rows: Pipe,
    contract: Contract,
    carried: Sequence[str],
    known: Sequence[str] = (),
    encoding: Encoding | None = None,
    hidden: str = "false",
) -> Pipe:
    """From `_row`, a JSON object: `_kind_…` and `_text_…` of each column, its typed value, `_extra`, `_changes`.

    A column is found under the name that the source gives it; in another case where the object lacks that.

    Args:
        rows: Has `_row` and what is carried.
        contract: The source's contract.
        carried: Columns that go on.
        known: Columns of the row that are not the contract's and not extra: the source's own metadata.
        encoding: How values are written; as plain JSON when None.
        hidden: SQL of whether a column `name` is metadata too.
    """
    given = {column.name: escaped(column.given_name) for column in contract.columns}
    names = ", ".join(f"'{name}'" for name in (*given.values(), *map(escaped, known)))
    own = "map(" + ", ".join(f"lower('{name}'), '{name}'" for name in given.values()) + ")"
    lower = f"map_contains_key({own}, lower(name))"
    folded = "transform(map_entries(_recased), entry -> struct(lower(entry.key), entry.value))"
    spelled = "size(array_distinct(transform(map_keys(_recased), name -> lower(name))))"
    is_clear = f"size(_recased) > 0 and {spelled} = size(_recased)"
    # Functions with lambdas are interpreted: only rows that have other fields than the contract's come to them.
    found = " + ".join(f"int(`_value_{name}` is not null)" for name in given)
    values = rows.select(*carried, "try_cast(_row as map<string, variant>) as _fields").select(
        *carried, "_fields",
        *[f"try_element_at(_fields, '{of_source}') as `_value_{name}`" for name, of_source in given.items()],
    ).select(
        "*",
        f"case when size(_fields) > {found} then map_filter(_fields,"
        f" (name, _) -> not (array_contains(array({names}), name) or {hidden})) end as _others",
    ).select(
        "*",
        f"case when exists(map_keys(_others), name -> {lower}) then map_filter(_others, (name, _) -> {lower}"
        f" and not map_contains_key(_fields, {own}[lower(name)])) end as _recased",
    ).select("*", f"case when {is_clear} then map_from_entries({folded}) end as _folded")  # fmt: skip
    others = "case when size(_recased) > 0 then map_filter(_others, (name, _) -> not map_contains_key(_recased, name))"
    others += " else _others end"
    kinds = values.select(
        *carried, "_others", "_recased", "_folded",
        f"case when size(_others) > coalesce(size(_recased), 0) then to_json({others}) end as _extra",
        *[
            f"coalesce(`_value_{name}`, try_element_at(_folded, lower('{of_source}'))) as `_value_{name}`"
            for name, of_source in given.items()
        ],
    ).select("*", *[f"schema_of_variant(`_value_{name}`) as `_kind_{name}`" for name in given])  # fmt: skip
    texts = kinds.select("*", *[f"{_text(c, encoding)} as `_text_{c.name}`" for c in contract.columns])
    return texts.select("*", *[f"{_typed(c, encoding)} as `{c.name}`" for c in contract.columns])


def member(record: str, given_name: str) -> str:
    """SQL of a JSON object's value under a name of the source. A path of a variant takes no quotes in a name."""
    name = escaped(given_name)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return f"try_variant_get({record}, '$.{name}', 'variant')"
    return f"try_element_at(try_cast({record} as map<string, variant>), '{name}')"


def _text(column: Column, encoding: Encoding | None) -> str:
    value, kind = f"`_value_{column.name}`", f"`_kind_{column.name}`"
    return encoding.text(column, value, kind) if encoding else plain_text(column, value, kind)


def _typed(column: Column, encoding: Encoding | None) -> str:
    value, kind, text = (f"`{what}_{column.name}`" for what in ("_value", "_kind", "_text"))
    return (encoding.value if encoding else from_variant)(column, value, kind, text)


def changes(contract: Contract, has_nul: str, others: Mapping[str, str] | None = None, is_json: bool = True) -> str:
    """SQL of `_changes`: the names of what was changed to take the row.

    Args:
        contract: The source's contract.
        has_nul: SQL of whether the record has NUL characters.
        others: What its format may change besides: names with conditions in SQL.
        is_json: Values have a `_kind_…`; otherwise each is a text.
    """
    found = [(NUL, has_nul), *(others or {}).items()]
    for column in contract.columns:
        is_text = f"`_kind_{column.name}` = 'STRING'" if is_json else "true"
        found += normalised(column, f"`_text_{column.name}`", f"`{column.name}`", is_text)
    return f"{names_of(found, 'cast(array() as array<string>)')} as _changes"


def names_of(conditions: Sequence[tuple[str, str]], without: str) -> str:
    """SQL of an array of those names whose condition holds; of `without` where none does, as in most rows."""
    names = ", ".join(f"case when {condition} then '{name}' end" for name, condition in conditions)
    is_any = " or ".join(f"({condition})" for _, condition in conditions)
    return f"case when {is_any} then array_compact(array({names})) else {without} end"


def unknown_version(contract: Contract) -> str:
    """SQL of the record's layout version where the contract does not know it, NULL where it does."""
    if contract.schema_version is None:
        return "cast(null as string) as _unknown_version"
    found = f"try_variant_get(_event, '$.{contract.schema_version.field}', 'string')"
    known = ", ".join(f"'{version}'" for version in contract.schema_version.known)
    return f"case when {found} not in ({known}) then {found} end as _unknown_version"


def finish(
    typed: Pipe, contract: Contract, checks: list[Check], *, ignored: str, op: str, lsn: str = "null",
    position: str = "null", at: str = "null", transaction: str = "null", unsent: str = "null", extra: str = "_extra",
    origin: str = "null",
) -> Pipe:  # fmt: skip
    """The verdict, and the columns in their order. The arguments are the SQL of METADATA's columns.

    Args:
        typed: Has `_raw`, `_file`, `_line`, `_changes`, `_unknown_version` and the contract's columns.
        contract: The source's contract.
        checks: What rejects a row, in the order in which it is told.
        ignored: Condition of lines that are no record: blank ones, headers, tombstones.
        origin: The schema, or database, whose table the record is of.
    """
    verdict = f"case when {ignored} or _unknown_version is not null then null else {first_of(checks)} end"
    return typed.select("*", f"{verdict} as _verdict").select(
        f"case when {ignored} then 'ignored' when _unknown_version is not null then 'unknown' when _verdict is null"
        " then 'event' else 'rejected' end as _kind",
        f"case when _unknown_version is not null then '{Kind.LAYOUT}' else _verdict.kind end as _reason_kind",
        "coalesce(_verdict.reason, 'unknown layout version ' || _unknown_version) as _reason",
        "_verdict.column as _column",
        "_unknown_version",
        "case when _verdict is null then _changes end as _changes",
        "_raw",
        f"cast({origin} as string) as _origin",
        *[f"`{column.name}`" for column in contract.columns],
        f"{op} as _op",
        "1 as _source_generation",
        f"cast({lsn} as bigint) as _source_lsn",
        f"cast({position} as bigint) as _source_position",
        f"cast({at} as timestamp) as _source_ts",
        f"cast({transaction} as bigint) as _source_tx",
        f"cast({unsent} as array<string>) as _unsent",
        f"{extra} as _extra",
        "_file",
        "_line",
    )
