"""Verdicts on batches: real Great Expectations on real Delta tables, written here without Spark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from python_ops.cli.app import app
from python_ops.lake.config import Settings
from python_ops.lake.contracts import Contract, Contracts, parse
from python_ops.lake.contracts.metadata import METADATA
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import Batch, BatchState
from python_ops.run.daily import aftermath
from python_ops.watch import quality
from python_ops.watch.quality.pages import KEEP, make_own, prune
from python_ops.watch.quality.rules import rules
from python_ops.watch.quality.verdicts import read
from python_ops.watch.status import source_status

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONTRACT = """
source: crm_contacts
version: 1.0.0
description: People whom the tests know.
owner: data-platform
format: debezium_json
table: contacts
key: [contact_id]
columns:
  - {name: contact_id, type: string, required: true, description: Identifier.}
  - {name: email, type: string, required: true, pii: true, description: Address.}
  - {name: stage, type: string, description: Stage.}
  - {name: worth, type: "decimal(12,2)", description: Worth.}
  - {name: updated_at, type: timestamp, required: true, description: When it changed.}
expectations:
  row_count_change: 0.5
  null_share: {stage: 0.2}
  drift: {stage: 0.3, worth: 0.5}
  freshness: {column: updated_at, max_age_minutes: 60}
"""
TYPES = {
    "string": pa.string(), "int": pa.int32(), "bigint": pa.int64(), "timestamp": pa.timestamp("us", tz="UTC"),
    "decimal(12,2)": pa.decimal128(12, 2), "array<string>": pa.list_(pa.string()),
}  # fmt: skip
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

Row = dict[str, Any]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JudgedLake:
    contract = parse(CONTRACT, Path("crm_contacts.yml"))
    lake = JudgedLake(Settings(home=tmp_path), contract)
    monkeypatch.setattr("python_ops.cli.ingest.lake_of", lambda env: lake)
    return lake


class JudgedLake(Lake):
    """Bronze and ledger of one source, as ingestion leaves them."""

    def __init__(self, settings: Settings, contract: Contract) -> None:
        contracts = Contracts({contract.source: contract, "fx_rates": Contracts().load("fx_rates")})
        super().__init__(settings, contracts=contracts, start=no_spark)
        self.contract = contract
        self.batches = self.ledger(contract.source)

    def take(self, rows: list[Row]) -> Batch:
        """Commits a batch."""
        number = self.batches.last_number + 1
        columns = (*self.contract.columns, *METADATA)
        schema = pa.schema([(column.name, TYPES[column.type]) for column in columns])
        given = [{"_op": "u", "_line": i, "_batch_id": number, **row} for i, row in enumerate(rows)]
        table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in given], schema)
        if rows:
            write_deltalake(str(self.table_path("bronze", self.contract.source)), table, mode="append")
        manifest = Batch(number, self.contract.source, "1.0.0", NOW.isoformat(), ())
        counts = {"read": len(rows), "accepted": len(rows), "quarantined": 0, "ignored": 0}
        return self.batches.set_state(self.batches.save(manifest), BatchState.COMMITTED, counts=counts)

    def judge(self, **how: Any) -> quality.Verdict:
        return quality.judge(self, self.contract.source, **how)

    def everything_written(self) -> Iterator[tuple[Path, str]]:
        for path in (self.home / "quality", self.home / "state"):
            for file in path.rglob("*"):
                if file.is_file():
                    yield file, file.read_text(encoding="utf-8", errors="replace")


def no_spark() -> SparkSession:
    raise AssertionError("a small batch needs no Spark")


def people(count: int, stages: str = "lead customer", **changes: Any) -> list[Row]:
    names = stages.split()
    return [
        {
            "contact_id": f"C{i}",
            "email": f"canary-{i}@example.org",
            "stage": names[i % len(names)],
            "worth": Decimal(i % 10),
            "updated_at": NOW - timedelta(minutes=30),
            **changes,
        }
        for i in range(count)
    ]


def findings(verdict: quality.Verdict) -> list[str]:
    return [f"{finding.expected} {finding.found}" for finding in verdict.findings]


def test_a_batch_like_those_before_it_is_good(lake: JudgedLake) -> None:
    for _ in range(3):
        lake.take(people(100))
    lake.take([
        *people(90),
        {"_op": "d", "contact_id": "C1"},
        {"_op": "t"},
        {**people(1)[0], "email": None, "_unsent": ["email"]},
    ])  # fmt: skip

    verdict = lake.judge()

    assert (verdict.batch_id, verdict.rows, verdict.engine, findings(verdict)) == (4, 93, "pandas", [])
    assert verdict.good and not verdict.not_judged
    assert verdict.expectations == 11
    assert read(lake, "crm_contacts", 4) == verdict
    assert source_status(lake, "crm_contacts").last_verdict == "good"
    assert lake.judge(batch=1).not_judged == (
        "the row count: batches before it: 0, needed: 3",
        "drift of stage: batches before it: 0, needed: 3",
        "drift of worth: batches before it: 0, needed: 3",
    )


def test_each_thing_that_no_single_record_shows_is_found(lake: JudgedLake) -> None:
    for _ in range(3):
        lake.take(people(100))
    hostile = "<script>alert('{{ 7 * 7 }}')</script><img src=x onerror=alert(1)>"
    late = NOW - timedelta(hours=3)
    odd = people(30, stages=hostile, updated_at=late, worth=Decimal("1000"), contact_id=None)
    lake.take([*odd, *({**row, "stage": None, "email": None} for row in people(10, updated_at=late))])

    verdict = lake.judge()

    assert findings(verdict) == [
        "contact_id is never NULL, for it is part of the key. 30 of 40 rows",
        "email is never NULL. 10 of 40 rows",
        "At most 20.0% of stage are NULL. 25.0% are NULL",
        "The newest updated_at is at most 60 minutes older than the batch's arrival. 180 minutes",
        "Between 50 and 150 rows: the median of the last 3 batches is 100. 40",
        *(text for text in findings(verdict)[5:7] if "Kullback-Leibler divergence" in text),
    ]
    assert len(verdict.findings) == 7 and not verdict.good
    assert source_status(lake, "crm_contacts").last_verdict == "7 of 11 expectations do not hold"
    pages = {path: text for path, text in lake.everything_written() if path.suffix == ".html"}
    assert Path(verdict.page or "") in pages
    for path, text in lake.everything_written():
        assert "canary" not in text, path  # personal data
        if path.suffix == ".html":
            assert "<script" not in text and "<img" not in text, path
            assert 'src="http' not in text and '<link href="http' not in text, path
    index = pages[lake.home / "quality" / "docs" / "index.html"]
    assert "At most 20.0% of stage are NULL." in index and "validations/crm_contacts/batch%20000004/" in index


def test_a_lost_or_spoilt_row_is_found_and_a_second_look_replaces_the_first(lake: JudgedLake) -> None:
    lake.take(people(5))
    lake.take([{**people(1)[0], "_op": "x"}])
    assert "Every operation is one that the change engine knows. 1 of 1 rows" in findings(lake.judge())
    manifest = lake.batches.manifests[-1]
    lake.batches.set_state(manifest, BatchState.COMMITTED, counts={**manifest.counts, "accepted": 2})
    assert "Every accepted record is there: 2 rows. 1" in findings(lake.judge())
    assert len(list((lake.state / "quality/crm_contacts").iterdir())) == 1


def test_a_batch_without_rows_says_so_and_does_not_count_as_a_batch_before(lake: JudgedLake) -> None:
    for rows in (people(3), [], people(3), people(3)):
        lake.take(rows)
    empty = lake.judge(batch=2)
    assert (empty.engine, empty.expectations, empty.not_judged) == ("none", 0, ("the batch has no rows",))
    assert lake.judge().not_judged[0] == "the row count: batches before it: 2, needed: 3"


def test_numbers_are_compared_by_the_tenths_of_those_before(lake: JudgedLake) -> None:
    manifests = [lake.take(people(100)) for _ in range(4)]

    def ask(values: list[Any]) -> list[float]:
        found, _ = rules(lake.contract, manifests[-1], manifests[:3], lambda names: {"stage": [], "worth": values})
        return next(
            rule.arguments["partition_object"]["bins"]
            for rule in found
            if rule.arguments.get("column") == "worth" and "partition_object" in rule.arguments
        )

    assert ask([Decimal(5)] * 30) == [4.5, 5.5]
    bins = ask([Decimal(i) for i in range(101)])
    assert (bins[0], bins[-1], len(bins)) == (0.0, 100.0, 11)
    left_out = rules(lake.contract, manifests[-1], manifests[:3], lambda names: {"stage": [], "worth": []})[1]
    assert left_out == ("drift of stage: only NULLs before it", "drift of worth: only NULLs before it")


@pytest.mark.slow
def test_the_command_says_what_does_not_hold_and_exits_1(lake: JudgedLake, capsys: pytest.CaptureFixture[str]) -> None:
    lake.take(people(4))
    lake.take(people(4, updated_at=NOW - timedelta(days=9)))

    def run(*arguments: str) -> str:
        app(["ingest", "report", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    assert "batch 1: good, 8 of 8 expectations hold, 4 rows (pandas" in run("crm_contacts", "--batch", "1")
    with pytest.raises(OpsError, match="1 of 1 batches are not as expected: crm_contacts") as error:
        run()
    assert error.value.exit_code == 1
    assert "not so: The newest updated_at is at most 60 minutes older" in capsys.readouterr().out
    with pytest.raises(OpsError):
        run("crm_contacts", "--json")
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["batch_id"], told["good"], len(told["findings"])) == (2, False, 1)
    for arguments, text in (
        (("--batch", "1"), "name that source"),
        (("nope",), "Unknown source nope"),
        (("crm_contacts", "--batch", "9"), "no committed batch 9. Committed: 1, 2"),
        (("fx_rates",), "fx_rates has no committed batch. Committed: none yet"),
    ):
        with pytest.raises(ConfigError, match=text):
            run(*arguments)


def test_old_pages_go_and_pages_are_made_own_once(tmp_path: Path) -> None:
    for number in range(KEEP + 3):
        (tmp_path / f"batch {number:06d}").mkdir()
    prune(tmp_path, tmp_path / "nothing")
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert (len(kept), kept[0]) == (KEEP, "batch 000003")

    page = tmp_path / "page.html"
    page.write_text('<head><link rel="x" href="https://a.example/b.css"></head><script>x</script>kept')
    make_own([page])
    once = page.read_text()
    make_own([page])
    assert page.read_text() == once and once.endswith("</head>kept") and "a.example" not in once


def test_a_run_judges_what_it_took_where_the_environment_asks_for_it(lake: JudgedLake) -> None:
    lake.take(people(4, updated_at=NOW - timedelta(days=9)))
    told: list[str] = []

    aftermath(lake, told.append)
    assert read(lake, "crm_contacts", 1) is None
    asking = lake.with_settings(quality=True)
    aftermath(asking, told.append)
    aftermath(asking, told.append)

    assert read(lake, "crm_contacts", 1) is not None
    warned = [text for text in told if text.startswith("warning: crm_contacts, batch 1: The newest updated_at")]
    assert len(warned) == 1  # a batch is judged once


@pytest.mark.parametrize(("content", "text"), [("{", "Great Expectations failed"), ("", "Great Expectations failed")])
def test_files_that_great_expectations_cannot_read_are_named(lake: JudgedLake, content: str, text: str) -> None:
    lake.take(people(3))
    settings = quality.folder(lake) / "gx" / "great_expectations.yml"
    settings.parent.mkdir(parents=True)
    settings.write_text(content)
    with pytest.raises(OpsError, match=text):
        lake.judge()


@pytest.mark.spark
def test_spark_gives_the_same_verdict(lake: JudgedLake, spark: SparkSession) -> None:
    for _ in range(3):
        lake.take(people(100))
    lake.take([*people(30, stages="lost", updated_at=NOW - timedelta(hours=3)), {"_op": "d", "contact_id": "C1"}])

    small = lake.judge()
    on_spark = Lake(lake.settings, contracts=lake.contracts, start=lambda: spark)
    large = quality.judge(on_spark, "crm_contacts", engine=quality.Engine.SPARK)

    assert large.engine == "spark" and large.expectations == small.expectations
    assert [finding.expected for finding in large.findings] == [finding.expected for finding in small.findings]
