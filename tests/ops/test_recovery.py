"""Snapshots at the level of files: what is copied, what is shared, what a fault leaves, what is refused."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import time_machine
from deltalake import DeltaTable
from recovery_lake import FilledLake, actions, flip, ids

from python_ops.cli import main
from python_ops.jobs.recovery import create as create_module
from python_ops.jobs.recovery.create import LEASE
from python_ops.jobs.recovery.last import last
from python_ops.jobs.recovery.manifest import DRAFTS, Snapshot, drafts, identifiers, load, save
from python_ops.jobs.recovery.prune import prune
from python_ops.jobs.recovery.restore import Move, restore
from python_ops.jobs.recovery.verify import CopyProgress, verify
from python_ops.lake import metrics
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.deltalog import UnreadableLog, read_version
from python_ops.lake.erasure import keep_receipt, receipts
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.ledger import BatchState
from python_ops.lake.state.leases import lease
from python_ops.lake.state.watermarks import Watermark, advance, read
from python_ops.lake.storage import LocalFolder


@pytest.fixture
def lake(tmp_path: Path) -> FilledLake:
    return FilledLake(tmp_path).fill()


def elsewhere(lake: FilledLake, name: str = "elsewhere") -> Lake:
    return Lake(Settings(home=lake.home.parent / name))


def data_objects(snapshot: Snapshot) -> list[str]:
    return [file.object for table in snapshot.tables for file in table.files]


# --- what is copied


def test_a_snapshot_is_the_live_files_the_log_they_need_and_the_ledgers(lake: FilledLake) -> None:
    made = lake.create()
    assert [(t.name, t.version, t.rows) for t in made.tables] == [("bronze.fx_rates", 2, 9), ("gold.fct_orders", 2, 15)]
    gold = made.tables[1]
    assert [file.path.removeprefix("_delta_log/0000000000000000") for file in gold.log] == [
        "0001.checkpoint.parquet", "0001.json", "0002.json"
    ]  # fmt: skip
    assert {file.path.split("/")[0] for file in gold.files} == {"batch=b%200", "batch=b%201"}, (
        "as deltalake names them on disk"
    )
    assert [file.path for file in made.state] == [f"ingest/fx_rates/batch_00000{n}.json" for n in (1, 2, 3)]
    assert not any(Path(file.object).is_absolute() or ".." in file.object for _, file in made.files())
    assert identifiers(lake.copies) == [made.id]
    assert load(lake.copies) == made
    assert verify(lake.copies, made).faults == ()


def test_an_unchanged_lake_copies_nothing_and_a_changed_one_what_is_new(lake: FilledLake) -> None:
    first = lake.create()
    second = lake.create()
    assert (second.copied_files, second.copied_bytes, second.copied_log_bytes) == (0, 0, 0)
    lake.write("bronze.fx_rates", 900, 901)
    third = lake.create()
    new = set(data_objects(third)) - set(data_objects(first))
    assert (third.copied_files, len(new)) == (1, 1)
    assert third.copied_bytes == sum(file.bytes for _, file in third.files() if file.object in new)
    assert 0 < third.copied_log_bytes == (lake.path("bronze.fx_rates") / "_delta_log" / f"{3:020}.json").stat().st_size


def test_rows_written_anew_under_the_same_name_are_not_taken_for_the_old(lake: FilledLake) -> None:
    """Given a table that was dropped and made again, Then its snapshot has its own files and log."""
    first = lake.create()
    shutil.rmtree(lake.path("gold.fct_orders"))
    lake.write("gold.fct_orders", 500, 510)
    second = lake.create()
    assert second.tables[1].table_id != first.tables[1].table_id
    assert not set(data_objects(first)[3:]) & set(data_objects(second)[3:])
    for made, rows in ((first, 15), (second, 10)):
        home = elsewhere(lake, made.id)
        restore(lake, home, made.id, execute=True)
        assert len(ids(home.table_path("gold", "fct_orders"))) == rows


def test_tiers_choose_tables(lake: FilledLake) -> None:
    assert [table.name for table in lake.create(tier=2).tables] == ["bronze.fx_rates"]
    data = json.loads((lake.artifacts / "manifest.json").read_text())
    node = data["nodes"]["model.lakehouse.fct_orders"]
    for tier, told in ((0, None), ("high", "dr_tier must be 0, 1, 2 or 3, not 'high'")):
        node["config"]["meta"]["dr_tier"] = tier
        (lake.artifacts / "manifest.json").write_text(json.dumps(data))
        if told is None:
            assert [table.name for table in lake.create().tables] == ["bronze.fx_rates"]
        else:
            with pytest.raises(ConfigError, match=told):
                lake.create()


def test_waiting_files_and_watermarks_are_part_of_it(lake: FilledLake) -> None:
    lake.batch(4, BatchState.FROZEN)
    advance(lake.store, "snowflake_orders", Watermark("2025-03-01T00:00:00+00:00", "7"), 0)
    keep_receipt(lake, "contact_id.aa", {"at": "2025-03-01T00:00:00+00:00"})
    made = lake.create()
    assert [file.path for file in made.landing] == ["fx_rates/rates_4.csv"]
    home = elsewhere(lake)
    done = restore(lake, home, execute=True)
    assert (done.landing, done.watermarks) == (1, ("snowflake_orders",))
    given = (lake.landing / "fx_rates" / "rates_4.csv").read_bytes()
    assert (home.landing / "fx_rates" / "rates_4.csv").read_bytes() == given
    assert read(home.store, "snowflake_orders")[0] == Watermark("2025-03-01T00:00:00+00:00", "7")
    assert list(receipts(home)) == ["contact_id.aa"], "who was erased stays out of a lake that is restored elsewhere"


# --- faults while copying


def test_an_interrupted_copy_leaves_no_snapshot_and_the_next_goes_on(lake: FilledLake, tmp_path: Path) -> None:
    """Given a copy that ends at its k-th file, for every k, Then there is no snapshot; the next copies the rest."""
    total = lake.create().copied_files
    for k in range(1, 13):
        own = FilledLake(tmp_path / str(k)).fill()

        def stop(progress: CopyProgress, k: int = k) -> None:
            if progress.done == k:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            own.create(on_progress=stop)
        assert identifiers(own.copies) == []
        with pytest.raises(ConfigError, match="holds no snapshot"):
            restore(own, elsewhere(own), execute=True)
        (draft,) = drafts(own.copies)
        was_there = len(data_objects(draft))
        made = own.create()
        assert was_there >= 1 and len(data_objects(made)) == total
        assert verify(own.copies, made).faults == ()
        assert drafts(own.copies) == []


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from recovery_lake import FilledLake
{patch}
lake = FilledLake(Path({folder!r}))
{act}
"""


def killed(lake: FilledLake, act: str, patch: str = "") -> int:
    """Runs Python on the lake in a process of its own; its exit code."""
    text = KILLED.format(tests=str(Path(__file__).parent), folder=str(lake.home.parent), act=act, patch=patch)
    return subprocess.run([sys.executable, "-c", text], cwd=PROJECT_ROOT, timeout=60).returncode


@pytest.mark.parametrize("k", [1, 5, 9])
def test_a_killed_copy_leaves_no_snapshot_and_nothing_half_written_that_counts(lake: FilledLake, k: int) -> None:
    die = f"lambda progress: os.kill(os.getpid(), signal.SIGKILL) if progress.done == {k} else None"
    assert killed(lake, f"lake.create(on_progress={die})") == -signal.SIGKILL
    assert identifiers(lake.copies) == []
    (store,) = [lake.copies] if isinstance(lake.copies, LocalFolder) else []
    (store.path / "files" / "bronze").mkdir(parents=True, exist_ok=True)
    (store.path / "files" / "bronze" / "x.parquet.1234.partial").write_bytes(b"half")
    lease_file = lake.state / "shared" / "lease"
    for file in lease_file.glob("*.json"):  # its holder is dead; a minute later the lease has run out by itself
        file.unlink()
    made = lake.create()
    assert verify(lake.copies, made).faults == ()
    assert not list(store.path.rglob("*.partial"))


def test_a_full_disk_fails_the_copy_cleanly(lake: FilledLake) -> None:
    lake.write("gold.fct_orders", 100, 30_000)  # its file is larger than the limit below
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    act = """
from python_ops.lake.errors import OpsError
try:
    lake.create()
except OpsError as exc:
    sys.exit(7 if 'could not be copied' in str(exc) else 8)
"""
    assert killed(lake, act, limit) == 7
    assert identifiers(lake.copies) == []
    assert not list(lake.home.joinpath("snapshots").rglob("*.partial"))
    assert verify(lake.copies, lake.create()).faults == ()


def test_a_full_disk_fails_a_restore_cleanly(lake: FilledLake) -> None:
    lake.write("gold.fct_orders", 100, 30_000)
    lake.create()
    lake.write("gold.fct_orders", 1, 2)
    before = lake.everything()
    act = """
from python_ops.lake.errors import OpsError
from python_ops.jobs.recovery.restore import restore
try:
    restore(lake, lake, overwrite=True, execute=True)
except OpsError as exc:
    sys.exit(7 if 'could not be copied' in str(exc) else 8)
"""
    assert killed(lake, act, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))") == 7
    assert lake.everything() == before
    assert not list((lake.home / "restore").glob("*/*"))
    restore(lake, lake, overwrite=True, execute=True)


def once(act: Callable[[], None]) -> Callable[[CopyProgress], None]:
    """Calls `act` after the first copied file, and not again where the copy begins anew."""
    acts = [act]

    def tell(progress: CopyProgress) -> None:
        if acts:
            acts.pop()()

    return tell


def test_an_optimize_meanwhile_does_not_disturb_the_pinned_version(lake: FilledLake) -> None:
    before = lake.ids("gold.fct_orders")

    def optimize() -> None:
        DeltaTable(str(lake.path("gold.fct_orders"))).optimize.compact()

    made = lake.create(on_progress=once(optimize))
    assert DeltaTable(str(lake.path("gold.fct_orders"))).version() == 3
    assert made.tables[1].version == 2
    home = elsewhere(lake)
    restore(lake, home, execute=True)
    assert ids(home.table_path("gold", "fct_orders")) == before


def test_a_vacuum_meanwhile_makes_the_copy_begin_anew(lake: FilledLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given files that are removed while they are copied, Then the copy is of the newer version, whole."""

    def rewrite_and_vacuum() -> None:
        lake.write("gold.fct_orders", 700, 720, mode="overwrite")
        table = DeltaTable(str(lake.path("gold.fct_orders")))
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)

    monkeypatch.setattr(create_module, "THREADS", 1)  # the first file is of another table
    made = lake.create(on_progress=once(rewrite_and_vacuum))
    assert made.tables[1].version > 2
    assert verify(lake.copies, made).faults == ()
    home = elsewhere(lake)
    restore(lake, home, execute=True)
    assert len(ids(home.table_path("gold", "fct_orders"))) == 20


def test_a_clock_that_was_set_back_keeps_the_order_of_snapshots(lake: FilledLake) -> None:
    first = lake.create()
    with time_machine.travel(datetime(2020, 1, 1, tzinfo=UTC)):
        second, third = lake.create(), lake.create()
    assert identifiers(lake.copies) == [first.id, second.id, third.id]
    assert load(lake.copies).pinned_at == third.pinned_at and third.pinned_at.startswith("2020-01-01")


def test_a_table_that_is_written_to_without_a_pause_is_not_copied(
    lake: FilledLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from python_ops.jobs.recovery import consistent_read as pin_module

    reads = pin_module._pin_sources

    def write_meanwhile(given: Lake, pinned: pin_module.Pinned) -> None:
        lake.write("bronze.fx_rates", 1, 2)
        reads(given, pinned)

    monkeypatch.setattr(pin_module, "_pin_sources", write_meanwhile)
    monkeypatch.setattr(pin_module, "_WAIT_SECONDS", 0.0)
    with pytest.raises(OpsError, match="written to without a pause"):
        lake.create()
    assert identifiers(lake.copies) == []


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def scribble(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize(
    ("which", "harm", "told"),
    [
        ("batch=*/*.parquet", remove, r"part-.*parquet is missing"),
        ("batch=*/*.parquet", truncate, r"gold.fct_orders: batch=b%20.*parquet has \d+ bytes and the log says \d+"),
        ("batch=*/*.parquet", scribble, r"parquet is not a parquet file"),
        ("_delta_log/*2.json", scribble, r"log entry _delta_log/0+2.json is garbled"),
        ("_delta_log/*.checkpoint.parquet", scribble, r"0+1.checkpoint.parquet is garbled"),
        ("_delta_log/*.checkpoint.parquet", truncate, r"0+1.checkpoint.parquet is garbled"),
    ],
)
def test_a_damaged_table_is_named_and_not_copied(
    lake: FilledLake, which: str, harm: Callable[[Path], None], told: str
) -> None:
    harm(sorted(lake.path("gold.fct_orders").glob(which))[0])
    with pytest.raises(OpsError, match=told):
        lake.create()
    assert identifiers(lake.copies) == []


def test_a_missing_log_entry_is_named(lake: FilledLake) -> None:
    log = lake.path("bronze.fx_rates") / "_delta_log"
    (log / f"{1:020}.json").unlink()
    with pytest.raises(UnreadableLog, match=r"log entry _delta_log/0+1.json is missing, so version 2 is not known"):
        lake.create()


def test_a_shallow_clone_and_an_unknown_feature_are_refused(lake: FilledLake) -> None:
    log = lake.path("bronze.fx_rates") / "_delta_log"
    last = log / f"{2:020}.json"
    text = last.read_text()
    last.write_text(text.replace('"path":"', '"path":"file:/other/place/'))
    with pytest.raises(UnreadableLog, match="outside its folder"):
        lake.create()
    protocol = {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["catalogManaged"]}}
    last.write_text(f"{text}\n{json.dumps(protocol)}\n")
    with pytest.raises(UnreadableLog, match="has the Delta features catalogManaged"):
        lake.create()


def test_only_one_process_creates_restores_or_prunes(lake: FilledLake) -> None:
    made = lake.create()
    with lease(lake.store, LEASE, "lakeops snapshot create"):
        for act in (
            lake.create,
            lambda: prune(lake, 1),
            lambda: restore(lake, elsewhere(lake), made.id, execute=True),
        ):
            with pytest.raises(BusyError, match="snapshots is held by `lakeops snapshot create`"):
                act()
    assert len(identifiers(lake.copies)) == 1


# --- a damaged store


def test_a_flipped_bit_anywhere_is_found_before_anything_changes(lake: FilledLake) -> None:
    """Given any file of the store with one bit turned, Then verify names it and restore changes nothing."""
    made = lake.create()
    lake.write("bronze.fx_rates", 900, 905)
    before = lake.everything()
    assert isinstance(lake.copies, LocalFolder)
    for name in {file.object for _, file in made.files()}:
        path = lake.copies.path / name
        good = path.read_bytes()
        flip(path)
        faults = verify(lake.copies, made).faults
        assert len(faults) >= 1 and name in faults[0] and "sha256" in faults[0]
        with pytest.raises(OpsError, match=r"is damaged.*Nothing was restored"):
            restore(lake, lake, overwrite=True, execute=True)
        path.unlink()
        assert "is missing" in verify(lake.copies, made).faults[0]
        assert "is missing" in verify(lake.copies, made, thorough=False).faults[0]
        path.write_bytes(good)
    assert lake.everything() == before
    assert verify(lake.copies, made).faults == ()


def test_a_garbled_manifest_is_refused_everywhere(lake: FilledLake) -> None:
    made = lake.create()
    lake.create()
    assert isinstance(lake.copies, LocalFolder)
    flip(lake.copies.path / "snapshots" / f"{made.id}.json")
    for act in (
        lambda: restore(lake, elsewhere(lake), made.id, execute=True),
        lambda: prune(lake, 2, execute=True),
        lake.create,
    ):
        with pytest.raises(OpsError, match=rf"{made.id}.json .*Nothing was changed"):
            act()


def test_a_full_copy_mends_a_damaged_store(lake: FilledLake) -> None:
    made = lake.create()
    assert isinstance(lake.copies, LocalFolder)
    for _, file in made.files():
        flip(lake.copies.path / file.object)
    assert verify(lake.copies, made).faults
    again = lake.create(full=True)
    assert again.copied_files == len(data_objects(made))
    assert verify(lake.copies, made).faults == () == verify(lake.copies, again).faults


def test_a_full_copy_of_a_damaged_lake_leaves_the_earlier_snapshot_whole(lake: FilledLake) -> None:
    made = lake.create()
    table = made.tables[0]
    data = lake.table_path(table.layer, table.table) / table.files[0].path
    flip(data)
    with pytest.raises(OpsError, match=r"has other bytes .* There is no new snapshot"):
        lake.create(full=True)
    assert verify(lake.copies, made).faults == ()


# --- the way back


def test_a_plan_changes_nothing_and_says_what_it_would_do(lake: FilledLake) -> None:
    made = lake.create()
    lake.batch(4)
    before = lake.everything()
    planned = restore(lake, lake)
    assert not planned.executed and planned.snapshot == made.id
    bronze, gold = planned.tables
    assert (bronze.move, bronze.version_there, bronze.version) == (Move.OVERWRITE, 3, 2)
    assert bronze.newer == "is at version 3, the snapshot at 2"
    assert (gold.move, gold.newer) == (Move.REPLACE, None)
    assert planned.lost_batches == ("fx_rates:4",)
    with pytest.raises(ConfigError, match=r"bronze.fx_rates is at version 3, the snapshot at 2. Nothing was restored"):
        restore(lake, lake, execute=True)
    assert lake.everything() == before


def test_back_in_place_the_tables_are_as_they_were_and_their_versions_go_on(lake: FilledLake) -> None:
    before = lake.ids("bronze.fx_rates")
    table_id = DeltaTable(str(lake.path("bronze.fx_rates"))).metadata().id
    lake.create()
    for number in (4, 5):
        lake.batch(number)
    done = restore(lake, lake, overwrite=True, execute=True)
    assert lake.ids("bronze.fx_rates") == before
    table = DeltaTable(str(lake.path("bronze.fx_rates")))
    assert table.version() == 5, "above version 4, which was there: nobody takes it for a version that they have seen"
    assert table.metadata().id != table_id
    assert table.history(1)[0]["operation"] == "RESTORE"
    assert done.replaced and ids(Path(done.replaced) / "bronze.fx_rates")[-1] == 502
    assert not (lake.home / "restore").exists()
    # What was taken since is taken again, under numbers that were never used.
    assert lake.states() == {1: "committed", 2: "committed", 3: "committed", 4: "lost", 5: "lost"}
    ledger = lake.ledger("fx_rates")
    assert ledger.last_number == 5 and set(ledger.taken()) == {f"rates_{n}.csv" for n in (1, 2, 3)}


def test_a_batch_that_was_open_in_the_snapshot_is_open_again(lake: FilledLake) -> None:
    frozen = lake.batch(4, BatchState.FROZEN)
    lake.create()
    lake.ledger("fx_rates").set_state(
        frozen, BatchState.COMMITTED, counts={"read": 3, "accepted": 3, "quarantined": 0, "ignored": 0}
    )
    restore(lake, lake, overwrite=True, execute=True)
    open_batch = lake.ledger("fx_rates").open_batch
    assert open_batch is not None and (open_batch.batch_id, open_batch.files) == (4, frozen.files)


def test_one_table_alone_brings_the_ledger_of_its_source(lake: FilledLake) -> None:
    lake.create()
    lake.batch(4)
    lake.write("gold.fct_orders", 90, 95)
    restore(lake, lake, tables=["bronze.fx_rates"], overwrite=True, execute=True)
    assert lake.states()[4] == "lost"
    assert len(lake.ids("gold.fct_orders")) == 20
    restore(lake, lake, tables=["gold.fct_orders"], overwrite=True, execute=True)
    assert len(lake.ids("gold.fct_orders")) == 15
    with pytest.raises(ConfigError, match=r"has no gold.nope. It has bronze.fx_rates, gold.fct_orders"):
        restore(lake, lake, tables=["gold.nope"])


def test_a_lost_and_a_damaged_table_come_back(lake: FilledLake) -> None:
    before = {name: lake.ids(name) for name in ("bronze.fx_rates", "gold.fct_orders")}
    lake.create()
    shutil.rmtree(lake.path("gold.fct_orders"))
    scribble(lake.path("bronze.fx_rates") / "_delta_log" / f"{2:020}.json")
    done = restore(lake, lake, execute=True)
    assert [table.move for table in done.tables] == [Move.REPLACE, Move.CREATE]
    assert {name: lake.ids(name) for name in before} == before


def test_a_checkpoint_alone_is_enough_of_a_log(lake: FilledLake) -> None:
    """Given a table whose old log entries are gone, as Delta cleans them up, Then it is copied and comes back."""
    path = lake.path("gold.fct_orders")
    DeltaTable(str(path)).create_checkpoint()
    for entry in (path / "_delta_log").glob("*.json"):
        if entry.name != f"{2:020}.json":
            entry.unlink()
    (path / "_delta_log" / f"{1:020}.checkpoint.parquet").unlink()
    before = lake.ids("gold.fct_orders")
    made = lake.create()
    kept = [file.path.removeprefix("_delta_log/") for file in made.tables[1].log]
    assert kept == [f"{2:020}.checkpoint.parquet", f"{2:020}.json"]
    home = elsewhere(lake)
    restore(lake, home, execute=True)
    assert ids(home.table_path("gold", "fct_orders")) == before
    (metadata,) = [
        action["metaData"]
        for action in actions(home.table_path("gold", "fct_orders") / "_delta_log" / f"{3:020}.json")
        if "metaData" in action
    ]
    assert metadata["partitionColumns"] == ["batch"] and metadata["configuration"] == {}


def test_another_file_under_the_name_of_a_waiting_one_is_a_doubt(lake: FilledLake) -> None:
    lake.batch(4, BatchState.FROZEN)
    lake.create()
    (lake.landing / "fx_rates" / "rates_4.csv").write_text("rate_date,currency,units_per_eur\n")
    with pytest.raises(OpsError, match=r"rates_4.csv is another file .* Nothing was restored"):
        restore(lake, lake, execute=True)


def test_a_snapshot_of_another_environment_goes_to_another_home_only(lake: FilledLake) -> None:
    lake.create()
    stranger = Lake(Settings(home=lake.settings.home, target="prod"))
    with pytest.raises(ConfigError, match=r"is of environment 'local' .* this is 'prod'"):
        restore(stranger, stranger, execute=True)
    restore(stranger, elsewhere(lake), execute=True)


@pytest.mark.parametrize("swaps", [0, 1, 2])
def test_a_killed_restore_leaves_each_table_old_or_new(lake: FilledLake, swaps: int) -> None:
    """Given a restore that is killed after so many swaps, Then each table is whole, and it goes through again."""
    lake.create()
    old = {name: lake.ids(name) for name in ("bronze.fx_rates", "gold.fct_orders")}
    lake.batch(4)
    lake.write("gold.fct_orders", 90, 95)
    new = {name: lake.ids(name) for name in old}
    patch = f"""
from python_ops.jobs.recovery import restore as module
done = []
swap = module.exchange
def exchange(new, place):
    if len(done) == {swaps}:
        os.kill(os.getpid(), signal.SIGKILL)
    swap(new, place)
    done.append(place)
module.exchange = exchange
"""
    act = "module.restore(lake, lake, overwrite=True, execute=True)"
    expected = 0 if swaps == 2 else -signal.SIGKILL
    assert killed(lake, act, patch) == expected
    found = {name: lake.ids(name) for name in old}
    assert all(found[name] in (old[name], new[name]) for name in old)
    assert sum(found[name] == old[name] for name in old) == swaps
    for file in (lake.state / "shared" / "lease").glob("*.json"):
        file.unlink()
    restore(lake, lake, overwrite=True, execute=True)
    assert {name: lake.ids(name) for name in old} == old
    assert lake.states()[4] == "lost"


# --- pruning


def test_prune_plans_then_keeps_what_a_remaining_snapshot_needs(lake: FilledLake) -> None:
    first = lake.create()
    lake.write("gold.fct_orders", 700, 720, mode="overwrite")
    second = lake.create()
    planned = prune(lake, 1)
    only_first = set(data_objects(first)) - set(data_objects(second))
    assert (planned.keep, planned.remove, planned.executed) == ((second.id,), (first.id,), False)
    assert planned.files >= len(only_first) == 6
    assert identifiers(lake.copies) == [first.id, second.id]
    done = prune(lake, 1, execute=True)
    assert (done.files, done.bytes) == (planned.files, planned.bytes)
    assert identifiers(lake.copies) == [second.id]
    assert verify(lake.copies, second).faults == ()
    assert not only_first & lake.copies.names("files/").keys()
    assert prune(lake, 1, execute=True).files == 0
    with pytest.raises(ConfigError, match="At least one snapshot is kept"):
        prune(lake, 0)


def test_prune_keeps_what_an_interrupted_copy_goes_on_from_for_a_week(lake: FilledLake) -> None:
    def stop(progress: CopyProgress) -> None:
        if progress.done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lake.create(on_progress=stop)
    (draft,) = drafts(lake.copies)
    assert isinstance(lake.copies, LocalFolder)
    assert prune(lake, 1, execute=True).drafts == ()
    assert set(data_objects(draft)) <= lake.copies.names("files/").keys()
    lake.copies.remove(f"{DRAFTS}{draft.id}.json")
    save(lake.copies, replace(draft, id="20200101T000000Z-0000"), DRAFTS)
    assert prune(lake, 1, execute=True).drafts == ("20200101T000000Z-0000",)
    assert lake.copies.names("files/") == {} and drafts(lake.copies) == []


# --- reading logs


def test_multi_part_and_v2_checkpoints_are_read(lake: FilledLake) -> None:
    """Given the same version with a checkpoint in parts, and one with sidecars, Then the same files are found."""
    import pyarrow.parquet as pq

    path = lake.path("gold.fct_orders")
    log = path / "_delta_log"
    whole = log / f"{1:020}.checkpoint.parquet"
    expected = read_version(LocalFolder(path))
    rows = pq.read_table(whole)
    half = len(rows) // 2
    for part, piece in enumerate((rows.slice(0, half), rows.slice(half)), 1):
        pq.write_table(piece, log / f"{1:020}.checkpoint.{part:010}.{2:010}.parquet")
    whole.unlink()
    (log / f"{0:020}.json").unlink()
    found = read_version(LocalFolder(path))
    assert (found.files, found.rows) == (expected.files, expected.rows)
    assert sum("checkpoint" in entry for entry in found.entries) == 2
    (log / f"{1:020}.checkpoint.{2:010}.{2:010}.parquet").unlink()
    with pytest.raises(UnreadableLog, match="is missing"):
        read_version(LocalFolder(path))

    (log / "_sidecars").mkdir()
    adds = rows.filter(rows.column("add").is_valid()).select(["add"])
    pq.write_table(adds, log / "_sidecars" / "0a0a.parquet")
    others = [json.loads(json.dumps(a)) for a in actions(log / f"{1:020}.json") if "add" not in a]
    first = [{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["v2Checkpoint"],
                           "writerFeatures": ["v2Checkpoint"]}},
             {"metaData": {**expected.metadata, "configuration": {}}},
             {"sidecar": {"path": "0a0a.parquet", "sizeInBytes": 1, "modificationTime": 1}}]  # fmt: skip
    assert others
    name = f"{1:020}.checkpoint.3a0d65cd-4056-49b8-937b-95f9e3ee90e5.json"
    (log / name).write_text("".join(json.dumps(action, default=dict) + "\n" for action in first))
    found = read_version(LocalFolder(path))
    assert (found.files, found.rows) == (expected.files, expected.rows)
    assert "_delta_log/_sidecars/0a0a.parquet" in found.entries


# --- the command line


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def lakeops(lake: FilledLake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `lakeops snapshot …` on the lake, in this process: half a runbook of interpreters would take a minute."""
    monkeypatch.setenv("LAKEHOUSE_HOME", str(lake.settings.home))
    monkeypatch.setenv("LAKEHOUSE_SCHEMA_PREFIX", "")
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["lakeops", "snapshot", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        signal.signal(signal.SIGTERM, handler)
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


def test_the_commands_in_the_order_of_the_runbook(lake: FilledLake, lakeops: Command) -> None:
    """Given a lake, When a table is damaged, Then the runbook's commands say and do what it promises."""
    assert "holds no snapshot" in lakeops("list").out
    done = lakeops("create")
    assert done.code == 0 and "copied 9 data files" in done.out
    assert "on the lake's own disk; LAKEHOUSE_RECOVERY" in done.out
    made = load(lake.copies)
    assert made.id in lakeops("list").out
    (row,) = json.loads(lakeops("list", "--json").out)
    assert (row["id"], len(row["tables"]), row["bytes"]) == (made.id, 2, made.bytes)
    assert re.search(r"snapshot .* is whole: \d+ files, \d+ bytes, all checksums right", lakeops("verify").out)
    assert json.loads(lakeops("verify", made.id, "--json").out)["faults"] == []
    assert "all sizes right" in lakeops("verify", "--quick").out

    for wrong, told in ((("--scratch", str(lake.artifacts)), "exists. A drill needs a place"),
                        (("--batch", "nowhere"), "nowhere is not a folder")):  # fmt: skip
        refused = lakeops("drill", *wrong)
        assert refused.code == 2 and told in refused.err, "and no JVM was started"

    scribble(lake.path("gold.fct_orders") / "_delta_log" / f"{2:020}.json")
    planned = lakeops("restore", "--table", "gold.fct_orders")
    assert planned.code == 0 and "Nothing was done. `--execute` acts." in planned.out
    assert re.search(r"gold.fct_orders +replace", planned.out)
    done = lakeops("restore", "--table", "gold.fct_orders", "--execute")
    assert done.code == 0, done.err
    assert f"restored {made.id}" in done.out and "What was replaced is in" in done.out
    assert len(lake.ids("gold.fct_orders")) == 15

    lake.batch(4)
    planned = lakeops("restore")
    assert "newer    bronze.fx_rates is at version 3" in planned.out
    assert "taken again from landing: fx_rates:4" in planned.out
    refused = lakeops("restore", "--execute")
    assert refused.code == 2 and "is at version" in refused.err
    done = lakeops("restore", "--overwrite", "--execute", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["executed"] is True and lake.states()[4] == "lost"

    assert isinstance(lake.copies, LocalFolder)
    flip(lake.copies.path / made.tables[0].files[0].object)
    damaged = lakeops("verify")
    assert damaged.code == 1 and "is damaged: bronze.fx_rates:" in damaged.err
    assert lakeops("restore", "--overwrite", "--execute").code == 1
    assert lakeops("create", "--full").code == 0
    assert lakeops("verify", made.id).code == 0

    done = lakeops("create", "--tier", "1", "--json")
    assert [table["table"] for table in json.loads(done.out)["tables"]] == ["bronze.fx_rates"]
    planned = lakeops("prune", "--keep", "1")
    assert f"remove   snapshot {made.id}" in planned.out and len(identifiers(lake.copies)) == 3
    pruned = lakeops("prune", "--keep", "1", "--execute", "--json")
    assert json.loads(pruned.out)["executed"] is True and len(identifiers(lake.copies)) == 1
    unknown = lakeops("verify", made.id)
    assert unknown.code == 2 and f"has no snapshot {made.id}. The newest: " in unknown.err


def test_a_home_of_its_own_by_command_and_what_the_figures_and_the_lineage_say(
    lake: FilledLake, lakeops: Command
) -> None:
    lakeops("create")
    done = lakeops("restore", "--to", str(lake.home.parent / "looked_at"), "--no-catalog", "--execute")
    assert done.code == 0, done.err
    assert ids(lake.home.parent / "looked_at" / "warehouse" / "gold.db" / "fct_orders") == lake.ids("gold.fct_orders")
    made = load(lake.copies)
    figures = last(lake, "snapshot")
    assert figures is not None and (figures["id"], figures["bytes_copied"]) == (made.id, made.bytes)
    assert {m.name: m.value for m in metrics.read(lake)}["files_copied"] == 9
    events = (lake.state / "lineage" / "events.jsonl").read_text().splitlines()
    told = [event for event in map(json.loads, events) if event["job"]["name"] == "snapshot.create"]
    assert [event["eventType"] for event in told] == ["START", "COMPLETE"]
    outputs = {output["name"]: output["outputFacets"]["outputStatistics"] for output in told[-1]["outputs"]}
    assert outputs["snapshot/bronze.fx_rates"]["rowCount"] == 9
    assert outputs["snapshot/gold.fct_orders"]["size"] == sum(file.bytes for file in made.tables[1].files)
    assert "bronze.fx_rates" in {given["name"] for given in told[-1]["inputs"]}
    assert told[-1]["run"]["facets"]["parent"]["job"]["name"] == "lakeops snapshot create"


@pytest.mark.slow
def test_sigterm_ends_a_copy_at_a_safe_point(lake: FilledLake) -> None:
    """Given a copy of many files, When it gets a SIGTERM, Then there is no snapshot, and the next goes on."""
    for number in range(200):
        lake.write("bronze.fx_rates", 5000 + number, 5001 + number)
    slow = """
from python_ops.jobs.recovery import create as module
from python_ops.cli import main
module.THREADS = 1
sys.argv = ["lakeops", "snapshot", "create"]
os.environ["LAKEHOUSE_HOME"] = str(lake_folder / "lake")
main()
"""
    text = f"import os, sys\nfrom pathlib import Path\nlake_folder = Path({str(lake.home.parent)!r})\n{slow}"
    running = subprocess.Popen([sys.executable, "-c", text], cwd=PROJECT_ROOT, stderr=subprocess.PIPE, text=True)
    files = lake.home / "snapshots" / "files"
    until = time.monotonic() + 60
    while not list(files.rglob("*.parquet")) and time.monotonic() < until:
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 143 and "was interrupted" in told
    assert identifiers(lake.copies) == [] and len(drafts(lake.copies)) == 1
    made = lake.create()
    assert made.copied_files < len(data_objects(made)) == 209, "what the interrupted copy had done is shared"


def test_every_command_of_the_runbook_is_tried_here_or_in_the_drill() -> None:
    """What the tests above and the drill of tests/e2e run; a new line of the runbook belongs in one of them."""
    text = (PROJECT_ROOT / "docs" / "runbooks" / "dr_restore.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(lakeops snapshot [^`]+)`", text)) == {
        "lakeops snapshot list",
        "lakeops snapshot verify",
        "lakeops snapshot verify <id>",
        "lakeops snapshot restore --table gold.fct_orders",
        "lakeops snapshot restore",
        "lakeops snapshot restore --overwrite --execute",
        "lakeops snapshot restore --execute",
        "lakeops snapshot restore --to looked_at --execute",
        "lakeops snapshot create",
        "lakeops snapshot create --full",
        "lakeops snapshot create --tier 1",
        "lakeops snapshot drill --batch next_batch",
        "lakeops snapshot prune --keep 14 --execute",
    }
