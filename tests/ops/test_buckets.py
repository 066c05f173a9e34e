"""A home in a bucket: what is kept there, by the code that keeps it in a folder, and two machines that share it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import programs
import pytest
import requests
from extraction import landed, mark
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from python_ops.lake import buckets, files, home, jars, landing, metrics, refused, storage
from python_ops.lake.buckets import bucket_path
from python_ops.lake.config import Settings
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.landing import LandingFile
from python_ops.lake.ledger import BatchState
from python_ops.lake.local_copy import LocalCopy, artifacts_kept
from python_ops.lake.lock import exclusive
from python_ops.lake.run_record import last_run, save_run
from python_ops.lake.state.leases import hold
from python_ops.watch.alerts.acknowledged import acknowledge, acknowledged
from python_ops.watch.finding import Check, Outcome
from python_ops.watch.services import to_check

HOME = "s3://lake/prod"


@pytest.fixture
def s3(aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("LAKEHOUSE_HOME", HOME)
    monkeypatch.setenv("LAKEHOUSE_WORKSPACE", str(tmp_path / "workspace"))
    client = boto3.client("s3")
    client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return client


def lake_in_bucket(**given: Any) -> Lake:
    return Lake(Settings(home=Path(HOME), **given))


def keys(s3: Any) -> list[str]:
    return [item["Key"].removeprefix("prod/") for item in s3.list_objects_v2(Bucket="lake").get("Contents", ())]


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_names_of_the_landing_are_the_same_in_both(kind: str, s3: Any, tmp_path: Path) -> None:
    """Given files, unfinished ones and folders, Then those are taken that a folder gives, in the order of names."""
    folder = (Path(tmp_path) if kind == "folder" else bucket_path(HOME)) / "landing" / "shop_orders"
    if kind == "bucket":  # as S3A and AWS's console write an empty folder
        s3.put_object(Bucket="lake", Key="prod/landing/shop_orders/")
    assert landing.names(folder) == [] == list(files.files_under(folder))
    for name in ("b.csv", "a.csv", "é #%20.csv", "_a.csv", ".a.csv.tmp", "c.tmp", "a.csv.snapshot", "inside/x.csv"):
        files.write_whole(folder / name, name)
    assert landing.names(folder) == ["a.csv", "b.csv", "é #%20.csv"]
    (told,) = landing.left_outside(folder)
    assert told.startswith(f"{folder}/inside is not taken: files in folders are not")
    assert (folder / "é #%20.csv").read_text() == "é #%20.csv"
    taken = LandingFile("a.csv", 5, landing.sha256(folder / "a.csv"))
    known = {"a.csv": taken, "gone.csv": taken}
    assert landing.replaced(folder, known, dict.fromkeys(known, 0.0)) == []
    files.write_whole(folder / "a.csv", "other")
    assert landing.replaced(folder, known, dict.fromkeys(known, time.time() + 5)) == [], "written before it was taken"
    assert landing.replaced(folder, known, dict.fromkeys(known, 0.0)) == ["a.csv"]


def test_names_are_listed_and_no_object_is_asked_for_by_itself(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more names than one answer holds, Then all of them are found."""
    folder = bucket_path(HOME) / "landing" / "shop_orders"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: buckets.write(folder / f"{n:05d}.csv", b"x"), range(1100)))
    monkeypatch.setattr(type(folder), "stat", lambda self: pytest.fail("an object was asked for"))
    assert landing.names(folder) == [f"{n:05d}.csv" for n in range(1100)]


def test_a_manifest_that_another_wrote_is_not_overwritten(s3: Any) -> None:
    """Given two machines that read a ledger, When both freeze or close a batch, Then the second is refused."""
    first, second = lake_in_bucket().ledger("fx_rates"), lake_in_bucket().ledger("fx_rates")
    batch = first.freeze(1, "1.0.0", [LandingFile("a.csv", 1, "00")])
    with pytest.raises(BusyError, match=r"s3://lake/prod/state/ingest/fx_rates/batch_000001.json was changed by anoth"):
        second.freeze(1, "1.0.0", [LandingFile("b.csv", 1, "00")])
    assert second.manifests == []
    heir = lake_in_bucket().ledger("fx_rates")
    done = heir.set_state(heir.open_batch, BatchState.COMMITTED, counts={"accepted": 1})  # type: ignore[arg-type]
    with pytest.raises(BusyError):
        first.set_state(batch, BatchState.LOST)
    heir.freeze(2, "1.0.0")
    heir.set_state(done, BatchState.LOST)
    found = lake_in_bucket().ledger("fx_rates")
    assert [(m.batch_id, m.state) for m in found.manifests] == [(1, BatchState.LOST), (2, BatchState.FROZEN)]


def test_records_and_logs_are_kept_as_in_a_folder(s3: Any) -> None:
    """Given a run's record, alerts, figures and refused messages of one machine, Then another one reads them."""
    writer, reader, now = lake_in_bucket(), lake_in_bucket(), datetime(2026, 1, 1, tzinfo=UTC)
    assert (last_run(reader), metrics.read(reader), refused.told(reader), acknowledged(reader, now)) == (
        None, [], [], {},
    )  # fmt: skip
    save_run(writer, {"command": "run"})
    figures = [metrics.Metric("run_seconds", "job", "run", n, "2026-01-01", "r") for n in (1.0, 2.0)]
    for figure in figures:
        metrics.record(writer, [figure])
    refused.keep(writer, "slack", "invalid_blocks", {"text": "x"})
    acknowledge(writer, ["freshness: gold.fct_orders"], "gold.fct_orders", "2026-01-02T00:00:00Z", now)
    assert (last_run(reader), metrics.read(reader)) == ({"command": "run"}, figures)
    assert "They are in s3://lake/prod/state/refused/slack.jsonl" in refused.told(reader)[0]
    assert list(acknowledged(reader, now)) == ["freshness: gold.fct_orders"]


def test_no_line_of_a_shared_log_is_lost_and_a_full_one_makes_room(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = bucket_path(HOME) / "state" / "events.jsonl"
    threads = [threading.Thread(target=files.append_lines, args=(log, [f"{n}"])) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(log.read_text().split()) == list("012345")
    monkeypatch.setattr(files, "_KEEP_BYTES_OF_OBJECT", 10)
    files.append_lines(log, ["6"])
    assert (log.read_text(), len(files.before(log).read_text().split())) == ("6\n", 6)


def test_a_home_in_a_bucket_belongs_to_whom_was_first(s3: Any) -> None:
    dev, prod = lake_in_bucket(target="dev"), lake_in_bucket(target="prod")
    assert not home.require(dev.settings)
    held = pytest.raises(BusyError, match=r"environment is held by `lakeops x`")
    with exclusive(dev, "x", names=()), held, hold(dev.store, ["environment"], "y"):
        pass
    home.claim(dev.settings)
    for refused_ in (home.require, home.claim):
        with pytest.raises(ConfigError, match=r"s3://lake/prod is the home of environment dev, and this is prod"):
            refused_(prod.settings)
    s3.copy_object(Bucket="lake", Key="copy/home.json", CopySource="lake/prod/home.json")
    with pytest.raises(ConfigError, match=r"The lake in s3://lake/copy is registered at s3://lake/prod"):
        home.require(Settings(home=Path("s3a://lake/copy"), target="dev"))


def test_an_answer_that_got_lost_is_no_rival(
    s3: Any, aws: str, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a network that loses the answer to a write, When that is tried again, Then its writer is no rival."""
    tries: list[int] = []

    def forward(request: Request) -> Response:
        headers = {name: text for name, text in request.headers if name != "Host"}
        given = requests.request(request.method, aws + request.full_path, data=request.get_data(), headers=headers)
        if request.method == "PUT":
            tries.append(given.status_code)
        lost = tries == [200] and request.method == "PUT"
        return Response(given.content, 500 if lost else given.status_code, dict(given.headers))

    httpserver.expect_request(re.compile(".*")).respond_with_handler(forward)
    monkeypatch.setenv("AWS_ENDPOINT_URL", httpserver.url_for("").rstrip("/"))
    first = lake_in_bucket().store.put("watermark", "s", {"writer": 1}, 0)
    assert tries == [200, 412]
    assert lake_in_bucket().store.get("watermark", "s") == first
    lake_in_bucket().store.put("watermark", "s", {"writer": 2}, first.revision)
    with pytest.raises(BusyError):
        lake_in_bucket().store.put("watermark", "s", {"writer": 3}, first.revision)


def test_of_many_that_claim_a_home_one_wins(s3: Any) -> None:
    def claim(number: int) -> bool:
        try:
            home.claim(Settings(home=Path(HOME), target=f"env{number}"))
            return True
        except ConfigError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(claim, range(8))) == [False] * 7 + [True]


def test_a_bucket_that_is_missing_or_silent_is_named(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for ask in (lambda lake: lake.ledger("fx_rates"), last_run, lambda lake: save_run(lake, {}), _watermark):
        with pytest.raises(ConfigError, match=r"There is no bucket nowhere. Make it, or set LAKEHOUSE_HOME"):
            ask(Lake(Settings(home=Path("s3://nowhere/x"))))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(buckets, "RETRY_SECONDS", 1)
    with pytest.raises(OpsError, match=r"S3 did not answer for s3://silent/x/state/shared/watermark/s.json"):
        _watermark(Lake(Settings(home=Path("s3://silent/x"))))


def _watermark(lake: Lake) -> None:
    lake.store.put("watermark", "s", {}, 0)


class Machine:
    """A machine of its own: its folders are empty, and gone with it."""

    def __init__(self, folder: Path, rates: Path) -> None:
        self.folder, self.rates = folder, rates
        for name in ("tmp", "home"):
            (folder / name).mkdir(parents=True)

    def lakeops(self, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ, "TMPDIR": str(self.folder / "tmp"), "HOME": str(self.folder / "home"),
            "JAVA_HOME": "/nowhere", "LAKEHOUSE_SCHEMA_PREFIX": "",
            "LAKEHOUSE_WORKSPACE": str(self.folder / "workspace"),
            "LAKEHOUSE_SECRET_FX_RATES": json.dumps({"url": self.rates.as_uri()}), **given,
        }  # fmt: skip
        return programs.run(("lakeops", *words), environment, self.folder)

    def extract(self) -> dict[str, Any]:
        done = self.lakeops("extract", "run", "fx_rates", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        (result,) = json.loads(done.stdout)
        return dict(result)

    def written(self) -> list[str]:
        """What is left here, but for the lock of the workspace."""
        left = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        return sorted(left - {"workspace/state/lock.json"})


def deliver(rates: Path, *days: str) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("eurofxref-hist.csv", "Date,USD,JPY,\n" + "".join(f"{day},1.03,160.2,\n" for day in days))
    rates.write_bytes(content.getvalue())


@pytest.mark.slow
def test_another_machine_goes_on_where_one_stopped(s3: Any, tmp_path: Path) -> None:
    """Given a machine that extracted and is gone, When another one runs, Then it takes only what came since."""
    rates = tmp_path / "rates.zip"
    first, second = Machine(tmp_path / "first", rates), Machine(tmp_path / "second", rates)
    deliver(rates, "2025-01-02")
    assert first.extract()["rows"] == 2
    assert first.written() == []
    deliver(rates, "2025-01-03", "2025-01-02")
    result = second.extract()
    assert (result["rows"], result["again"], result["watermark"][0][:10]) == (2, 2, "2025-01-03")
    assert first.extract()["rows"] == 0 == second.extract()["rows"]
    assert [row["rate_date"] for row in landed(lake_in_bucket(), "fx_rates")] == ["2025-01-02"] * 2 + ["2025-01-03"] * 2
    assert {"home.json", "state/shared/watermark/fx_rates.json", "state/extract/fx_rates/last.json"} <= set(keys(s3))
    got = second.lakeops("watermark", "get", "fx_rates", "--json")
    assert json.loads(got.stdout)["at"] == "2025-01-03T00:00:00.000000+00:00"
    status = json.loads(first.lakeops("extract", "status", "--json").stdout)
    assert [s["rows"] for s in status if s["source"] == "fx_rates"] == [0]
    assert first.written() == second.written() == []


KILLED = """
import os, signal, sys
from python_ops.jobs.extract import {module}
{module}.{name} = lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL)
from python_ops.cli import main
sys.argv = ["lakeops", "extract", "run", "fx_rates"]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), [("pull", "advance"), ("files", "settle")], ids=["landed", "unfinished"])
def test_a_machine_is_replaced_in_the_middle(s3: Any, tmp_path: Path, module: str, name: str) -> None:
    """Given a machine that died before the file or before the watermark, Then its heir lands every row once."""
    rates = tmp_path / "rates.zip"
    first, heir = Machine(tmp_path / "first", rates), Machine(tmp_path / "heir", rates)
    deliver(rates, "2025-01-02")
    environment = {
        **os.environ, "TMPDIR": str(first.folder / "tmp"), "LAKEHOUSE_LEASE_SECONDS": "0.5",
        "LAKEHOUSE_SECRET_FX_RATES": json.dumps({"url": rates.as_uri()}), "LAKEHOUSE_SCHEMA_PREFIX": "",
    }  # fmt: skip
    dead = subprocess.run(
        [sys.executable, "-c", KILLED.format(module=module, name=name)],
        env=environment,
        capture_output=True,
        timeout=60,
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
    assert mark(lake_in_bucket(), "fx_rates") is None
    assert heir.extract()["rows"] == (0 if name == "advance" else 2)
    assert [row["rate_date"] for row in landed(lake_in_bucket(), "fx_rates")] == ["2025-01-02"] * 2
    assert str(mark(lake_in_bucket(), "fx_rates").at).startswith("2025-01-02")  # type: ignore[union-attr]


def test_a_copy_of_this_machine_is_sent_back_only_over_what_it_was_made_from(s3: Any, tmp_path: Path) -> None:
    """Given two machines with a copy of one file, When both change it, Then the second is refused and takes the
    other's; and what a machine changed before it died counts for nothing."""
    original = bucket_path(f"{HOME}/published/lakehouse.duckdb")
    here, there = (LocalCopy(original, tmp_path / name / "lakehouse.duckdb") for name in ("here", "there"))
    assert not here.fetch(), "there is nothing to fetch"
    files.write_whole(here.copy, "1")
    here.send(here.forget())
    assert there.fetch() and not there.fetch() and there.copy.read_bytes() == b"1"
    for machine, content in ((here, "2"), (there, "3")):
        tag = machine.forget()
        files.write_whole(machine.copy, content)
        if machine is here:
            machine.send(tag)
        else:
            with pytest.raises(BusyError):
                machine.send(tag)
    assert there.fetch() and there.copy.read_bytes() == b"2"
    here.forget()
    files.write_whole(here.copy, "died here")
    assert here.fetch() and here.copy.read_bytes() == b"2"
    original.unlink()
    assert here.fetch() and not here.copy.exists()


def test_artifacts_of_one_machine_are_read_on_another(s3: Any, tmp_path: Path) -> None:
    """Given a dbt command that failed on one machine, Then its artifacts are another's, as one set, and nothing of an
    older set stays; a command that writes none sends none."""
    first, second = (lake_in_bucket(workspace=str(tmp_path / name)) for name in ("first", "second"))
    for number, compiled in ((1, "compiled/lakehouse/old.sql"), (2, "compiled/lakehouse/m.sql")):
        shutil.rmtree(first.artifacts / "compiled", ignore_errors=True)
        with suppress(ZeroDivisionError), artifacts_kept(first.kept_artifacts, first.artifacts):
            for name in ("manifest.json", "run_results.json", compiled):
                files.write_whole(first.artifacts / name, f"{number}")
            files.write_whole(first.artifacts / "partial_parse.msgpack", "x")
            if number == 1:
                _ = 1 / 0
        machine = lake_in_bucket(workspace=str(tmp_path / "second"))
        assert (machine.artifacts / "run_results.json").read_text() == f"{number}"
    assert (second.artifacts / "compiled" / "lakehouse" / "m.sql").read_text() == "2"
    assert sorted(path.name for path in second.artifacts.rglob("*") if path.is_file()) == [
        "artifacts.tar.gz", "artifacts.tar.gz.tag", "m.sql", "manifest.json", "run_results.json",
    ]  # fmt: skip
    before = s3.head_object(Bucket="lake", Key="prod/target/artifacts.tar.gz")["LastModified"]
    with artifacts_kept(second.kept_artifacts, second.artifacts):
        pass
    assert s3.head_object(Bucket="lake", Key="prod/target/artifacts.tar.gz")["LastModified"] == before
    assert [key for key in keys(s3) if key.startswith("target/")] == ["target/artifacts.tar.gz"]


def test_folders_are_moved_fetched_and_cleared(s3: Any, tmp_path: Path) -> None:
    here = bucket_path(f"{HOME}/warehouse/silver.db/t")
    for name in ("a.parquet", "_delta_log/0.json"):
        files.write_whole(here / name, name)
    files.write_whole(bucket_path(f"{HOME}/warehouse/silver.db/t2/a.parquet"), "another table")
    storage.move(here, bucket_path(f"{HOME}/state/unfinished/t"))
    assert keys(s3) == [
        "state/unfinished/t/_delta_log/0.json", "state/unfinished/t/a.parquet", "warehouse/silver.db/t2/a.parquet",
    ]  # fmt: skip
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "old").write_text("x")
    copy = storage.fetch(bucket_path(f"{HOME}/state/unfinished/t"), tmp_path / "t")
    assert sorted(files.files_under(copy)) == ["_delta_log/0.json", "a.parquet"]
    storage.clear(bucket_path(f"{HOME}/state/unfinished/t"))
    assert keys(s3) == ["warehouse/silver.db/t2/a.parquet"]


def test_files_in_dated_folders_that_were_replaced_are_found(s3: Any) -> None:
    folder = bucket_path(HOME) / "landing" / "shop_orders"
    files.write_whole(folder / "2025/03/04/a.csv", "first")
    taken = {"2025/03/04/a.csv": LandingFile("2025/03/04/a.csv", 5, landing.sha256(folder / "2025/03/04/a.csv"))}
    assert landing.replaced(folder, taken, dict.fromkeys(taken, 0.0)) == []
    files.write_whole(folder / "2025/03/04/a.csv", "longer than the first")
    assert landing.replaced(folder, taken, dict.fromkeys(taken, time.time() + 60)) == ["2025/03/04/a.csv"]


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no variable and no role, Then the message says what to set. The service that gives roles is not here."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setattr(buckets, "RETRY_SECONDS", 1)
    with pytest.raises(ConfigError, match=r"no credentials for s3://bucket-of-nobody/x\. Set AWS_ACCESS_KEY_ID"):
        buckets.read(bucket_path("s3://bucket-of-nobody/x"))


def test_a_home_in_a_bucket_is_refused_without_the_log_store(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no jar of the log store, Then Spark is not started and nothing is written, and doctor says so."""
    monkeypatch.setattr(jars, "FOLDER", Path("/nowhere"))
    monkeypatch.setattr(jars.log_store, "__defaults__", (Path("/nowhere"),))
    lake = lake_in_bucket()
    with pytest.raises(ConfigError, match=r"needs Delta's log store for it, and /nowhere/.* Run `make logstore`"):
        _ = lake.spark
    assert keys(s3) == []
    with pytest.raises(ConfigError, match="whose client only EMR's Spark has"):
        _ = Lake(Settings(home=Path("/nowhere"), metastore="glue")).spark
    checks = dict(to_check(lake))
    with pytest.raises(ConfigError, match="needs Delta's log store"):
        checks["spark's needs"]()
    told = dict(to_check(lake_in_bucket(metastore="thrift://127.0.0.1:1,thrift://localhost:2")))["metastore"]()
    assert isinstance(told, Check) and told.outcome is Outcome.FAIL
    assert "thrift://127.0.0.1:1 does not answer" in told.found and "thrift://localhost:2 does not" in told.found
