"""Landing files, manifests and the lock: what ingestion decides without Spark."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from python_ops.jobs.ingest import generations, inspection, replaced
from python_ops.jobs.ingest.batch import BatchWriter
from python_ops.jobs.ingest.batch_checks import Findings, reasons_to_halt, warnings
from python_ops.jobs.ingest.formats import format_of
from python_ops.jobs.ingest.formats.binary import readable, schema_of
from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.ingest.reasons import reason_of
from python_ops.jobs.ingest.snapshots import Delivery, deliveries
from python_ops.lake import landing
from python_ops.lake.config import Settings
from python_ops.lake.contracts import Column, Contract, Contracts, load
from python_ops.lake.errors import BusyError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.landing import LandingFile
from python_ops.lake.ledger import BatchState, Ledger
from python_ops.lake.lock import exclusive
from python_ops.run import daily


def test_files_are_taken_in_name_order_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", ".hidden", "_started", "c.jsonl.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()

    assert landing.names(tmp_path) == ["a.jsonl.gz", "b.jsonl"]
    assert landing.left_outside(tmp_path) == []
    assert landing.names(tmp_path / "missing") == []


def zipped(content: bytes) -> bytes:
    """A zip archive of one file."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a", content)
    return whole.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("whole.jsonl.gz", gzip.compress(b"{}\n"), None),
        ("members.jsonl.gz", gzip.compress(b"{}\n") + gzip.compress(b"{}\n"), None),
        ("cut.jsonl.gz", gzip.compress(b"{}\n" * 1000)[:-9], "truncated gzip"),
        ("plain.jsonl.gz", b"{}\n", "not a gzip stream"),
        ("empty.jsonl.gz", b"", None),
        ("empty.jsonl", b"", None),
        ("whole.jsonl.zst", pyarrow.compress(b"{}\n", "zstd", asbytes=True), None),
        ("frames.jsonl.zst", pyarrow.compress(b"{}\n", "zstd", asbytes=True) * 2, None),
        ("cut.jsonl.zst", pyarrow.compress(bytes(range(256)) * 999, "zstd", asbytes=True)[:-9], "truncated zstd"),
        ("plain.jsonl.zst", b"{}\n", "not a zstd stream"),
        ("bomb.jsonl.gz", gzip.compress(b" " * (70 << 20)), "inflates to more than 200 times its size"),
        ("other.jsonl.bz2", bz2.compress(b"{}\n"), "compressed as .bz2; deliver .gz or .zst"),
        ("CUT.JSONL.GZ", gzip.compress(b"{}\n" * 1000)[:-9], "truncated gzip"),
        ("cut.jsonl", '{"a": 1}'.encode("utf-16")[:-1], "not valid UTF-16LE"),
        ("surrogate.jsonl", b"\xff\xfe\x00\xd8{\x00", "not valid UTF-16LE"),
        ("likeness.jsonl", '{"a": "\u0a15\u0100"}'.encode("utf-16"), "UTF-16 in which two characters look like"),
        ("four.jsonl", '{"a": 1}'.encode("utf-32"), "UTF-32; deliver UTF-8"),
        ("unnamed.jsonl", gzip.compress(b"{}\n"), "compressed as gzip, which its name does not say; deliver it as .gz"),
        ("twice.jsonl.gz", gzip.compress(gzip.compress(b"{}\n")), "compressed as gzip, which"),
        ("unnamed_zstd", pyarrow.compress(b"{}\n", "zstd", asbytes=True), "compressed as zstd, which"),
        ("unnamed_bz2", bz2.compress(b"{}\n"), "compressed as bzip2, which is not read; deliver .gz or .zst"),
        ("a.jsonl.xz", lzma.compress(b"{}\n"), "compressed as xz, which is not read"),
        ("a.jsonl.lz4", pyarrow.compress(b"{}\n", "lz4", asbytes=True), "compressed as .lz4; deliver .gz or .zst"),
        ("unnamed_lz4", pyarrow.compress(b"{}\n", "lz4", asbytes=True), "compressed as lz4, which"),
        ("a.zip", zipped(b"{}\n"), "compressed as zip, which is not read; deliver .gz or .zst"),
        ("a.jsonl.sz", b"\xff\x06\x00\x00sNaPpY\x01\x07\x00\x00", "compressed as snappy, which is not read"),
        ("mixed.jsonl", b'{"a": 1}\r' + b" " * (1 << 20) + b'\r\n{"a": 2}\n', "line ends of two kinds"),
        ("bom.jsonl", '{"a": 1}'.encode("utf-8-sig"), None),
        ("rows.jsonl", b"PAR1\x00\x00", "not a debezium_json file, but parquet"),
    ],
)
def test_a_file_that_is_not_whole_is_seen(tmp_path: Path, name: str, content: bytes, fault: str | None) -> None:
    (tmp_path / name).write_bytes(content)

    found = inspect(tmp_path, name, load("crm_accounts"))

    assert found.bytes == len(content)
    assert (found.fault or "").startswith(fault or "") and (found.fault is None) == (fault is None)


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match=r"gone\.jsonl vanished while it was read"):
        inspect(tmp_path, "gone.jsonl", load("crm_accounts"))


def test_dated_folders_are_taken_and_what_is_left_outside_is_told(tmp_path: Path) -> None:
    """Folders of DMS (DatePartitionEnabled) in each of its writings; other folders, links, names that are no text."""
    outside = tmp_path / "secret"
    outside.write_text("account_id,password\n")
    folder = tmp_path / "landing"
    dated = ["2025/03/04/a.csv", "20250304/b.csv", "2025-03-04/c.csv", "2025030423/d.csv", "2025/03/_e/f.csv"]
    for name in (*dated, "more/g.csv", "h.csv", "a\udcff.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "link.csv").symlink_to(outside)
    (folder / "2025" / "linked").symlink_to(tmp_path)

    assert landing.names(folder) == ["h.csv"]
    assert any(f"{folder}/20250304 is not taken" in text for text in landing.left_outside(folder, load("fx_rates")))
    assert landing.names(folder, dms_contract()) == sorted([*dated[:4], "h.csv"])
    told = landing.left_outside(folder, dms_contract())
    assert len(told) == 4 and not any("password" in text for text in told)
    for name, why in (("2025/linked", "a link"), (r"a\udcff.csv", "not UTF-8. Rename"), ("link.csv", "a link"),
                      ("more", "Move its files up")):  # fmt: skip
        assert any(f"{folder}/{name} is not taken" in text and why in text for text in told), name
    with pytest.raises(OpsError, match="links are not followed"):
        inspect(folder, "link.csv", load("fx_rates"))


@pytest.mark.parametrize(
    ("format_", "content", "fault"),
    [
        ("csv", b"rate_date,currency,units_per_eur\r2025-03-03,USD,1.04\n", "line ends of two kinds"),
        ("csv", b'"rate_date"; "currency" ;units_per_eur\r\n', None),
        ("csv", b"rate_date;currency\n", "header has rate_date, currency; the contract wants"),
        ("csv", b"rate_date, currency,units_per_eur\n", None),
        ("csv", b"rate_date, currency\n", "header has rate_date, currency; the contract wants"),
        ("csv", b"2025-03-03,secret@x.example,1.04\n", "header has none of the contract's columns and 3 other fields;"),
        ("csv", b"rate_date,RATE_DATE,currency,units_per_eur\n", None),
        ("csv", b"RATE_DATE,Rate_Date,currency,units_per_eur\n", "header has rate_date, rate_date, currency,"),
        ("csv", b"RATE_DATE,Currency,UNITS_PER_EUR\n", None),
        ("csv", b'rate_date,"x' + b"y" * (17 << 20) + b'",currency,units_per_eur\n', "the first line is longer than"),
        ("jsonl", b'[{"id": 1},\n{"id": 2}]\n', "a JSON array; deliver one object a line"),
        ("jsonl", b"\xef\xbb\xbf [\n  {\n", "a JSON array; deliver one object a line"),
        ("jsonl", b"[1, 2]\n", None),
        ("jsonl", b'{\n  "rows": [\n    {"id": 1},\n    {"id": 2}\n  ]\n}\n', "a JSON value over several lines"),
        ("jsonl", b'\xef\xbb\xbf{\r\n  "id": 1\r\n}\r\n', "a JSON value over several lines"),
        ("jsonl", b'{\r  "id": 1\r}\r', "a JSON value over several lines"),
        ("jsonl", b'{"rows": [\n' + b'{"id": 1},\n' * 9999 + b'{"id": 2}]}\n', "a JSON value over several lines"),
        ("jsonl", b'{"id": 1,\n{"id": 2}\n', None),
        ("jsonl", b'{"id": 1\n', None),
        ("jsonl", b'{"text": "' + b"x" * 99_999 + b'"}\n{"id": 2}\n', None),
        ("jsonl", b"\n\n" + b'{"id": 1}\n' * 9999, None),
    ],
)
def test_a_file_whose_first_line_is_no_header_or_record_is_rejected(
    tmp_path: Path, format_: str, content: bytes, fault: str | None
) -> None:
    (tmp_path / "a").write_bytes(content)

    found = inspect(tmp_path, "a", replace(load("fx_rates"), format=format_))

    assert (found.fault or "").startswith(fault or "") and (found.fault is None) == (fault is None), found.fault
    assert "secret" not in (found.fault or "")
    if format_ == "csv" and fault is None:
        assert {"rate_date", "currency", "units_per_eur"} <= set(found.layout)


@pytest.mark.parametrize("error", [RecursionError("too deep"), ValueError("\0"), MemoryError(), KeyError("x")])
def test_whatever_a_parser_raises_rejects_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Given bytes that nobody foresaw, Then the file is named and rejected, and only the machine's errors stop."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and so on")

    def parse(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(inspection, "schema_of", parse)
    found = inspect(tmp_path, "a.parquet", replace(load("fx_rates"), format="parquet"))
    assert (found.fault or "").startswith(f"cannot be read ({type(error).__name__}")
    assert (found.name, found.bytes) == ("a.parquet", 14)
    error = PermissionError(13, "Permission denied")
    with pytest.raises(OpsError, match="Permission denied"):
        inspect(tmp_path, "a.parquet", replace(load("fx_rates"), format="parquet"))


def test_parquet_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    """INT96 is what Spark, Hive and Impala write by default: Arrow shows it as nanoseconds, and it is taken. A column
    that the contract lacks is left out.
    """
    lacking = replace(load("fx_rates"), format="parquet")
    names = ("opens", "half", "wide", "in", "fine")
    contract = replace(lacking, columns=tuple(Column(name, "string", "Any.") for name in names))
    at = pyarrow.array([1], pyarrow.timestamp("ns"))
    parquet.write_table(pyarrow.table({"at": at}), tmp_path / "int96", use_deprecated_int96_timestamps=True)
    columns = {
        "at": at,
        "opens": pyarrow.array([1], pyarrow.time64("us")),
        "half": pyarrow.array([1.5], pyarrow.float16()),
        "wide": pyarrow.array([1], pyarrow.decimal256(50, 2)),
        "in": pyarrow.array([{"opens": 1}], pyarrow.struct({"opens": pyarrow.time32("ms")})),
        "fine": pyarrow.array([1], pyarrow.decimal128(38, 2)),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "others")

    assert inspect(tmp_path, "int96", contract).fault is None
    fault = str(inspect(tmp_path, "others", contract).fault)
    assert fault.startswith("columns of a type that is not read: opens (TIME;") and "at (" not in fault
    for told in ("opens (TIME;", "half (FLOAT16;", "wide (a decimal of 50 digits;", "in.opens (TIME;"):
        assert told in fault
    assert "fine" not in fault
    left = inspect(tmp_path, "others", lacking)
    assert (left.fault, left.left_out) == (None, ("opens", "half", "wide", "in"))


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (
            '{"type": "record", "name": "n", "fields": [{"name": "up", "type": ["null", "n"]}]}',
            "the type n holds itself",
        ),
        (
            '{"type": "record", "name": "a.n", "fields": [{"name": "up", "type": {"type": "map", "values": {"type":'
            ' "record", "name": "m", "fields": [{"name": "of", "type": {"type": "array", "items": "n"}}]}}}]}',
            "the type a.n holds itself",
        ),
        (
            '{"type": "record", "name": "n", "fields": [{"name": "a", "type": {"type": "enum", "name": "e", "symbols":'
            ' ["X"]}}, {"name": "b", "type": "e"}, {"name": "c", "type": {"type": "int", "logicalType": "date"}}]}',
            None,
        ),
        ('{"type": "record", "name": "n"}', "not an avro file (KeyError in its header)"),
        ("[1]", "not an avro file (TypeError in its header)"),
    ],
)
def test_a_recursive_avro_schema_is_named(tmp_path: Path, schema: str, fault: str | None) -> None:
    (tmp_path / "a").write_bytes(avro_file("null", b"x", schema.encode()))

    found = inspect(tmp_path, "a", replace(load("fx_rates"), format="avro")).fault

    assert (found is None) if fault is None else str(found).startswith(fault)


def test_nanoseconds_are_read_where_the_contract_accepts_them_or_lacks_the_column(tmp_path: Path) -> None:
    at = pyarrow.array([1], pyarrow.timestamp("ns"))
    parquet.write_table(pyarrow.table({"AT": at}), tmp_path / "no_zone")
    parquet.write_table(pyarrow.table({"AT": at}), tmp_path / "int96", use_deprecated_int96_timestamps=True)
    parquet.write_table(pyarrow.table({"AT": at.cast(pyarrow.timestamp("ns", "UTC"))}), tmp_path / "utc")

    def look(name: str, *accepts: str, column: str = "at") -> LandingFile:
        columns = (Column(column, "timestamp", "Time.", accepts=accepts),)
        return inspect(tmp_path, name, replace(load("fx_rates"), format="parquet", columns=columns))

    told = "columns of a type that is not read: AT (timestamps in nanoseconds; write microseconds, or accept "
    assert look("utc").fault == look("no_zone", "no_zone").fault == f"{told}`epoch_ns`)"
    assert look("no_zone").fault == f"{told}`epoch_ns` and `no_zone`)"
    assert look("utc", "epoch_ns").fault is look("no_zone", "epoch_ns", "no_zone").fault is None
    assert look("no_zone", column="id").fault is None
    assert look("int96").schema != look("no_zone").schema, "Spark does not read the two together"


HEADER = "rate_date,currency,units_per_eur"


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (HEADER + "\n", "utf-8", (",", "\n", "UTF-8", False)),
        (HEADER + "\r\n", "utf-8-sig", (",", "\n", "UTF-8", False)),
        (HEADER.replace(",", ";") + "\n", "utf-8", (";", "\n", "UTF-8", False)),
        ('"' + HEADER.upper().replace(",", '"\t"') + '"\r\n', "utf-16", ("\t", "\n", "UTF-16LE", False)),
        (HEADER.replace(",", "|") + "\r", "utf-16-be", ("|", "\n", "UTF-16BE", False)),
        (HEADER + ",a;b;c\n", "utf-8", (",", "\n", "UTF-8", False)),
        (HEADER + "\r2025-03-03,USD,1\r", "utf-8", (",", "\r", "UTF-8", False)),
        (HEADER + '\r2025-03-03,"a\rb",1\r', "utf-16", (",", "\r", "UTF-16LE", True)),
        (HEADER + "\r", "utf-8", (",", "\n", "UTF-8", False)),
        (HEADER.replace(",", ", ") + "\n", "utf-8", (", ", "\n", "UTF-8", False)),
        (HEADER.replace(",", ' ; "').replace("y ;", 'y" ;') + '"\n', "utf-8", ("; ", "\n", "UTF-8", False)),
        (HEADER.replace("currency", " currency ") + "\n", "utf-8", (",", "\n", "UTF-8", False)),
        (HEADER + " \n", "utf-8", (",", "\n", "UTF-8", False)),
        (" " + HEADER + "\n", "utf-8", (",", "\n", "UTF-8", False)),
        (HEADER.replace("rate_date", ' "rate_date" ') + "\n", "utf-8", (",", "\n", "UTF-8", False)),
    ],
)
def test_how_a_csv_file_is_written_is_seen(
    tmp_path: Path, text: str, encoding: str, found: tuple[str, str, str, bool]
) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))

    file = inspect(tmp_path, "a.csv", load("fx_rates"))

    assert (file.fault, file.layout[:3], file.header) == (None, tuple(HEADER.split(",")), True)
    assert (file.delimiter, file.line_end, file.encoding, file.multiline) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "An error occurred while calling o9.load.\n: org.apache.spark.sql.avro.IncompatibleSchemaException: \n"
            "Found recursive reference in Avro schema:\n{}\n\tSuppressed: org.apache.spark.util."
            "Utils$OriginalTryStackTraceException: Full stacktrace of original doTryWithCallerStacktrace caller",
            "Found recursive reference in Avro schema",
        ),
        ("x.Y: boom\nCaused by: a.B: middle\n at z\nCaused by: java.io.CException: deepest\n at y", "deepest"),
        ("[UNSUPPORTED_TIME_TYPE] No TIME. SQLSTATE: 0A000\n at x", "No TIME."),
        ("[INVALID_EXTRACT] No struct. SQLSTATE: 42000; line 1 pos 35\n at x", "No struct."),
        ("An error occurred while calling o5.load.\n: org.x.SchemaException: Found recursion\n at y\n Suppressed: "
         "org.y.Utils$OriginalTryStackTraceException: Full\n at z\nCaused by: org.y.Utils$OriginalTryStackTrace",
         "Found recursion"),
        ("plain\nmore", "plain"),
        ("[CAST_INVALID_INPUT] The value 'anna@x.example' is bad", "The value '…' is bad"),
        ("", "ValueError"),
    ],
)  # fmt: skip
def test_the_reason_of_an_error_of_spark_is_one_line(text: str, reason: str) -> None:
    assert reason_of(ValueError(text)) == reason


def test_a_header_that_lost_a_column_and_has_another_is_warned_about(tmp_path: Path) -> None:
    """A renamed optional column would be NULL in every row without a word; one that is only missing is legal."""
    contract = dms_contract()
    optional = replace(contract, format="csv", columns=(*contract.columns, Column("note", "string", "A note.")))
    ledger = Ledger(tmp_path, "fx_rates")
    for header, told in (("rate_date,currency,units_per_eur,remark", 1), ("rate_date,currency,units_per_eur", 0)):
        (tmp_path / "a.csv").write_text(header + "\n")
        manifest = ledger.freeze(1, "1.0.0", [inspect(tmp_path, "a.csv", optional)])
        found = [text for text in warnings(optional, ledger, manifest, Findings({})) if "renamed?" in text]
        assert len(found) == told and all("a.csv has no note, NULL in its rows" in text for text in found)


@pytest.mark.parametrize(
    ("taken", "new", "told"),
    [
        ("export_8.csv export_9.csv", "export_10.csv", "export_10.csv comes before export_9.csv"),
        ("", "export_10.csv export_9.csv", "export_10.csv comes before export_9.csv"),
        ("export_10.csv", "export_2.csv", "export_10.csv comes before export_2.csv"),
        ("export_9.csv export_10.csv", "export_11.csv", None),
        ("export_09.csv", "export_10.csv", None),
        ("2025-03-01.csv", "2025-03-02.csv", None),
        ("9b.csv", "10c.csv", None),
    ],
)
def test_file_names_whose_texts_are_in_another_order_than_their_numbers_are_told(
    tmp_path: Path, taken: str, new: str, told: str | None
) -> None:
    ledger = Ledger(tmp_path, "fx_rates")
    ledger.set_state(ledger.freeze(1, "1", [LandingFile(name, 1, "") for name in taken.split()]), BatchState.COMMITTED)
    manifest = ledger.freeze(2, "1", [LandingFile(name, 1, "") for name in new.split()])
    found = warnings(load("fx_rates"), ledger, manifest, Findings({}))
    assert (told in found[0]) if told else found == []
    assert warnings(load("shop_orders"), ledger, manifest, Findings({})) == [], "positions order its events"


def test_events_of_another_schemas_table_halt_until_the_contract_names_one(tmp_path: Path) -> None:
    contract, ledger = load("shop_orders"), Ledger(tmp_path, "shop_orders")
    counts = {"accepted": 9, "quarantined": 0}

    def reasons(*origins: str, contract: Contract = contract) -> list[str]:
        return reasons_to_halt(contract, ledger, ledger.freeze(2, "1", []), Findings(counts, origins=origins))

    assert reasons("public") == [] and "several schemas (archive, public)" in reasons("archive", "public")[0]
    ledger.set_state(ledger.freeze(1, "1", []), BatchState.COMMITTED, origins=("public",))
    assert Ledger(tmp_path, "shop_orders").manifests[0].origins == ("public",)
    assert reasons("public") == [] and reasons() == []
    assert "Name the one in the contract's `schema`" in reasons("archive")[0]
    assert reasons("archive", contract=replace(contract, schema="archive")) == []


def test_a_csv_file_must_have_the_header_of_its_contract(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("\ufeffrate_date,currency,units_per_eur\r\n", encoding="utf-8")
    (tmp_path / "other.csv").write_text("currency,rate_date,source,units_per_eur\n")
    (tmp_path / "bad.csv").write_text("currency,rate_date\n")
    (tmp_path / "twice.csv").write_text("currency,rate_date,units_per_eur,currency\n")
    needed = "currency,rate_date,units_per_eur,"
    (tmp_path / "LOAD00000001.csv").write_text(f"2025-03-03,USD,{'1' * 200_000}")
    (tmp_path / "wide.csv").write_text(needed + ",".join(f"c{number}" for number in range(1001)) + "\n")
    (tmp_path / "long.csv").write_text(needed + "c" * (17 << 20) + "\n")

    assert inspect(tmp_path, "good.csv", load("fx_rates")).fault is None
    other = inspect(tmp_path, "other.csv", load("fx_rates"))
    assert (other.fault, other.layout) == (None, ("currency", "rate_date", "source", "units_per_eur"))
    assert "header has currency, rate_date;" in str(inspect(tmp_path, "bad.csv", load("fx_rates")).fault)
    assert "header has" in str(inspect(tmp_path, "twice.csv", load("fx_rates")).fault)
    wide = inspect(tmp_path, "wide.csv", load("fx_rates"))
    assert wide.fault == "more than 1000 columns that the contract lacks"
    assert "first line is longer" in str(inspect(tmp_path, "long.csv", load("fx_rates")).fault)
    headerless = inspect(tmp_path, "LOAD00000001.csv", dms_contract())
    assert (headerless.fault, len(headerless.layout)) == (None, 3)


SCHEMA = b'{"type": "record", "name": "r", "fields": [{"name": "text", "type": "string"}]}'


def avro_file(codec: str, block: bytes, schema: bytes = SCHEMA) -> bytes:
    """An avro file of one record, whose block is given as it is stored."""

    def sized(content: bytes) -> bytes:
        number, size = bytearray(), len(content) << 1
        while size > 0x7F:
            number.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([*number, size]) + content

    described = sized(b"avro.schema") + sized(schema) + sized(b"avro.codec") + sized(codec.encode())
    return b"Obj\x01\x04" + described + b"\0" + bytes(16) + b"\x02" + sized(block) + bytes(16)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("parquet", "inflates to more than 200 times its size"),
        ("deflate", "inflates to more than 200 times its size"),
        ("zstandard", "inflates to more than 200 times its size"),
        ("xz", "compressed as xz; write null, deflate, snappy, zstandard"),
        ("cut", "not a whole avro file (a deflated block is cut short)"),
        ("header", "truncated avro"),
        ("nested", "not an avro file (RecursionError in its header)"),
    ],
)
def test_a_binary_file_that_inflates_or_is_not_whole_is_refused(tmp_path: Path, kind: str, fault: str) -> None:
    path, text = tmp_path / "a.bin", b"x" * (70 << 20)
    if kind == "parquet":
        parquet.write_table(pyarrow.table({"rate_date": pyarrow.nulls(70 << 20, pyarrow.int8())}), path)
    else:
        deflated = zlib.compress(text)[2:-4]
        made = {
            "deflate": avro_file("deflate", deflated),
            "zstandard": avro_file("zstandard", pyarrow.compress(text, "zstd", asbytes=True)),
            "xz": avro_file("xz", b"x"),
            "cut": avro_file("deflate", zlib.compress(b"x" * 99)[2:-6]),
            "header": avro_file("null", b"x")[:-25],
            "nested": avro_file("null", b"x", b"[" * 100_000),
        }
        path.write_bytes(made[kind])

    contract = replace(load("fx_rates"), format="parquet" if kind == "parquet" else "avro")

    assert inspect(tmp_path, "a.bin", contract).fault == fault


@pytest.mark.parametrize(
    ("content", "multiline"),
    [
        (b'rate_date,currency,units_per_eur\na,"b",c\n', False),
        (b'rate_date,currency,units_per_eur\na,"b\nb",c\n', True),
        (b'rate_date,currency,units_per_eur\na,"b ""q"" ",c\n', False),
    ],
)
def test_quoted_line_ends_are_seen(tmp_path: Path, content: bytes, multiline: bool) -> None:
    (tmp_path / "a.csv").write_bytes(content)

    assert inspect(tmp_path, "a.csv", load("fx_rates")).multiline is multiline


def dms_contract() -> Contract:
    return replace(load("fx_rates"), format="dms", timestamp_column="dms_at")


@pytest.mark.parametrize(
    ("name", "line", "layout", "fault"),
    [
        ("LOAD00000001.csv", "2025-03-03,USD,1.04", ("rate_date", "currency", "units_per_eur"), None),
        ("LOAD00000001.csv", "t,2025-03-03,USD,1", ("dms_at", "rate_date", "currency", "units_per_eur"), None),
        ("20250303-060000123.csv", "I,t,2025-03-03,USD,1",
         ("Op", "dms_at", "rate_date", "currency", "units_per_eur"), None),
        ("20250303-0600001234.csv", "I,2025-03-03,USD,1", ("Op", "rate_date", "currency", "units_per_eur"), None),
        ("LOAD00000001.csv", "currency,rate_date", ("currency", "rate_date"), None),
        ("20250303-060000123.csv", "I,t", (), "2 fields; the contract wants 3"),
        ("20250303-060000123.csv", "U,t,2025-03-03,USD,1,2025-03-03", (), "as before images, need AddColumnName"),
        ("changes.csv", "I,t,2025-03-03,USD,1", (), "the order of its rows is not known"),
    ],
)  # fmt: skip
def test_the_fields_of_a_dms_file_are_named(
    tmp_path: Path, name: str, line: str, layout: tuple[str, ...], fault: str | None
) -> None:
    (tmp_path / name).write_text(line + "\n")

    found = inspect(tmp_path, name, dms_contract())

    assert found.layout == layout and (found.fault or "").find(fault or "") >= 0
    assert (found.fault is None) == (fault is None)
    assert format_of(dms_contract()).is_full_load(name) == name.startswith("LOAD")


@pytest.mark.parametrize(
    ("name", "line", "layout"),
    [
        ("20250303-060000123.csv", "U,2025-03-03,USD,1", ("Op", "rate_date", "currency", "units_per_eur")),
        ("20250303-060000123.csv", "2025-03-03,USD,1", ("rate_date", "currency", "units_per_eur")),
        ("LOAD00000001.csv", "2025-03-03 06:00:00,2025-03-03,USD,1", None),
    ],
)
def test_without_a_commit_time_no_field_is_one(
    tmp_path: Path, name: str, line: str, layout: tuple[str, ...] | None
) -> None:
    (tmp_path / name).write_text(line + "\n")
    found = inspect(tmp_path, name, replace(dms_contract(), timestamp_column=None))
    assert (found.layout, found.fault is None) == (layout or (), layout is not None)


def test_a_repeated_full_load_under_its_old_name_is_told_with_what_to_do(tmp_path: Path) -> None:
    contracts = {"fx_rates": dms_contract()}
    lake = Lake(Settings(home=tmp_path), contracts=Contracts(contracts))
    folder = lake.landing / "fx_rates"
    folder.mkdir(parents=True)
    (folder / "LOAD00000001.csv").write_text("2025-03-03,USD,1.04\n")
    ledger = lake.ledger("fx_rates")
    taken = ledger.freeze(1, "1.0.0", [inspect(folder, "LOAD00000001.csv", dms_contract())])
    ledger.set_state(taken, BatchState.COMMITTED)
    assert replaced(lake) == []
    (folder / "LOAD00000001.csv").write_text("2025-03-03,USD,1.05\n")
    (told,) = replaced(lake)[0].warnings
    assert "lakeops ingest generation fx_rates --new --execute" in told and "20250401/" in told


def test_a_snapshot_is_a_batch_of_its_own(tmp_path: Path) -> None:
    names = ["a", "b1", "b2", "c", "d"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b1.snapshot").write_text('{"files": ["b2"], "taken_at": "2025-03-03T07:00:00+01:00"}')
    contract = load("fx_rates")

    assert landing.names(tmp_path) == names
    found, warnings = deliveries(tmp_path, names, contract)
    assert found == [
        Delivery(("a",)), Delivery(("b1", "b2"), True, "2025-03-03T06:00:00.000000+00:00"), Delivery(("c", "d")),
    ]  # fmt: skip
    assert warnings == []
    found, warnings = deliveries(tmp_path, ["a", "b1"], contract)
    assert found == [Delivery(("a",))] and "waits for the other parts of its snapshot: b2" in warnings[0]
    found, _ = deliveries(tmp_path, ["c", "d"], replace(contract, complete=True))
    assert found == [Delivery(("c",), True), Delivery(("d",), True)]
    (tmp_path / "c.snapshot").write_text('{"taken_at": "2025-03-03T07:00:00"}')
    with pytest.raises(OpsError, match=r"c\.snapshot is not a snapshot's mark \(taken_at has no time zone\)"):
        deliveries(tmp_path, ["c"], contract)


def test_a_snapshot_is_frozen_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that does not say it yet, left by a run that died, would be taken for changes."""
    lake, saved = Lake(Settings(home=tmp_path)), []
    save = Ledger.save
    monkeypatch.setattr(Ledger, "save", lambda ledger, manifest: saved.append(manifest) or save(ledger, manifest))
    (lake.landing / "fx_rates").mkdir(parents=True)
    (lake.landing / "fx_rates" / "a.csv").write_text("rate_date,currency,units_per_eur\n")
    spark: Any = None

    for taken_at in ("2025-03-03T06:00:00.000000+00:00", None):
        BatchWriter(lake, spark, load("fx_rates"))._freeze(Delivery(("a.csv",), True, taken_at))

    assert saved[0].snapshot_at == "2025-03-03T06:00:00.000000+00:00"
    assert [bool(manifest.snapshot_at) for manifest in saved] == [True, True]


def test_a_run_with_nothing_new_tells_of_a_replaced_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, folder = Lake(Settings(home=tmp_path)), tmp_path / "landing" / "fx_rates"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("rate_date,currency,units_per_eur\n2025-03-03,USD,1.04\n")
    ledger = lake.ledger("fx_rates")
    taken = ledger.freeze(1, "1.0.0", [inspect(folder, "a.csv", load("fx_rates"))])
    ledger.set_state(taken, BatchState.COMMITTED)
    monkeypatch.setattr(daily, "reason_to_run", lambda lake: None)
    monkeypatch.setattr(daily, "green_since", lambda lake: "yesterday")
    told: list[Any] = []

    daily.run(lake, lambda what, value: told.append((what, value)))
    assert told == []
    (folder / "a.csv").write_text("rate_date,currency,units_per_eur\n2025-03-03,USD,1.05\n")
    daily.run(lake, lambda what, value: told.append((what, value)))
    ((what, result),) = told
    assert (what, result.source) == ("ingest", "fx_rates") and "was replaced after it was taken" in result.warnings[0]


def test_generations_are_declared_and_never_go_back(tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path))
    ledger = Ledger(tmp_path / "ledger", "crm_accounts")
    assert generations.current(lake, ledger).number == 1
    assert generations.declare(lake, ledger).number == 2
    taken = ledger.freeze(1, "1.0.0", [], generation=5)
    ledger.set_state(taken, BatchState.COMMITTED)
    assert generations.current(lake, ledger).number == 5
    assert generations.declare(lake, ledger).number == 6
    assert generations.current(lake, Ledger(tmp_path / "ledger", "crm_accounts")).declared_at is not None


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "crm_accounts")
    frozen = ledger.freeze(3, "1.0.0", [landing.LandingFile("a.jsonl", 5, "abc", "truncated gzip")])

    assert Ledger(tmp_path, "crm_accounts").open_batch == frozen
    ledger.set_state(frozen, BatchState.COMMITTED, counts={"accepted": 1})
    again = Ledger(tmp_path, "crm_accounts")
    assert again.open_batch is None and again.last_number == 3 and set(again.taken()) == {"a.jsonl"}
    again.set_state(again.manifests[0], BatchState.LOST)
    assert not Ledger(tmp_path, "crm_accounts").taken()
    halted = again.freeze(4, "1.0.0", [landing.LandingFile("b.csv", 5, "abc", layout=("x", "y"))])
    again.set_state(halted, BatchState.HALTED, halted_by="why", positions=(1, 2))
    reread = Ledger(tmp_path, "crm_accounts")
    assert reread.halted == again.halted and reread.halted is not None and reread.halted.positions == (1, 2)
    assert reread.open_batch is None and set(reread.taken()) == {"b.csv"}


def test_a_garbled_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "crm_accounts").mkdir()
    (tmp_path / "crm_accounts" / "batch_000001.json").write_text('{"batch_id": 1')

    with pytest.raises(OpsError, match=r"batch_000001\.json is not a batch manifest"):
        Ledger(tmp_path, "crm_accounts")


def test_a_second_process_is_told_who_holds_the_home(tmp_path: Path) -> None:
    """Given a process that holds the lock, Then another is refused; when the holder is killed, the lock is free."""
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, time; from pathlib import Path; from python_ops.lake.config import Settings;"
            "from python_ops.lake.lake import Lake; from python_ops.lake.lock import exclusive\n"
            f"lake = Lake(Settings(home=Path({str(tmp_path)!r})))\n"
            "with exclusive(lake, 'run'): print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        with (
            pytest.raises(BusyError, match=rf"in use by `lakeops run` \(process {holder.pid}, since "),
            exclusive(Lake(Settings(home=tmp_path)), "ingest run"),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with exclusive(Lake(Settings(home=tmp_path)), "ingest run"):
        assert json.loads((tmp_path / "state" / "lock.json").read_text())["command"] == "lakeops ingest run"


def test_late_batches_are_told_once_for_each_source(tmp_path: Path) -> None:
    """Given batches of which several end behind what was taken, Then the first is told, with what to do; a new
    generation begins anew."""
    contract, ledger = load("crm_accounts"), Ledger(tmp_path, "crm_accounts")
    told = []
    for number, end, generation in (
        (1, 100, 1),
        (2, 300, 1),
        (3, 200, 1),
        (4, 400, 1),
        (5, 250, 1),
        (6, 9, 2),
        (7, 8, 2),
    ):
        batch = ledger.freeze(number, contract.version, generation=generation)
        told += warnings(contract, ledger, batch, Findings({"read": 1, "accepted": 1}, positions=(1, end)))
        ledger.set_state(batch, BatchState.COMMITTED, positions=(1, end))
    assert [text.split(":")[0] for text in told] == ["batch 3", "batch 7"]
    assert "its positions end at 200, behind 300" in told[0] and "`lakeops ingest generation crm_accounts" in told[0]


def test_a_parquet_column_with_dots_in_its_name_is_another_than_the_one_before_them(tmp_path: Path) -> None:
    """Given columns that Spark cannot read, `x.big` beside `x` and one inside `shop`, Then these and no others are left
    out, and the types of the others are those that Spark reads them as."""
    ids, big = pyarrow.array(["1"]), pyarrow.array([Decimal("1" * 45)], pyarrow.decimal256(50, 0))
    columns = {
        "rate_date": ids,
        "x.big": big,
        "x": ids,
        "shop": pyarrow.StructArray.from_arrays([big], ["rate_date"]),
        "codes": pyarrow.array([[1]], pyarrow.list_(pyarrow.uint32())),
        "at": pyarrow.array([[1]], pyarrow.list_(pyarrow.timestamp("ns"))),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    _, left_out, fault = schema_of(tmp_path / "a.parquet", "parquet", load("fx_rates"))
    assert (sorted(left_out), fault) == (["shop", "x.big"], None)
    read = readable(tmp_path / "a.parquet", left_out).simpleString()
    assert read == "struct<rate_date:string,x:string,codes:array<bigint>,at:array<bigint>>"
