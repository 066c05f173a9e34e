"""What is made from contracts, on the recorded records: JSON Schema, Avro, dbt's sources; and drafts from samples."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import pyarrow.parquet as pq
import pytest
import yaml
from jsonschema import Draft202012Validator

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.contracts import Column, Contract, export, infer, load, parse, sources
from python_ops.lake.contracts.compatibility import widens
from python_ops.lake.errors import ConfigError, ContractError

LANDING = PROJECT_ROOT / "seeds" / "landing"
RECORDED = sorted(path.name for path in LANDING.iterdir() if path.is_dir())
FIRST = 1000
"""Records of each file that are looked at; the first file of a source is its snapshot."""


def records(source: str) -> Iterator[dict[str, Any]]:
    for path in sorted((LANDING / source).iterdir()):
        if path.suffix == ".gz":
            lines = gzip.decompress(path.read_bytes()).decode().split("\n")
            yield from (json.loads(line) for line in lines[:FIRST] if line)
        elif path.suffix == ".parquet":
            yield from pq.read_table(path).to_pylist()
        elif path.suffix == ".jsonl":
            yield from map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])
        else:
            with path.open(newline="") as file:
                yield from csv.DictReader(file)


def rows(contract: Contract) -> Iterator[dict[str, Any]]:
    """Typed rows, as bronze has them, made without Spark; unsent values are left out."""
    for record in records(contract.source):
        row = (record["value"] or {}).get("after") if contract.format == "debezium_json" else record
        if row and export.UNAVAILABLE not in row.values():
            yield {column.name: typed(column, row.get(column.name)) for column in contract.columns}


def typed(column: Column, value: Any) -> Any:
    if value is None or (value == "" and not column.required):  # how csv writes it
        return None
    if column.precision_and_scale:
        return Decimal(value)
    if column.type == "timestamp":
        return value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if column.type in ("int", "bigint"):
        return int(value)
    if column.type == "date":
        return date(1970, 1, 1) + timedelta(days=value) if isinstance(value, int) else date.fromisoformat(value)
    return value


@pytest.mark.parametrize("source", sources())
def test_every_schema_is_one_that_its_readers_take(source: str) -> None:
    contract = load(source)
    Draft202012Validator.check_schema(export.json_schema(contract))
    parsed = fastavro.parse_schema(export.avro_schema(contract))
    assert [field["name"] for field in parsed["fields"]] == [column.name for column in contract.columns]  # type: ignore[index, call-overload]


@pytest.mark.parametrize("source", [source for source in RECORDED if load(source).format != "parquet"])
def test_every_recorded_record_meets_its_json_schema(source: str) -> None:
    validator = Draft202012Validator(export.json_schema(load(source)))
    faults = [
        (record, [fault.message for fault in validator.iter_errors(record)])
        for record in records(source)
        if not validator.is_valid(record)
    ]
    assert faults == []


@pytest.mark.parametrize("source", RECORDED)
def test_every_recorded_row_is_the_same_after_avro(source: str) -> None:
    schema = fastavro.parse_schema(export.avro_schema(load(source)))
    given = list(rows(load(source)))
    file = io.BytesIO()
    fastavro.writer(file, schema, given, validator=True)
    file.seek(0)
    assert given and list(fastavro.reader(file, schema)) == given


def spoilt(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """A recorded update of an order, changed."""
    found = next(r for r in records("shop_orders") if r["value"] and r["value"]["op"] == "u")
    record = copy.deepcopy(found)
    change(record)
    return record


def after(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda record: record["value"]["after"].update({name: value})


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        (lambda record: None, True),
        (lambda record: record["value"]["after"].update(new_column=1), True),
        (lambda record: record.update(value=None), True),  # a tombstone
        (lambda record: record["value"].update(op="d", after=None), True),
        (after("total_amount", export.UNAVAILABLE), True),
        (after("total_amount", "0000000000012.5"), True),
        (lambda record: record.update(value=None, key=None), False),
        (lambda record: record["value"].update(op="d", after=None) or record.update(key=None), False),
        (lambda record: record["value"].update(op="x"), False),
        (lambda record: record["value"].update(after=None), False),
        (lambda record: record["value"]["source"].update(table="others"), False),
        (lambda record: record["value"]["source"].pop("lsn"), False),
        (lambda record: record["value"]["after"].pop("status"), False),
        (after("status", None), False),
        (after("order_id", "17"), False),
        (after("order_id", 2**63), False),
        (after("order_id", export.UNAVAILABLE), False),
        (after("total_amount", 12.5), False),
        (after("total_amount", "1e3"), False),
        (after("total_amount", "1.234"), False),
        (after("total_amount", "1234"), False),
        (after("total_amount", "12345"), True),
        (after("total_amount", "12345678901.00"), False),
        (after("ordered_at", "2025-01-01T00:00:00"), False),
        (after("currency", 5), False),
    ],
)
def test_the_json_schema_of_a_change_refuses_what_ingestion_rejects(
    change: Callable[[dict[str, Any]], Any], valid: bool
) -> None:
    assert Draft202012Validator(export.json_schema(load("shop_orders"))).is_valid(spoilt(change)) is valid


@pytest.mark.parametrize(
    ("row", "valid"),
    [
        ({"rate_date": "2025-01-02", "currency": "USD", "units_per_eur": "1.03"}, True),
        ({"rate_date": "", "currency": "USD", "units_per_eur": "1.03"}, False),
        ({"rate_date": "02.01.2025", "currency": "USD", "units_per_eur": "1.03"}, False),
        ({"rate_date": "2025-01-02", "currency": "USD", "units_per_eur": "1,03"}, False),
        ({"rate_date": "2025-01-02", "currency": "USD"}, False),
    ],
)
def test_the_json_schema_of_a_csv_is_about_its_texts(row: dict[str, str], valid: bool) -> None:
    assert Draft202012Validator(export.json_schema(load("fx_rates"))).is_valid(row) is valid


def test_dbts_sources_say_what_the_contracts_say() -> None:
    (bronze,) = yaml.safe_load(export.dbt_sources())["sources"]
    contacts = next(table for table in bronze["tables"] if table["name"] == "crm_contacts")
    columns = {column["name"]: column for column in contacts["columns"]}

    assert [table["name"] for table in bronze["tables"]] == list(sources())
    assert contacts["config"]["meta"] == {
        "owner": "data-platform", "contract_version": load("crm_contacts").version, "key": ["contact_id"],
        "lf_tags": {"domain": "crm"},
    }  # fmt: skip
    assert columns["email"]["config"]["meta"] == {
        "required": True, "pii": True, "lf_tags": {"sensitivity": "personal"},
    }  # fmt: skip
    for contract in map(load, sources()):
        table = next(table for table in bronze["tables"] if table["name"] == contract.source)
        listed = {column["name"]: (column["data_type"], column["description"]) for column in table["columns"]}
        assert {c.name: (c.type, c.description) for c in contract.columns}.items() <= listed.items()
        assert {"_op", "_batch_id"} <= listed.keys()


def test_hostile_words_stay_words_in_dbts_sources() -> None:
    texts = ["yes", "12", "a: b", "# no comment", 'it\'s "quoted"', "- item", "ends: ", "a, b", "Größe", "null"]
    columns = tuple(Column(f"c{i}", "string", text) for i, text in enumerate(texts))
    contract = Contract("a_b", "1.0.0", "x: y", "[me], you", "jsonl", ("c0",), columns, lf_tags={"a": "1.0", "b": "no"})
    (table,) = yaml.safe_load(export.dbt_sources_of([contract], []))["sources"][0]["tables"]
    assert [column["description"] for column in table["columns"]] == texts
    assert (table["description"], table["config"]["meta"]["owner"]) == ("x: y", "[me], you")
    assert table["config"]["meta"]["lf_tags"] == {"a": "1.0", "b": "no"}


def test_a_description_with_jinja_is_refused_because_dbt_would_run_it() -> None:
    text = (PROJECT_ROOT / "python_ops/lake/contracts/fx_rates.yml").read_text()
    with pytest.raises(ContractError, match="at columns/1/description"):
        parse(text.replace("ISO 4217 code.", "\"{{ env_var('HOME') }}\""), Path("fx_rates.yml"))


@pytest.mark.parametrize("source", RECORDED)
def test_a_draft_from_the_recording_says_what_the_contract_says(source: str) -> None:
    contract, drafted = load(source), infer.draft(sorted((LANDING / source).iterdir())[0], source).data

    assert (drafted["format"], drafted.get("table"), drafted["key"]) == (
        contract.format, contract.table, list(contract.key),
    )  # fmt: skip
    found = {column["name"]: column for column in drafted["columns"]}
    for column in (contract.column(name) for name in found):
        guess = Column(column.name, found[column.name]["type"], "")
        same = guess.type == column.type or widens(column, guess) or bool(guess.precision_and_scale)
        # Days since 1970 are integers to whoever does not know the contract.
        assert same or (column.type, guess.type) == ("date", "bigint"), (column, guess)
        assert found[column.name].get("required") or not column.required
    if source == "crm_contacts":
        assert {name for name, column in found.items() if column.get("pii")} == {
            "email", "phone", "first_name", "last_name",
        }  # fmt: skip


def finished(text: str) -> str:
    """What a person does with a draft, at the least."""
    return text.replace('description: ""', "description: As the partner says.").replace('owner: ""', "owner: shop")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "avro"])
def test_a_draft_is_refused_until_it_is_finished_and_then_takes_its_sample(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"sample.{kind}"
    with duckdb.connect() as lake:
        made = lake.sql(
            "select 'P' || i as partner_id, i::bigint as visits, (i * 1.25)::decimal(12,2) as fee, i % 2 = 0 as active,"
            " date '2025-01-01' + i::integer as since, if(i = 3, null, 'x@y.z') as email,"
            " timestamptz '2025-01-01 00:00:00+00' as seen_at from range(1, 6) as numbers(i)"
        )
        if kind == "parquet":
            made.write_parquet(str(path))
        data = [dict(zip(made.columns, row, strict=True)) for row in made.fetchall()]
    if kind == "avro":
        schema = {"type": "record", "name": "p", "fields": [
            {"name": "partner_id", "type": "string"}, {"name": "visits", "type": "long"},
            {"name": "fee", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
            {"name": "active", "type": "boolean"}, {"name": "since", "type": {"type": "int", "logicalType": "date"}},
            {"name": "email", "type": ["null", "string"]},
            {"name": "seen_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        ]}  # fmt: skip
        with path.open("wb") as file:
            fastavro.writer(file, fastavro.parse_schema(schema), data)
    elif kind != "parquet":
        texts = [
            {name: _text(value, kind) for name, value in row.items() if kind == "csv" or value is not None}
            for row in data
        ]
        with path.open("w", newline="") as file:
            if kind == "csv":
                writer = csv.DictWriter(file, list(texts[0]))
                writer.writeheader()
                writer.writerows(texts)
            else:
                file.writelines(json.dumps(row) + "\n" for row in texts)

    draft = infer.draft(path, "erp_partners")
    with pytest.raises(ContractError, match="at description"):
        parse(draft.text, Path("erp_partners.yml"))
    contract = parse(finished(draft.text), Path("erp_partners.yml"))

    assert (contract.format, contract.key) == (kind, ("partner_id",))
    assert [column.type.split("(")[0] for column in contract.columns] == [
        "string", "bigint", "decimal", "boolean", "date", "string", "timestamp",
    ]  # fmt: skip
    assert [column.name for column in contract.columns if not column.required] == ["email"]
    assert [column.name for column in contract.columns if column.pii] == ["email"]
    if kind in ("csv", "jsonl"):
        validator = Draft202012Validator(export.json_schema(contract))
        assert all(validator.is_valid(row) for row in texts)
    fastavro.writer(io.BytesIO(), fastavro.parse_schema(export.avro_schema(contract)), data, validator=True)


def test_a_draft_has_what_a_contract_can_name_and_hold(tmp_path: Path) -> None:
    """Upper case, nested values, times without a zone, and decimals of digits alone, as ingestion takes them."""
    parquet = tmp_path / "orders.parquet"
    with duckdb.connect() as lake:
        lake.sql("select 1 as \"ID\", [1] as items, {'a': 1} as more, timestamp '2025-01-01' as at").write_parquet(
            str(parquet)
        )
    contract = parse(finished(infer.draft(parquet, "orders").text), Path("orders.yml"))
    assert [(c.name, c.type, c.accepts) for c in contract.columns] == [
        ("id", "int", ()), ("at", "timestamp", ("no_zone",)),
    ]  # fmt: skip
    assert "which ingestion keeps in _extra: items, more." in infer.draft(parquet, "orders").text
    source = {"table": "orders", "schema": "public", "lsn": 1, "ts_us": 1}
    event = {"key": {"ID": 1}, "value": {"op": "c", "source": source, "after": {"ID": 1, "FEE": "1000", "TAX": "1.5"}}}
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(event) for _ in range(2)).replace("1000", "1.25", 1))
    contract = parse(finished(infer.draft(tmp_path / "a.jsonl", "orders").text), Path("orders.yml"))
    assert (contract.key, contract.schema) == (("id",), "public")
    assert [c.accepts for c in contract.columns] == [(), ("no_point",), ()]


def test_a_draft_from_a_file_of_dms_has_the_columns_of_the_table_alone(tmp_path: Path) -> None:
    header = "Op,DMS_AT,ID,NAME,AMOUNT,AT,BI_ID,BI_NAME"
    at = "2025-03-04 05:59:59.000001"
    rows = [f'I,{at},1,"Ann, x",1.50,2025-03-03 06:00:00,NULL,NULL', f"D,{at},3,NULL,NULL,NULL,3,x",
            f"U,{at},2,NULL,2.25,2025-03-03 06:00:00.123,2,Bob"]  # fmt: skip
    path = tmp_path / "20250304-060000123.csv"
    path.write_text("\n".join((header, *rows)))
    contract = parse(finished(infer.draft(path, "things").text), Path("things.yml"))
    assert (contract.format, contract.timestamp_column, contract.before_image_prefix) == ("dms", "DMS_AT", "BI_")
    assert contract.key == ("id",)
    assert [(c.name, c.type, c.required, c.accepts) for c in contract.columns] == [
        ("id", "bigint", True, ()), ("name", "string", False, ()), ("amount", "decimal(12,2)", True, ()),
        ("at", "timestamp", True, ()),
    ]  # fmt: skip
    with duckdb.connect() as lake:
        made = lake.sql("select 1::bigint as id, 'Ann' as name, timestamp '2025-03-03 06:00:00' as at")
        made.write_parquet(str(tmp_path / "LOAD00000001.parquet"))
    contract = parse(finished(infer.draft(tmp_path / "LOAD00000001.parquet", "things").text), Path("things.yml"))
    assert (contract.format, contract.timestamp_column, contract.before_image_prefix) == ("dms", None, None)
    assert [(c.name, c.type) for c in contract.columns] == [("id", "bigint"), ("name", "string"), ("at", "timestamp")]
    (tmp_path / "LOAD00000002.csv").write_text("1,Ann\n2,Bob\n")
    with pytest.raises(ConfigError, match="no header; give a file of a task with AddColumnName"):
        infer.draft(tmp_path / "LOAD00000002.csv", "things")


def test_a_draft_leaves_out_what_no_type_takes_and_says_how_numbers_are_written(tmp_path: Path) -> None:
    """Each was drafted as a type that ingestion refuses the sample for."""
    long = "0." + "1" * 40
    lines = [f'{{"id": 1, "mixed": 1, "rate": 1e3, "big": 9223372036854775808, "day": "2025-02-30", "long": {long}}}',
             '{"id": 2, "mixed": "one", "rate": 0.5, "big": 1, "day": "2025-02-28", "long": 1}']  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    drafted = infer.draft(tmp_path / "a.jsonl", "a_b")
    found = {column["name"]: (column["type"], column.get("accepts")) for column in drafted.data["columns"]}
    assert found == {
        "id": ("bigint", None), "rate": ("decimal(11,1)", ["exponent"]), "big": ("decimal(19,0)", None),
        "day": ("string", None),
    }  # fmt: skip
    assert "ingestion keeps in _extra: mixed, long." in drafted.text
    source = {"table": "orders", "schema": "public", "lsn": 1, "ts_us": 1}
    event = {"key": {"id": 1}, "value": {"op": "c", "source": source, "after": {"id": 1, "share": 0.5}}}
    (tmp_path / "b.jsonl").write_text(json.dumps(event))
    assert "ingestion keeps in _extra: share." in infer.draft(tmp_path / "b.jsonl", "a_b").text
    duckdb.sql("select 1 as id, time '10:00:00' as at").write_parquet(str(tmp_path / "c.parquet"))
    with pytest.raises(ConfigError, match="at is TIME; write times as texts"):
        infer.draft(tmp_path / "c.parquet", "a_b")


def _text(value: Any, kind: str) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date | Decimal):
        return str(value)
    if kind == "csv":
        return "" if value is None else str(value)
    return value


@pytest.mark.parametrize(
    "content",
    [
        b"a;b\n1;x,y\n", b"a\tb\r\n1\tx,y\r\n", b'a|b\r1|"x,y"\r', 'a,b\n1,"x,y"\n'.encode("utf-16"),
        b"\xfe\xff" + "a;b\r1;x,y\r".encode("utf-16-be"),
    ],
)  # fmt: skip
def test_a_csv_sample_is_read_as_it_is_written(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "sample").write_bytes(content)
    columns = infer.draft(tmp_path / "sample", "a_b").data["columns"]
    assert [(column["name"], column["type"]) for column in columns] == [("a", "bigint"), ("b", "string")]


def test_a_sample_with_nanoseconds_drafts_that_they_are_cut(tmp_path: Path) -> None:
    columns = "1 as id, timestamp_ns '2025-03-03 06:00:00.000000001' as at"
    duckdb.sql(f"select {columns}").write_parquet(str(tmp_path / "a.parquet"))
    (at,) = [c for c in infer.draft(tmp_path / "a.parquet", "a_b").data["columns"] if c["name"] == "at"]
    assert (at["type"], at["accepts"]) == ("timestamp", ["epoch_ns", "no_zone"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no record"),
        (b"a,b\n", "holds no record"),
        (b"a,b\n1\n", "line 2 has another number of fields than the header"),
        (b'{"a": 1}\n[2]\n', "a line is not a JSON object"),
        (b'{"a": 1\n', "cannot be read as a sample"),
        (b'[{"a": 1},\n{"a": 2}]\n', "it is a JSON array; ingestion reads one object a line"),
        (b"a, b\n1, 2\n", "its header has blanks around b"),
        (b"a,b\r1,2\n", "it has line ends of two kinds"),
        (b'{"ID": 1, "id": 2}\n', "differ by their case alone"),
        (b'{"a": {"b": 1}}\n', "holds nothing but objects and lists"),
        (b"\xff\xfe\xff", "cannot be read as a sample"),
        (b"\x1f\x8bnothing", "cannot be read as a sample"),
        (b"PAR1nothing", "cannot be read as a sample"),
        (b"Obj\x01nothing", "cannot be read as a sample"),
        (b"\x28\xb5\x2f\xfdnothing", "unpack it with `zstd -d`"),
    ],
)
def test_a_sample_that_says_nothing_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "sample").write_bytes(content)
    with pytest.raises(ConfigError, match=None) as error:
        infer.draft(tmp_path / "sample", "a_b")
    assert told in str(error.value)
