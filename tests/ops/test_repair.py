"""A ledger that was deleted, rolled back or pushed ahead by hand: the table's rows and numbers are believed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake
from test_cli import lakeops

from python_ops.jobs.ingest import has_new_files, ingest
from python_ops.jobs.ingest.batch_checks import Findings, reasons_to_halt
from python_ops.jobs.ingest.repair import Fault, compare, repair
from python_ops.jobs.ingest.tables import AppendOnlyTable
from python_ops.lake.config import Settings
from python_ops.lake.contracts import load
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.landing import LandingFile
from python_ops.lake.ledger import BatchState, Ledger
from python_ops.lake.rejections import by_text

FX = load("fx_rates")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Place:
    """A source with three batches of one file each, as ingestion leaves it."""

    def __init__(self, home: Path) -> None:
        self.home, self.lake = home, Lake(Settings(home=home))
        for batch in (1, 2, 3):
            name = f"{batch}.csv"
            (self.lake.landing / "fx_rates").mkdir(parents=True, exist_ok=True)
            (self.lake.landing / "fx_rates" / name).write_text("rate_date,currency,units_per_eur\n")
            self.append("bronze", batch, {"_file": [name] * 10})
            if batch == 3:
                self.append("dlq", batch, {"file": [name] * 2})
            self.commit(batch, name, 10, 2 if batch == 3 else 0)

    def append(self, layer: str, batch: int, columns: dict[str, list[str]]) -> None:
        (names,) = columns.values()
        at = "_arrived_at" if layer == "bronze" else "arrived_at"
        table = {**columns, "_batch_id": [batch] * len(names), at: [AT] * len(names)}
        number = Transaction(f"ingest:{layer}.fx_rates", batch)
        write_deltalake(
            str(self.lake.table_path(layer, "fx_rates")), pa.table(table), mode="append",
            commit_properties=CommitProperties(app_transactions=[number]),
        )  # fmt: skip

    def commit(self, batch: int, name: str, accepted: int, quarantined: int = 0) -> None:
        counts = {"read": accepted + quarantined, "accepted": accepted, "quarantined": quarantined, "ignored": 0}
        frozen = self.ledger.freeze(batch, FX.version, [LandingFile(name, 1, "x")])
        self.ledger.set_state(frozen, BatchState.COMMITTED, counts=counts)

    @property
    def ledger(self) -> Ledger:
        return self.lake.ledger("fx_rates")

    def lose(self, *batches: int) -> None:
        for batch in batches:
            (self.lake.state / "ingest" / "fx_rates" / f"batch_{batch:06d}.json").unlink()

    def found(self) -> list[tuple[int, Fault]]:
        return [(finding.batch_id, finding.fault) for finding in compare(self.lake, FX)]

    def run(self, *words: str) -> Any:
        return lakeops(self.home, "watermark", *words, PATH="/nowhere", JAVA_HOME="/nowhere")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "lake")


def test_ledger_and_table_agree(place: Place) -> None:
    assert place.found() == []
    assert not has_new_files(place.lake, "fx_rates")
    assert "agree" in place.run("repair").stdout


def test_a_table_with_a_widened_type_is_compared_and_repaired(place: Place) -> None:
    """Given Delta's type widening, which deltalake does not query, Then the files tell what the ledger forgot."""
    log = place.lake.table_path("bronze", "fx_rates") / "_delta_log"
    (metadata,) = [line for line in (log / f"{0:020}.json").read_text().splitlines() if "metaData" in line]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
    features = {"readerFeatures": ["typeWidening"], "writerFeatures": ["typeWidening"]}
    actions = [json.dumps({"protocol": protocol | features}), metadata]
    (log / f"{3:020}.json").write_text("\n".join(actions) + "\n")
    place.lose(2, 3)
    assert place.found() == [(2, Fault.UNKNOWN), (3, Fault.UNKNOWN)]
    repair(place.lake, FX, compare(place.lake, FX))
    assert place.found() == [] and place.ledger.manifests[1].arrived_at == AT.isoformat(timespec="microseconds")


@pytest.mark.parametrize("lost", [(2,), (2, 3), (3,), (1, 2, 3)], ids=str)
@pytest.mark.slow
def test_batches_that_the_ledger_forgot_are_entered_again(place: Place, lost: tuple[int, ...]) -> None:
    """Given deleted manifests, When repaired, Then no file is new and every count is as it was."""
    before = {m.batch_id: (m.counts, [f.name for f in m.files]) for m in place.ledger.manifests}
    place.lose(*lost)
    assert has_new_files(place.lake, "fx_rates")
    assert place.found() == [(batch, Fault.UNKNOWN) for batch in lost]
    planned = json.loads(place.run("repair", "fx_rates", "--json").stdout)
    assert [(p["batch_id"], p["executed"]) for p in planned] == [(batch, False) for batch in lost]
    assert len(place.ledger.manifests) == 3 - len(lost), "a plan changes nothing"
    done = place.run("repair", "--execute")
    assert done.returncode == 0 and done.stdout.count("entered again") == len(lost), done.stderr
    assert {m.batch_id: (m.counts, [f.name for f in m.files]) for m in place.ledger.manifests} == before
    assert {m.arrived_at for m in place.ledger.manifests if m.batch_id in lost} == {
        AT.isoformat(timespec="microseconds")
    }
    assert not has_new_files(place.lake, "fx_rates") and place.found() == []


def test_what_guards_later_batches_is_entered_again_with_them(tmp_path: Path) -> None:
    """Given tables as ingestion writes them and no ledger, Then positions, generation, deletes that a snapshot implied,
    reasons and files that were rejected whole come back, so that a database that was set back is seen as before.
    """
    lake, contract = Lake(Settings(home=tmp_path)), load("shop_orders")
    (lake.landing / "shop_orders").mkdir(parents=True)
    (lake.landing / "shop_orders" / "a.jsonl").write_text("{}\n")
    taken = AT - timedelta(hours=1)
    rows = pa.table({
        "_op": ["c", "u", "d", "r"], "_source_generation": [2, 2, 2, 3], "_source_lsn": [600, 100, 600, 5],
        "_source_ts": [taken] * 4, "_extra": ['{"x": 1}', None, None, '{"y": 1}'], "_line": [1, 2, 0, 4],
        "_file": ["a.jsonl"] * 4, "_contract_version": ["0.9.0"] * 4, "_arrived_at": [AT] * 4,
        "_batch_id": [1, 1, 1, 2],
    })  # fmt: skip
    letters = pa.table({
        "_batch_id": [1, 1, 1], "file": ["a.jsonl", "a.jsonl", "b.gz"], "line": pa.array([3, 4, None], pa.int64()),
        "reason": ["not a bigint", "not valid UTF-8", "truncated gzip"], "column": ["order_id", None, None],
        "contract_version": ["0.9.0"] * 3, "arrived_at": [AT] * 3,
        "replayed_batch": pa.array([None, 2, None], pa.int64()),
    })  # fmt: skip
    for layer, table in (("bronze", rows), ("dlq", letters)):
        write_deltalake(str(lake.table_path(layer, "shop_orders")), table)

    repair(lake, contract, compare(lake, contract))

    ledger = lake.ledger("shop_orders")
    first, second = ledger.manifests
    assert (first.positions, first.generation, second.positions, second.generation) == ((100, 600), 2, (5, 5), 3)
    assert first.counts == {"read": 4, "accepted": 2, "quarantined": 2, "ignored": 0, "generated": 1}
    assert by_text(first.rejected) == {"not a bigint (order_id)": 1, "not valid UTF-8": 1}
    assert first.snapshot_at == taken.isoformat(timespec="microseconds") and second.snapshot_at is None
    assert (first.extra_columns, first.contract_version) == (("x",), "0.9.0")
    assert [(file.name, file.fault) for file in first.files] == [("a.jsonl", None), ("b.gz", "truncated gzip")]
    assert first.replays is None and second.replays is not None, "batch 2 took a dead letter again"
    set_back = Findings({"accepted": 1, "quarantined": 0}, positions=(1, 2))
    halted = reasons_to_halt(contract, ledger, ledger.freeze(3, "1", [], generation=2), set_back)
    assert "a new slot or a restored database" in halted[0]
    assert compare(lake, contract) == []


@pytest.mark.slow
def test_a_ledger_ahead_of_its_table_is_refused_with_both_numbers(place: Place) -> None:
    place.commit(99, "never.csv", 10)
    place.append("dlq", 3, {"file": []})
    assert place.found() == [(99, Fault.AHEAD)]
    listed = next(line for line in place.run("list").stdout.splitlines() if line.startswith("fx_rates"))
    assert "ledger ahead, 99 of 3" in listed
    told = place.run("repair").stdout
    assert "batch 99 is in the ledger, and beyond what the table ever took, whose log knows numbers up to 3" in told
    repair(place.lake, FX, compare(place.lake, FX))
    assert place.ledger.manifests[-1].state is BatchState.LOST and "never.csv" not in place.ledger.taken()
    assert place.found() == []


def test_a_batch_whose_rows_are_gone_is_given_up(place: Place) -> None:
    path = str(place.lake.table_path("bronze", "fx_rates"))
    from deltalake import DeltaTable

    DeltaTable(path).restore(1)
    assert place.found() == [(3, Fault.GONE)]
    repair(place.lake, FX, compare(place.lake, FX))
    assert "3.csv" not in place.ledger.taken() and has_new_files(place.lake, "fx_rates")


def test_a_log_that_cannot_be_listed_is_no_absent_table(place: Place) -> None:
    """Taken for absent, all files would be new again, and their rows there twice."""
    log = place.lake.table_path("bronze", "fx_rates") / "_delta_log"
    log.rename(log.with_name("moved"))
    with pytest.raises(OpsError, match=r"bronze\.fx_rates has data in .* and no Delta log\. Restore the table"):
        AppendOnlyTable(place.lake, "bronze", FX).exists()
    log.write_bytes(b"")
    with pytest.raises(OpsError, match=r"The Delta log of .*fx_rates cannot be read \(Not a directory\)"):
        compare(place.lake, FX)


def test_a_garbled_log_fails_its_source_by_name_and_no_other(place: Place) -> None:
    log = place.lake.table_path("bronze", "fx_rates") / "_delta_log"
    (log / f"{1:020}.json").write_text('{"add": {"path": ')
    with pytest.raises(OpsError, match=r"The Delta log of .*fx_rates cannot be read .* restore the table"):
        has_new_files(place.lake, "fx_rates")

    def start() -> Any:
        raise OpsError("asked for Spark")

    lake = Lake(place.lake.settings, start=start)
    (garbled,) = ingest(lake, ["fx_rates"])
    assert "fx_rates cannot be read" in str(garbled.error)
    with pytest.raises(OpsError, match="asked for Spark"):  # the other source goes on
        ingest(lake, ["fx_rates", "crm_accounts"])


def test_unknown_sources_exit_2(place: Place) -> None:
    done = place.run("repair", "nope")
    assert done.returncode == 2 and "Unknown source nope" in done.stderr
