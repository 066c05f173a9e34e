"""Erasure without Spark: who is asked for, where they are found, landing files by format, receipts, what is refused."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import os
import re
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import artifact_files as files
import duckdb
import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import write_deltalake
from servers import to_bucket
from typer.testing import CliRunner, Result

from python_ops.cli.app import app
from python_ops.jobs.ingest.inspection import inspect
from python_ops.jobs.maintenance import Act
from python_ops.jobs.maintenance import plan as plan_maintenance
from python_ops.jobs.publish.duckdb_target import DuckDBTarget
from python_ops.lake import landing
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.contracts import Column, Contract, Contracts, parse
from python_ops.lake.erasure import Hashing, Subject, hashing, keep_receipt, suppressed
from python_ops.lake.errors import BusyError, ConfigError, ContractError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import BatchState
from python_ops.lake.secrets import Secrets
from python_ops.lake.secrets.providers import EnvironmentProvider
from python_ops.lake.state.leases import hold
from python_ops.lake.tags import KIND as TAG
from python_ops.lake.tags import Pin, Tag
from python_ops.run.erasure import come_back, plan, run
from python_ops.run.erasure.landing import erase_files
from python_ops.run.erasure.people import Seeker, parsed
from python_ops.run.erasure.tables import recount

KEY = "a-key-of-the-tests-0123456789"
WHO = Subject("contact_id", "C-1")
GIVEN = {"LAKEHOUSE_SECRET_ERASURE_KEY": KEY}


def contract(format_: str, on_erasure: str = "remove", **others: Any) -> Contract:
    columns = (
        Column("id", "string", "Key.", required=True),
        Column("who", "string", "Person.", subject="contact_id", on_erasure=on_erasure, source_name="Who Is"),
        Column("words", "string", "Text."),
    )
    return Contract("things", "1.0.0", "Things.", "tests", format_, ("id",), columns, **others)


def lake_of(tmp_path: Path, made: Contract | None = None, **given: str) -> Lake:
    secrets = Secrets([EnvironmentProvider(given or GIVEN)])
    contracts = Contracts({"things": made}) if made else None
    return Lake(Settings(home=tmp_path), contracts=contracts, secrets=secrets, start=no_session)


def no_session() -> Any:
    raise AssertionError("asked for a Spark session")


def test_the_hash_is_hmac_sha256_and_says_nothing_of_the_person() -> None:
    made = Hashing(KEY.encode())
    inner = hmac.new(KEY.encode(), b"contact_id", hashlib.sha256).digest()
    assert made.digest(WHO) == hmac.new(inner, b"C-1", hashlib.sha256).hexdigest()
    i, o = made.pads("contact_id")
    assert hashlib.sha256(o + hashlib.sha256(i + b"C-1").digest()).hexdigest() == made.digest(WHO), "as Spark has it"
    assert made.digest(WHO) != made.digest(Subject("user_id", "C-1")) != Hashing(b"x" * 20).digest(WHO)
    assert "C-1" not in repr(WHO) and KEY not in repr(made)


def test_a_key_that_is_missing_short_or_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="erasure_key is not set"):
        hashing(lake_of(tmp_path, LAKEHOUSE_SECRET_X="y"))
    with pytest.raises(ConfigError, match="fewer than 16 characters"):
        hashing(lake_of(tmp_path, LAKEHOUSE_SECRET_ERASURE_KEY="short"))
    lake = lake_of(tmp_path)
    keep_receipt(lake, f"contact_id.{hashing(lake).digest(WHO)}", {"key_check": hashing(lake).check(), "at": "x"})
    assert suppressed(lake) == {"contact_id": {hashing(lake).digest(WHO)}}
    with pytest.raises(ConfigError, match="not the key with which people were erased"):
        hashing(lake_of(tmp_path, LAKEHOUSE_SECRET_ERASURE_KEY="another-key-0123456789"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "Nobody is named"),
        (["contact_id"], "--subject 1: expected a kind and a value"),
        (["contact_id="], "--subject 1: expected a kind and a value"),
        (["contact_id=a", "shoe=45"], "--subject 2: no contract has a column with `subject: shoe`. Kinds: contact_id"),
    ],
)
def test_who_is_asked_for_wrongly_is_told_by_place_alone(given: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(Contracts(), given)
    assert told in str(caught.value) and "45" not in str(caught.value)


def test_a_file_names_people_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("contact_id=a\n\n contact_id=b=c \ncontact_id=a\n", encoding="utf-8")
    assert parsed(Contracts(), [], tmp_path / "p.txt") == [Subject("contact_id", "a"), Subject("contact_id", "b=c")]
    (tmp_path / "p.txt").write_text("contact_id=a\nsecret words\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2: expected a kind") as caught:
        parsed(Contracts(), [], tmp_path / "p.txt")
    assert "secret" not in str(caught.value)


def test_a_contract_says_what_can_be_keyed_anew(tmp_path: Path) -> None:
    text = (Path(landing.__file__).parent / "contracts" / "crm_contacts.yml").read_text(encoding="utf-8")
    for wrong, told in (
        (
            "    subject: contact_id\n    on_erasure: rekey\n",
            "email, first_name.* would stay.*a string outside the key",
        ),
        ("    on_erasure: remove\n", "'subject' is a dependency of 'on_erasure'"),
    ):
        with pytest.raises(ContractError, match=told):
            parse(text.replace("    subject: contact_id\n", wrong, 1), Path("crm_contacts.yml"))


def text_files(tmp_path: Path) -> dict[str, tuple[Contract, bytes]]:
    """Files of each way of writing: the person on the second record, others whose values only look alike around it."""
    who = ["C-11", "C-1", "x C-1", "C-2"]
    lines = [json.dumps({"id": str(n), "Who Is": value, "n": {"deep": 1.50}}) for n, value in enumerate(who)]
    nested = json.dumps({"value": {"after": {"id": "1", "who": "C-1"}}, "op": "c"})
    table = "id,Who Is,words\r\n" + "".join(f'{n},{v},"a\r\nb ""q"""\r\n' for n, v in enumerate(who))
    plain = "id;who\r" + "".join(f"{n};{v}\r" for n, v in enumerate(who))
    return {
        "a.jsonl": (contract("jsonl"), ("\n".join([lines[0], nested, *lines[2:]]) + "\n").encode() + b"\xff\n"),
        "b.jsonl.gz": (contract("jsonl"), gzip.compress("\n".join(lines).encode())),
        "c.jsonl.zst": (contract("jsonl"), pa.compress("\n".join(lines).encode(), "zstd", asbytes=True)),
        "d.jsonl": (contract("jsonl"), "\ufeff".encode("utf-16-le") + "\n".join(lines).encode("utf-16-le")),
        "e.csv": (contract("csv"), table.encode()),
        "f.csv": (contract("csv"), plain.encode()),
    }


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.jsonl", "e.csv", "f.csv"])
@pytest.mark.parametrize("on_erasure", ["remove", "rekey"])
def test_a_text_is_written_again_without_the_person(tmp_path: Path, name: str, on_erasure: str) -> None:
    """Given a file of a batch, Then only the person's record changes, lines keep their numbers, the ledger follows."""
    made, data = text_files(tmp_path)[name]
    made = contract(made.format, on_erasure)
    lake = lake_of(tmp_path, made)
    path = lake.landing / "things" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    taken = inspect(path.parent, name, made)
    assert taken.fault is None
    ledger = lake.ledger("things")
    ledger.set_state(ledger.freeze(1, "1.0.0", [taken]), BatchState.COMMITTED)

    seeker = Seeker(made, [WHO], hashing(lake))
    (found,) = erase_files(lake, seeker)
    assert found.found == Counter({WHO: 1}) and path.read_bytes() == data, "a plan changes nothing"
    (done,) = erase_files(lake, seeker, execute=True)
    assert done.found == Counter({WHO: 1})
    after = inspect(path.parent, name, made)
    assert lake.ledger("things").taken()[name].sha256 == after.sha256
    assert landing.replaced(path.parent, lake.ledger("things").taken(), {name: 0.0}) == []
    before_lines, lines = whole(data, name), whole(path.read_bytes(), name)
    assert len(lines) == len(before_lines)
    changed = [n for n, (one, other) in enumerate(zip(before_lines, lines, strict=True)) if one != other]
    assert changed in ([1], [2], [3], [3, 4]), "the lines of the one record"
    said = "".join(lines[n] for n in changed).strip()
    anew = hashing(lake).pseudonym(WHO)
    assert (anew in said) if on_erasure == "rekey" else said == ""
    assert list(erase_files(lake, Seeker(made, [WHO], hashing(lake)))) == [], "nobody is left"
    assert [each.name for each in path.parent.iterdir()] == [name]


def whole(data: bytes, name: str) -> list[str]:
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    if name.endswith(".zst"):
        data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    text = data.decode("utf-16-le" if name == "d.jsonl" else "latin-1")
    return text.split("\r" if name == "f.csv" else "\n")


@pytest.mark.parametrize("on_erasure", ["remove", "rekey"])
def test_rows_of_parquet_and_avro_are_left_out_or_keyed_anew(tmp_path: Path, on_erasure: str) -> None:
    who = ["C-11", "C-1", None, "C-2"]
    anew = hashing(lake_of(tmp_path)).pseudonym(WHO)
    wanted = ["C-11", None, "C-2"] if on_erasure == "remove" else ["C-11", anew, None, "C-2"]
    rows = [{"id": str(n), "who": value, "at": datetime(2025, 1, n + 1, tzinfo=UTC)} for n, value in enumerate(who)]
    for format_ in ("parquet", "avro"):
        lake = lake_of(tmp_path / format_, contract(format_, on_erasure))
        path = lake.landing / "things" / f"a.{format_}"
        path.parent.mkdir(parents=True)
        if format_ == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2, use_deprecated_int96_timestamps=True)
        else:
            kinds = {
                "id": "string",
                "who": ["null", "string"],
                "at": {"type": "long", "logicalType": "timestamp-micros"},
            }
            fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
            with path.open("wb") as out:
                fastavro.writer(out, {"type": "record", "name": "r", "fields": fields}, rows, codec="deflate")
        before = inspect(path.parent, path.name, lake.contracts.load("things"))
        (done,) = erase_files(lake, Seeker(lake.contracts.load("things"), [WHO], hashing(lake)), execute=True)
        assert done.found == Counter({WHO: 1})
        if format_ == "parquet":
            left = pq.read_table(path).to_pylist()
        else:
            with path.open("rb") as file:
                left = list(fastavro.reader(file))  # type: ignore[arg-type]
        assert [row["who"] for row in left] == wanted
        assert left[0]["at"].replace(tzinfo=UTC) == rows[0]["at"]
        assert inspect(path.parent, path.name, lake.contracts.load("things")).schema == before.schema


def landed(tmp_path: Path, name: str, data: bytes, made: Contract) -> tuple[Lake, Path, Seeker]:
    lake = lake_of(tmp_path, made)
    path = lake.landing / "things" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return lake, path, Seeker(made, [WHO], hashing(lake))


@pytest.mark.parametrize("on_erasure", ["remove", "rekey"])
def test_two_stray_quotes_hide_and_take_nobody(tmp_path: Path, on_erasure: str) -> None:
    """As ingestion does: lines between them are records of their own, whose person is found and whose others stay."""
    text = 'id,Who Is,words\n1,C-2,5" pipe\n2,C-1,x\n3,C-3,"a\nb"\n4,C-4,3" z\n'
    lake, path, seeker = landed(tmp_path, "a.csv", text.encode(), contract("csv", on_erasure))
    assert inspect(path.parent, path.name, seeker.contract).multiline
    (done,) = erase_files(lake, seeker, execute=True)
    left = "" if on_erasure == "remove" else f"2,{seeker.hashing.pseudonym(WHO)},x"
    assert done.found == Counter({WHO: 1}) and path.read_text() == text.replace("2,C-1,x", left)


def test_keyed_anew_is_one_field_and_no_other_byte(tmp_path: Path) -> None:
    """An empty text in quotes is no NULL; JSON ends its lines as before; blanks after a delimiter stay."""
    for number, (name, text) in enumerate({
        "a.csv": 'id,Who Is,words\r\n"1",C-1,""\r\n2,"C-1",\r\n',
        "b.csv": 'id, Who Is, words\n1, C-1, "a, b"\n2, "C-1", x\n',
        "c.jsonl": '{"id": "1", "who": "C-1"}\r\n{"id": "2"}\r\n',
    }.items()):  # fmt: skip
        made = contract(name.rpartition(".")[2], "rekey")
        lake, path, seeker = landed(tmp_path / str(number), name, text.encode(), made)
        (done,) = erase_files(lake, seeker, execute=True)
        anew = seeker.hashing.pseudonym(WHO)
        found = path.read_bytes().decode()
        assert found.replace('"C-1"', "C-1").replace(anew, "C-1").replace('"C-1"', "C-1") == text.replace(
            '"C-1"', "C-1"
        )
        assert "C-1" not in found and done.found[WHO] == text.count("C-1")


def test_a_name_in_escapes_is_not_left_in_silence(tmp_path: Path) -> None:
    text = '{"id": "1", "wh\\u006f": "C-1"}\n'
    lake, path, seeker = landed(tmp_path, "a.jsonl", text.encode(), contract("jsonl", "rekey"))
    with pytest.raises(OpsError, match=r"things/a.jsonl has 1 records that could not be keyed anew"):
        list(erase_files(lake, seeker, execute=True))
    assert path.read_text() == text and [each.name for each in path.parent.iterdir()] == ["a.jsonl"]


def test_a_nested_record_of_somebody_else_stays(tmp_path: Path) -> None:
    seeker = Seeker(contract("jsonl"), [WHO], Hashing(KEY.encode()))
    friend = '{"id": "1", "who": "C-2", "referred_by": {"who": "C-1"}}'
    assert seeker.json_line(friend) == friend
    for around in ('{"payload": {"before": %s}}', '{"key": {"payload": %s}}', '{"value": {"data": {"after": %s}}}'):
        assert seeker.json_line(around % '{"who": "C-1"}') == ""
    assert seeker.json_line(json.dumps({"after": '{"_id": "1", "who": "C-1"}'})) == "", "a document of MongoDB"


def test_times_of_int96_that_nanoseconds_do_not_reach_stay(tmp_path: Path) -> None:
    far = [datetime(1, 1, 1), datetime(2025, 1, 1, 1, 2, 3, 4), datetime(9999, 12, 31, 23, 59, 59, 999999)]
    rows = {"id": ["1", "2", "3"], "who": ["C-2", "C-1", "C-3"], "at": pa.array(far, pa.timestamp("us"))}
    lake, path, seeker = landed(tmp_path, "a.parquet", b"", contract("parquet"))
    pq.write_table(pa.table(rows), path, use_deprecated_int96_timestamps=True)
    (done,) = erase_files(lake, seeker, execute=True)
    left = pq.ParquetFile(path, coerce_int96_timestamp_unit="us")
    assert left.read().column("at").to_pylist() == [far[0], far[2]] and done.found == Counter({WHO: 1})
    assert left.schema.column(2).physical_type == "INT96"


def test_a_file_that_cannot_be_written_again_is_not_called_rejected(tmp_path: Path) -> None:
    lake, path, seeker = landed(tmp_path, "a.avro", b"", contract("avro"))
    kinds = {"id": "string", "who": "string", "at": {"type": "long", "logicalType": "timestamp-micros"}}
    fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
    with path.open("wb") as out:
        row = {"id": "1", "who": "C-1", "at": 2**62}
        fastavro.writer(out, {"type": "record", "name": "r", "fields": fields}, [row])
    (done,) = erase_files(lake, seeker)
    assert done.fault and "cannot be written again" in done.fault and "rejected" not in done.fault


def test_a_plan_writes_nothing_into_landing(tmp_path: Path) -> None:
    """Else a plan beside a run could take its draft away."""
    text = '{"id": "1", "who": "C-1"}\n'
    lake, path, seeker = landed(tmp_path, "a.jsonl", text.encode(), contract("jsonl"))
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text("of the run")
    assert [each.found for each in erase_files(lake, seeker)] == [Counter({WHO: 1})]
    assert draft.read_text() == "of the run"


def test_a_record_that_is_no_json_goes_where_the_value_is_a_word(tmp_path: Path) -> None:
    seeker = Seeker(contract("jsonl"), [WHO], Hashing(KEY.encode()))
    assert [seeker.json_line(text) for text in ('{"who": "C-1"', '{"who": "C-11"', "AC-1 C-1x")] == [
        "", '{"who": "C-11"', "AC-1 C-1x",
    ]  # fmt: skip
    assert seeker.json_line('{"who": "C-2", "who": "C-1"}') == "", "a key twice"
    assert seeker.json_line('{"words": "C-1"}') == '{"words": "C-1"}', "another column's value is not the person"
    rekey = Seeker(contract("jsonl", "rekey"), [WHO], Hashing(KEY.encode()))
    assert json.loads(rekey.json_line('{"Who Is" : "C\\u002d1", "n": 1.50}'))["Who Is"].startswith("erased-")
    assert "1.50" in rekey.json_line('{"who": "C-1", "n": 1.50}'), "numbers stay as they are written"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Bronze and gold with a contact, a landing file, a manifest that marks gold's column."""
    monkeypatch.setenv("LAKEHOUSE_HOME", str(tmp_path))
    monkeypatch.setenv("LAKEHOUSE_SCHEMA_PREFIX", "")
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    lake = Lake(Settings(home=tmp_path), start=no_session)
    gold = files.model("dim_customer", columns={"customer_id": "string"})
    gold["columns"]["customer_id"]["meta"] = {"subject": "contact_id"}
    files.write_manifest(lake.artifacts, gold)
    files.write_run_results(lake.artifacts, {"model.lakehouse.dim_customer": "success"})
    bronze: dict[str, Any] = {"contact_id": ["C-1", "C-1", "C-2"], "email": ["someone@example.org"] * 3}
    bronze |= {
        "_batch_id": pa.array([1, 1, 1], pa.int64()),
        "_op": ["c", "u", "c"],
        "_line": pa.array([1, 2, 3], pa.int64()),
    }
    for name in ("first_name", "last_name", "phone", "notes"):
        bronze[name] = pa.array([None] * 3, pa.string())
    write_deltalake(str(lake.table_path("bronze", "crm_contacts")), pa.table(bronze))
    write_deltalake(str(lake.table_path("gold", "dim_customer")), pa.table({"customer_id": ["C-1", "C-2"]}))
    path = lake.landing / "crm_contacts" / "a.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"key": {"contact_id": "C-1"}}) + "\n", encoding="utf-8")
    return lake


def test_a_plan_says_where_and_how_many(own: Lake) -> None:
    log = own.workspace / "logs" / "dbt.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\nsomeone@example.org\nthree\n", encoding="utf-8")
    (own.artifacts / "x.sql").write_text("'someone@example.org'", encoding="utf-8")
    found = plan(own, [WHO])
    assert [(place.name, place.records, place.act) for place in found.places] == [
        ("landing/crm_contacts/a.jsonl", 1, "write again"), ("bronze.crm_contacts", 2, "remove"),
        ("gold.dim_customer", 1, "remove"), ("logs/dbt.log", 1, "take out the lines"),
    ]  # fmt: skip
    assert found.unreached == ("target/x.sql: 1 lines. Look at it; what dbt made there it makes anew",)
    assert not found.absent and any("gold.dim_customer: old files and log, from" in due for due in found.due)
    assert suppressed(own) == {} and "someone" in log.read_text()


def lakeops(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_command_plans_and_names_nobody(own: Lake) -> None:
    shown = lakeops("erase", "plan", "--subject", "contact_id=C-1")
    assert shown.exit_code == 0 and "bronze.crm_contacts" in shown.stdout and "C-1" not in shown.stdout
    assert "Nothing was done" in lakeops("erase", "run", "--subject", "contact_id=C-1").stdout
    assert "subject" in lakeops("erase", "status").stdout
    nobody = lakeops("erase", "run", "--subject", "contact_id=C-1", "--subject", "contact_id=C-404")
    assert isinstance(nobody.exception, OpsError) and nobody.exception.exit_code == 1
    assert "Number 2 of 2" in str(nobody.exception) and "C-404" not in str(nobody.exception)
    wrong = lakeops("erase", "plan", "--subject", "shoe=45")
    assert isinstance(wrong.exception, ConfigError)


def test_a_run_is_refused_before_anything_is_written(own: Lake) -> None:
    """Given a tag, an interrupted batch, somebody who is nowhere, or a lease, Then nobody is erased."""

    def refused(told: str, *people: Subject) -> None:
        with pytest.raises(OpsError, match=told):
            run(own, people or [WHO], lambda what, value: None, print)
        assert suppressed(own) == {}

    refused("number 1 .* is nowhere in the lake", Subject("contact_id", "C-404"))
    own.store.put(TAG, "q1", asdict(Tag("q1", "x", {"gold.dim_customer": Pin(0, "i", "gold", "dim_customer", 1)})), 0)
    refused("tag q1 keeps versions of gold.dim_customer: `lakeops table untag q1 --execute`")
    own.store.delete(TAG, "q1", 1)
    own.ledger("crm_contacts").freeze(1, "1.1.0")
    refused("batch 1 of crm_contacts was interrupted")
    with (
        hold(own.store, ["gold.dim_customer"], "another"),
        pytest.raises(BusyError, match=r"gold\.dim_customer is held by"),
    ):
        run(own, [WHO], lambda what, value: None, print)


def test_a_landing_folder_in_a_bucket_is_written_again_too(own: Lake, aws: str) -> None:
    to_bucket(own.home, "lake", "prod")
    settings = Settings(home=Path("s3://lake/prod"), workspace=str(own.home / "w"))
    there = Lake(settings, artifacts=own.artifacts, start=no_session)
    keep_receipt(there, "contact_id.aa", {"at": "2025-01-01T00:00:00+00:00", "key_check": hashing(own).check()})
    seeker = Seeker(there.contracts.load("crm_contacts"), [WHO], hashing(there))
    (done,) = erase_files(there, seeker, execute=True)
    assert done.found == Counter({WHO: 1}) and suppressed(there) == {"contact_id": {"aa"}}
    assert (there.landing / "crm_contacts" / "a.jsonl").read_bytes() == b"\n"
    found = plan(there, [WHO])
    assert ("bronze.crm_contacts", 2) in [(place.name, place.records) for place in found.places]


def test_the_ledger_counts_what_is_left(own: Lake) -> None:
    ledger = own.ledger("crm_contacts")
    counts = {"read": 6, "accepted": 5, "quarantined": 1, "ignored": 0, "generated": 0}
    ledger.set_state(ledger.freeze(1, "1.1.0"), BatchState.COMMITTED, counts=counts)
    recount(own, "crm_contacts")
    (batch,) = own.ledger("crm_contacts").manifests
    assert batch.counts == {"read": 6, "accepted": 3, "quarantined": 0, "ignored": 3, "generated": 0}


def test_who_is_there_again_is_found_by_the_hash(own: Lake) -> None:
    assert come_back(own) == []
    key = hashing(own)
    keep_receipt(own, f"contact_id.{key.digest(WHO)}", {"at": "2025-01-01T00:00:00+00:00", "key_check": key.check()})
    assert come_back(own) == [WHO]
    (own.landing / "crm_contacts" / "a.jsonl").unlink()
    assert come_back(own) == [WHO], "in bronze"
    write_deltalake(str(own.table_path("bronze", "crm_contacts")), pa.table({"contact_id": ["C-2"]}), mode="overwrite",
                    schema_mode="overwrite")  # fmt: skip
    assert come_back(own) == []
    (own.landing / "crm_contacts" / "b.jsonl").write_text(
        '{"key": {"contact_id": "C-1"}}\n{"key": {"contact_id": "C-2"}}'
    )
    assert come_back(own) == [WHO], "in a landing file that waits"


def test_maintenance_removes_old_files_and_logs_when_the_retention_is_over(own: Lake) -> None:
    """Given an erasure a day ago, then eight days ago, Then VACUUM and clean-up of the log are due then."""

    def due(days: int) -> list[Act]:
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        keep_receipt(own, "contact_id.x", {"at": at, "tables": ["gold.dim_customer"]})
        entry = own.table_path("gold", "dim_customer") / "_delta_log" / f"{0:020}.json"
        os.utime(entry, (1e9, 1e9))
        (planned,) = plan_maintenance(own, ["gold.dim_customer"])
        return [step.act for step in planned.actions]

    assert due(1) == []
    assert due(8) == [Act.VACUUM_FULL, Act.CHECKPOINT]
    entry = own.table_path("gold", "dim_customer") / "_delta_log" / f"{0:020}.json"
    os.utime(entry)
    (clean,) = plan_maintenance(own, ["gold.dim_customer"])
    assert clean.actions == (), "nothing from before is left"
    old = entry.parent.parent / "part-of-no-version.parquet"
    old.write_bytes(b"x")
    os.utime(old, (1e9, 1e9))
    (planned,) = plan_maintenance(own, ["gold.dim_customer"])
    assert planned.actions[0].act is Act.VACUUM_FULL, "Delta has cleaned the log up, the old file is there"


def test_models_mark_what_contracts_mark() -> None:
    """A column with the name of one that identifies people says so in every model, in gold's new ones too."""
    models = PROJECT_ROOT / "dbt_project" / "models"
    marked, unmarked, names = set[str](), set[str](), set[str]()
    for path in models.rglob("_*__models.yml"):
        for model in yaml.safe_load(path.read_text(encoding="utf-8"))["models"]:
            for column in model.get("columns", ()):
                meta = column.get("config", {}).get("meta", {})
                names |= {column["name"]} if "subject" in meta else set()
                (marked if "subject" in meta else unmarked).add(f"{model['name']}.{column['name']}")
    assert sorted(each for each in unmarked if each.rpartition(".")[2] in names) == []
    for source in Contracts().sources:
        reads = re.compile(rf"source\('bronze', '{source}'\)")
        readers = [path.stem for path in models.rglob("*.sql") if reads.search(path.read_text(encoding="utf-8"))]
        for column in (c for c in Contracts().load(source).columns if c.subject):
            assert {f"{reader}.{column.name}" for reader in readers} <= marked


def test_the_duckdb_file_loses_the_bytes_of_deleted_rows_and_nothing_else(tmp_path: Path) -> None:
    target = DuckDBTarget(tmp_path / "lakehouse.duckdb")
    target.rewrite()
    target.prepare()
    with duckdb.connect(str(target.path)) as engine:
        engine.execute("create schema gold; create table gold.people (name varchar)")
        engine.execute("insert into gold.people values ('planted-0123456789'), ('other')")
        engine.execute("comment on table gold.people is 'One row per person.'; create view gold.v as from gold.people")
        engine.execute("insert into ops.publish_ledger values ('gold.people', 'i', 1, 2, now()::timestamp, '')")
    with duckdb.connect(str(target.path)) as engine:
        engine.execute("delete from gold.people where name <> 'other'")
    served = target.served()
    assert b"planted-0123456789" in target.path.read_bytes(), "what DuckDB does"
    target.rewrite()
    assert b"planted-0123456789" not in target.path.read_bytes()
    with duckdb.connect(str(target.path), read_only=True) as engine:
        assert engine.execute("from gold.v").fetchall() == [("other",)]
        assert engine.execute("select comment from duckdb_tables() where table_name = 'people'").fetchall() == [
            ("One row per person.",)
        ]
    assert target.served() == served and [path.name for path in tmp_path.iterdir()] == ["lakehouse.duckdb"]
