"""Watermarks and leases, with the same tests for every store."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from test_cli import lakeops

from python_ops.lake.buckets import bucket_path
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.state.dynamodb import DynamoStore
from python_ops.lake.state.files import FileStore
from python_ops.lake.state.leases import Lease, hold
from python_ops.lake.state.store import Store
from python_ops.lake.state.watermarks import Watermark, advance, read

EARLY, LATE = Watermark("2025-03-01T00:00:00Z"), Watermark("2025-03-02T00:00:00Z", "7")


def make_table(name: str = "state") -> None:
    boto3.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "record", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "record", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.fixture(params=["file", "bucket", "dynamodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "file":
        return FileStore(tmp_path / "shared")
    request.getfixturevalue("aws")
    if request.param == "bucket":
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="lake")
        return FileStore(bucket_path("s3://lake/home/state/shared"))
    make_table()
    return DynamoStore("state", "dev")


def test_a_record_is_replaced_only_from_its_last_revision(store: Store) -> None:
    assert store.get("watermark", "a/b c") is None
    first = store.put("watermark", "a/b c", {"x": 1}, 0)
    assert store.get("watermark", "a/b c") == first
    store.put("watermark", "a/b c", {"x": 2}, first.revision)
    for stale in (0, first.revision):
        with pytest.raises(BusyError, match=r"changed by another process"):
            store.put("watermark", "a/b c", {"x": 3}, stale)
        with pytest.raises(BusyError):
            store.delete("watermark", "a/b c", stale)
    store.put("lease", "other", {}, 0)
    assert (store.names("watermark"), store.get("watermark", "a/b c").value) == (["a/b c"], {"x": 2})  # type: ignore[union-attr]


def test_of_many_writers_of_one_revision_one_wins(store: Store) -> None:
    outcomes: list[str] = []

    def write(number: int) -> None:
        try:
            store.put("watermark", "w", {"writer": number}, 0)
            outcomes.append("won")
        except BusyError:
            outcomes.append("lost")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]


def test_a_record_that_was_removed_begins_anew(store: Store) -> None:
    given = store.put("watermark", "w", {"x": 1}, 0)
    store.delete("watermark", "w", given.revision)
    assert (store.get("watermark", "w"), store.names("watermark")) == (None, [])
    assert store.put("watermark", "w", {"x": 2}, 0) == store.get("watermark", "w")


def test_a_watermark_goes_forward(store: Store) -> None:
    assert read(store, "s") == (None, 0)
    advance(store, "s", LATE, 0)
    mark, revision = read(store, "s")
    assert mark == LATE
    with pytest.raises(ConfigError, match=r"2025-03-01.* is before it and would be extracted again"):
        advance(store, "s", EARLY, revision)
    assert read(store, "s") == (LATE, revision)
    advance(store, "s", EARLY, revision, force=True)
    assert read(store, "s")[0] == EARLY
    with pytest.raises(BusyError):
        advance(store, "s", LATE, revision)


def test_watermarks_sort_by_time_whatever_their_zone() -> None:
    assert Watermark("2025-03-01T01:00:00+02:00") < Watermark("2025-03-01T00:00:00Z")
    assert Watermark("2025-03-01T00:00:00Z", "10") < Watermark("2025-03-01T00:00:00.000001Z", "1")
    for wrong in ("yesterday", "2025-03-01T00:00:00"):
        with pytest.raises(ConfigError):
            Watermark(wrong)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def holder(store: Store) -> Callable[[str, Clock], Lease]:
    return lambda name, clock: Lease(store, "gold.fct_orders", name, 60, clock)


def test_a_second_holder_is_told_who_has_it(holder: Callable[..., Lease]) -> None:
    clock = Clock()
    first, second = holder("first", clock), holder("second", clock)
    first.take()
    with pytest.raises(
        BusyError, match=r"gold.fct_orders is held by first since 1970-01-12T13:46:40.*, until 1970-01-12T13:47:40"
    ):
        second.take()
    first.release()
    second.take()
    assert (first.token, second.token) == (1, 2)


def test_a_dead_holders_lease_is_taken_over_and_the_zombie_cannot_commit(holder: Callable[..., Lease]) -> None:
    """Given a holder that stopped renewing, When another takes over, Then the first one's check and renewal fail."""
    clock = Clock()
    zombie, heir = holder("zombie", clock), holder("heir", clock)
    zombie.take()
    clock.now += 30
    zombie.renew()
    clock.now += 59
    with pytest.raises(BusyError):
        heir.take()
    zombie.check()
    clock.now += 2
    with pytest.raises(BusyError, match=r"was lost; nobody holds it"):
        zombie.check()
    heir.take()
    assert heir.token == zombie.token + 1
    with pytest.raises(BusyError, match=r"was lost; heir holds it now. Nothing was committed"):
        zombie.check()
    with pytest.raises(BusyError):
        zombie.renew()
    zombie.release()
    heir.check()


@pytest.mark.slow
def test_a_lease_is_renewed_while_its_block_runs(store: Store) -> None:
    with hold(store, ["environment"], "run", ttl=0.6) as (held,):
        time.sleep(1.5)
        held.check()
        with pytest.raises(BusyError, match=r"held by `run` \(process \d+ on "), hold(store, ["environment"], "other"):
            pass
    with hold(store, ["environment"], "next", ttl=0.6) as (following,):
        assert following.token == held.token + 1


def test_a_missing_table_and_a_broken_file_are_explained(aws: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no DynamoDB table nowhere. Make it with the string key `record`"):
        DynamoStore("nowhere").get("lease", "x")
    files = FileStore(tmp_path)
    files.put("watermark", "s", {}, 0)
    (tmp_path / "watermark" / "s.json").write_text("{")
    with pytest.raises(OpsError, match=r"s\.json is not a record of state"):
        files.get("watermark", "s")
    (tmp_path / "watermark" / "s.json").write_text("")
    assert files.names("watermark") == ["s"], "a record that is damaged is not one that was removed"


@pytest.mark.parametrize("kind", ["file", "dynamodb"])
@pytest.mark.slow
def test_the_commands_plan_first(kind: str, tmp_path: Path, aws: str) -> None:
    home, given = tmp_path / "lake", {"LAKEHOUSE_STATE_STORE": kind, "LAKEHOUSE_STATE_TABLE": "state"}
    make_table()

    def run(*words: str) -> Any:
        done = lakeops(home, "watermark", *words, **given)
        return json.loads(done.stdout) if "--json" in words and done.returncode == 0 else done

    setting = ("set", "orders", "2025-03-02T00:00:00Z", "--key", "7", "--json")
    planned = run(*setting)
    assert (planned["executed"], planned["before"], run("get", "orders").returncode) == (False, None, 2)
    executed = run(*setting, "--execute")
    assert executed == {**planned, "executed": True}
    assert run("get", "orders", "--json") == {"at": "2025-03-02T00:00:00.000000+00:00", "key": "7"}
    back = run("set", "orders", "2025-03-01T00:00:00Z", "--execute")
    assert back.returncode == 2 and "--force" in back.stderr
    assert run("list", "--json")["extraction"]["orders"]["key"] == "7"
    assert "Nothing was done" in run("reset", "orders").stdout
    assert run("reset", "orders", "--execute").returncode == 0
    assert run("get", "orders").returncode == 2
