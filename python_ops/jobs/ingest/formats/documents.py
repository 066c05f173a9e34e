"""Documents of MongoDB: Debezium writes them as a text of extended JSON in `after`, and the key as one of `_id`.

Sources: Debezium's page of the MongoDB connector, "Data change events"; MongoDB's page "Extended JSON", v1 and v2.
"""

from __future__ import annotations

from python_ops.jobs.ingest.formats.values import from_epoch


def document(value: str, key: str) -> str:
    """SQL of a change's row: the document after it, without the wrappings of its values; of a delete its `_id` alone.

    A text that is no JSON, and an update that has no whole document, give NULL.

    Args:
        value: SQL of the event's envelope.
        key: SQL of its key.
    """
    after = f"try_parse_json(try_variant_get({value}, '$.after', 'string'))"
    of_key = f"try_parse_json(concat('{{\"_id\":', try_variant_get({key}, '$.id', 'string'), '}}'))"
    given = f"case when _op = 'd' then {of_key} else {after} end"
    fields = f"try_cast({given} as map<string, variant>)"
    return f"to_variant_object(transform_values({fields}, (name, v) -> {_plain('v')}))"


def _plain(value: str) -> str:
    """SQL of a value that extended JSON wraps, to say its type, as plain JSON has it. Other objects stay."""

    def inside(name: str, kind: str = "string") -> str:
        return f"try_variant_get({value}, '$[\"${name}\"]', '{kind}')"

    # Debezium writes milliseconds; relaxed extended JSON has a text.
    number = (
        f"coalesce({inside('date', 'bigint')}, try_variant_get({value}, '$[\"$date\"][\"$numberLong\"]', 'bigint'))"
    )
    moment = f"date_format({from_epoch(number, 'epoch_ms')}, 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSXXX')"
    of_binary = f"try_variant_get({value}, '$[\"$binary\"].base64', 'string')"
    floating = inside("numberDouble")
    plain = {
        "oid": f"cast({inside('oid')} as variant)",
        "numberLong": f"try_parse_json({inside('numberLong')})",
        "numberInt": f"try_parse_json({inside('numberInt')})",
        # NaN and Infinity are no JSON: as texts they are taken for NULL and counted, as everywhere.
        "numberDouble": f"coalesce(try_parse_json({floating}), cast({floating} as variant))",
        "numberDecimal": f"cast({inside('numberDecimal')} as variant)",
        "date": f"cast(coalesce({moment}, {inside('date')}) as variant)",
        "binary": f"cast(coalesce({of_binary}, {inside('binary')}) as variant)",
        "uuid": f"cast({inside('uuid')} as variant)",
    }
    cases = " ".join(f"when {inside(name, 'variant')} is not null then {sql}" for name, sql in plain.items())
    return f"case {cases} else {value} end"
