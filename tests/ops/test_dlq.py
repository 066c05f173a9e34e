"""`lakeops dlq`, `ingest generation` and decisions on halted batches, as far as they need no Spark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner, Result

from python_ops.cli.app import app
from python_ops.cli.ingest import line
from python_ops.jobs import ingest as ingest_module
from python_ops.jobs.ingest import IngestResult, has_new_files, ingest
from python_ops.jobs.ingest.batch_checks import Findings, fingerprint, reasons_to_halt, warnings
from python_ops.jobs.ingest.formats import delimited, envelopes, format_of
from python_ops.jobs.ingest.formats.encodings import Encoding
from python_ops.jobs.ingest.formats.rows import check_record, column_checks
from python_ops.jobs.ingest.formats.values import Check
from python_ops.jobs.ingest.result import together
from python_ops.lake.config import Settings
from python_ops.lake.contracts import Thresholds, load, sources
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.landing import LandingFile
from python_ops.lake.ledger import BatchState, Ledger
from python_ops.lake.rejections import Kind, Rejection, by_text, kind_of


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A home with three dead letters of shop_orders, one of them replayed, written as Delta."""
    monkeypatch.setenv("LAKEHOUSE_HOME", str(tmp_path))
    monkeypatch.setenv("LAKEHOUSE_SCHEMA_PREFIX", "")
    lake = Lake(Settings(home=tmp_path))
    then = datetime(2025, 3, 3, 6, tzinfo=UTC)
    rows: dict[str, Any] = {
        "_batch_id": pa.array([7, 7, 8], pa.int64()),
        "file": ["a.jsonl", "a.jsonl", "b.jsonl.gz"],
        "line": pa.array([41, 42, None], pa.int64()),
        "raw": ['{"x": "\x1b[31m\u202e"}', "secret", None],
        "reason": ["not a bigint", "not a bigint", "truncated gzip"],
        "column": ["order_id", "order_id", None],
        "contract_version": ["1.0.0"] * 3,
        "arrived_at": pa.array([then] * 3, pa.timestamp("us", "UTC")),
        "replayed_batch": pa.array([None, 9, None], pa.int64()),
    }
    write_deltalake(str(lake.table_path("dlq", "shop_orders")), pa.table(rows))
    return lake


def lakeops(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_dead_letters_are_listed_by_reason(lake: Lake) -> None:
    found = json.loads(lakeops("dlq", "list", "--json").stdout)
    assert [(g["source"], g["batch_id"], g["reason"], g["records"], g["open"]) for g in found] == [
        ("shop_orders", 8, "truncated gzip", 1, 1), ("shop_orders", 7, "not a bigint", 2, 1),
    ]  # fmt: skip
    text = lakeops("dlq", "list", "shop_orders").stdout
    assert "truncated gzip" in text and "order_id" in text
    assert "No dead letters." in lakeops("dlq", "list", "fx_rates").stdout


def test_a_dead_letter_is_shown_without_its_record_unless_asked(lake: Lake) -> None:
    """Given raw text with terminal codes, Then it is shown only with --raw, and escaped."""
    plain = lakeops("dlq", "show", "shop_orders").stdout
    assert "batch 7  a.jsonl:41  not a bigint (order_id), contract 1.0.0" in plain and "x" not in plain.split("\n")[1]
    assert "b.jsonl.gz  truncated gzip" in plain and "a.jsonl:42" not in plain
    raw = lakeops("dlq", "show", "shop_orders", "--batch", "7", "--closed", "--raw").stdout
    assert r"\x1b[31m\u202e" in raw and "\x1b" not in raw and "in bronze as batch 9" in raw


def test_a_purge_plans_first(lake: Lake) -> None:
    planned = json.loads(lakeops("dlq", "purge", "shop_orders", "--json").stdout)
    assert planned == {"source": "shop_orders", "closed": 1, "open": 0, "executed": False}
    assert json.loads(lakeops("dlq", "purge", "shop_orders", "--with-open", "--json").stdout)["open"] == 2
    assert json.loads(lakeops("dlq", "purge", "shop_orders", "--older-than", "99999", "--json").stdout)["closed"] == 0
    assert "`--execute` acts" in lakeops("dlq", "purge", "shop_orders").stdout
    assert len(json.loads(lakeops("dlq", "show", "shop_orders", "--closed", "--json").stdout)) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("dlq", "list", "nope"), "Unknown source nope"),
        (("dlq", "show", "nope"), "Unknown source nope"),
        (("dlq", "replay", "nope"), "no contract for source 'nope'"),
        (("dlq", "purge", "shop_orders", "--older-than", "-1"), "a number of days"),
        (("ingest", "generation", "nope"), "Unknown source nope"),
        (("ingest", "run", "--approve", "1"), "Name the one source"),
        (("ingest", "run", "--discard", "1"), "Name the one source"),
        (("ingest", "run", "shop_orders", "--approve", "1"), "no halted batch 1"),
        (("ingest", "run", "shop_orders", "--discard", "1"), "no halted batch 1"),
        (("ingest", "run", "shop_orders", "--approve", "1", "--discard", "1"), "not both"),
    ],
)
def test_wrong_usage_is_named(lake: Lake, arguments: tuple[str, ...], told: str) -> None:
    done = lakeops(*arguments)
    assert isinstance(done.exception, ConfigError) and done.exception.exit_code == 2
    assert told in str(done.exception)


def test_a_generation_is_declared_with_execute(lake: Lake) -> None:
    assert "shop_orders: generation 1" in lakeops("ingest", "generation", "shop_orders").stdout
    assert "Nothing was done" in lakeops("ingest", "generation", "shop_orders", "--new").stdout
    assert "generation 2 begins" in lakeops("ingest", "generation", "shop_orders", "--new", "--execute").stdout
    shown = json.loads(lakeops("ingest", "generation", "shop_orders", "--json").stdout)
    assert (shown["before"]["number"], shown["executed"]) == (2, False)


def test_a_halted_batch_keeps_the_source_halted_until_it_is_decided_on(lake: Lake) -> None:
    """Given a halted batch, Then every run says so without Spark; discarding it lets the source go on."""
    contract = load("shop_orders")
    ledger = lake.ledger("shop_orders")
    frozen = ledger.freeze(3, contract.version, [LandingFile("a.jsonl", 1, "x")])
    ledger.set_state(frozen, BatchState.HALTED, halted_by="9 of 9 records.", judged_by=fingerprint(contract, 1))

    def no_spark() -> Any:
        raise AssertionError("Spark was asked for")

    (result,) = ingest(lake, ["shop_orders"])
    assert result.halted == 3 and "batch 3 is halted, nothing of it is visible: 9 of 9 records." in str(result.error)
    assert line(result).startswith("ingest  shop_orders                   HALTED")
    assert has_new_files(lake, "shop_orders"), "a run must not say that nothing is to be done"
    assert "batch 3 is halted: 9 of 9 records." in lakeops("ingest", "status").stdout
    done = lakeops("ingest", "run", "shop_orders", "--discard", "3")
    assert done.exception is None and "nothing new" in done.stdout
    ledger = lake.ledger("shop_orders")
    assert ledger.halted is None and ledger.taken().keys() == {"a.jsonl"}


def test_a_changed_contract_is_judged_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = load("shop_orders")
    assert fingerprint(contract, 1) == fingerprint(contract, 1) != fingerprint(contract, 2)
    ledger = lake.ledger("shop_orders")
    frozen = ledger.freeze(3, contract.version, [LandingFile("a.jsonl", 1, "x")])
    ledger.set_state(frozen, BatchState.HALTED, halted_by="x", judged_by="another")
    assert ingest_module._still_halted(lake, contract) is None


@pytest.mark.parametrize(
    ("thresholds", "counts", "others", "told"),
    [
        ({}, (0, 4), {}, None),
        ({}, (0, 5), {}, "5 of 5 records would be rejected (all)"),
        ({}, (1, 99), {}, None),
        ({"max_rejected_share": 0.1}, (89, 11), {}, "the contract allows 10.00%"),
        ({"max_rejected_share": 0.1}, (90, 10), {}, None),
        ({"max_rejected_share": 1.0}, (0, 9), {}, None),
        ({}, (9, 0), {"positions": (50, 99)}, None),
        ({"position_backwards": "halt"}, (9, 0), {"positions": (600, 999)}, "behind 2000"),
        ({"position_backwards": "halt"}, (9, 0), {"positions": (600, 2000)}, None),
        ({}, (9, 0), {"positions": (1, 9)}, "far below all that were taken (100 to 2000)"),
        ({"max_delete_share": 0.5}, (9, 0), {"living": 10, "deleted": 6}, "deletes 6 of 10 keys"),
        ({"max_delete_share": 0.5}, (9, 0), {"living": 10, "deleted": 5}, None),
        ({"max_delete_share": 0.5}, (9, 0), {"living": 0, "deleted": 0}, None),
        ({}, (9, 1), {"unknown": ("3",)}, "layout version 3"),
    ],
)
def test_what_halts(
    tmp_path: Path, thresholds: dict[str, Any], counts: tuple[int, int], others: dict[str, Any], told: str | None
) -> None:
    contract = replace(load("shop_orders"), thresholds=Thresholds(**thresholds))
    ledger = Ledger(tmp_path, "shop_orders")
    before = ledger.freeze(1, "1.0.0", [])
    ledger.set_state(before, BatchState.COMMITTED, positions=(100, 2000))
    manifest = ledger.freeze(2, "1.0.0", [])
    rejected = (Rejection(Kind.TYPE, "not a bigint", "order_id", counts[1]),)
    found = Findings({"accepted": counts[0], "quarantined": counts[1]}, rejected, **others)

    halting = reasons_to_halt(contract, ledger, manifest, found)

    assert (told in halting[0]) if told else not halting
    warned = warnings(contract, ledger, manifest, found)
    assert ("positions" in others and others["positions"][1] < 2000) == any("behind 2000" in text for text in warned)


def test_batches_of_one_run_are_told_together() -> None:
    one = IngestResult("s", 1, files=1, read=2, accepted=1, quarantined=1, changes={"x": 1}, extra_columns=("b",))
    two = IngestResult("s", 2, files=1, read=3, accepted=3, generated=2, changes={"x": 2}, extra_columns=("a",))

    told = together([IngestResult("s"), one, two])

    assert (told.batch_id, told.files, told.read, told.accepted, told.generated) == (2, 2, 5, 4, 2)
    assert told.changes == {"x": 3} and told.extra_columns == ("a", "b")
    assert "complete snapshot: 2 keys that it lacks are deleted" in line(told) and "x: 3" in line(told)


def every_check() -> Iterator[Check]:
    """The checks of each contract's columns in every format, and those of every record."""
    yield from check_record()
    for source in sources():
        contract = load(source)
        yield from format_of(replace(contract, format="dms")).checks()
        for column in contract.columns:
            for checks in (column_checks, delimited._column_checks):
                yield from checks(contract, column, "true")
            dated = replace(column, accepts=(), earliest="2000-01-01", latest="2100-01-01")
            yield from envelopes._column_checks(contract, dated, Encoding(has_schemas=True))


def test_a_reason_that_was_written_without_its_kind_has_the_kind_of_todays_check() -> None:
    """Given ledgers and dead letters from before there was a kind, Then each check's words give the check's kind."""
    checks = list(every_check())
    assert {check.kind for check in checks} == set(Kind) - {Kind.LAYOUT, Kind.FILE}
    assert [check for check in checks if kind_of(check.reason) is not check.kind] == []
    assert kind_of("unknown layout version 3") is Kind.LAYOUT


def test_an_earlier_ledger_is_read_and_a_later_one_says_the_same(lake: Lake) -> None:
    earlier = {"not a decimal(12,2) (total_amount)": 4, "not a commit time": 2, "not valid UTF-8": 1}
    ledger = lake.ledger("shop_orders")
    path = ledger.folder / "batch_000001.json"
    ledger.freeze(1, "1.0.0")
    path.write_text(json.dumps({**json.loads(path.read_text()), "reasons": earlier}))
    (found,) = lake.ledger("shop_orders").manifests
    assert [(each.kind, each.reason, each.column, each.records) for each in found.rejected] == [
        (Kind.TYPE, "not a decimal(12,2)", "total_amount", 4), (Kind.EVENT, "not a commit time", None, 2),
        (Kind.RECORD, "not valid UTF-8", None, 1),
    ]  # fmt: skip
    assert by_text(found.rejected) == earlier
    ledger.save(found)
    assert "reasons" not in json.loads(path.read_text()) and lake.ledger("shop_orders").manifests == [found]
