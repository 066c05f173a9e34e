"""Extraction as a whole: what a kill leaves, two at once, many sources, configuration, and the commands."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from extraction import contract, failed, lake_with, landed, mark, pull, source, use, versions
from test_cli import lakeops
from test_state import make_table

from python_ops.jobs.extract import extract, status
from python_ops.jobs.extract.pull_state import PullState
from python_ops.jobs.extract.sources import Source, parse, sources
from python_ops.jobs.ingest.inspection import inspect
from python_ops.lake import landing
from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.errors import BusyError, ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.state.leases import lease
from python_ops.lake.state.watermarks import Watermark, read

DAY_ONE = "Date,USD,JPY,\n2025-01-02,1.0321,162.3,\n"
DAY_TWO = "Date,USD,JPY,\n2025-01-03,1.0299,161.99,\n2025-01-02,1.0321,162.3,\n"

# Runs a pull of `tickets` in a process that kills itself where a function is called for the n-th time.
KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import extraction
from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake
from python_ops.jobs.extract import extract, files, pull_state, pull, sources

entry = extraction.source("postgres", relation="kill.tickets", page_rows=2, file_rows=2)
sources.sources = lambda: {{"tickets": entry}}
left = [{times}]
real = {where[0]}.{where[1]}

def kill(*given, **options):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **options)

{where[0]}.{where[1]} = kill
extract(Lake(Settings(home=Path({home!r}))), ["tickets"])
"""


@pytest.fixture
def table(postgres: str) -> psycopg.Connection[Any]:
    """Six tickets in PostgreSQL."""
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("drop schema if exists kill cascade")
        admin.execute("create schema kill")
        admin.execute(
            "create table kill.tickets as select n as ticket_id, 'help' as subject, 1.5 as hours, true as is_open,"
            " date '2026-01-01' as due_date, timestamp '2026-01-01 00:00' + n * interval '1 minute' as updated_at"
            " from generate_series(1, 6) n"
        )
        yield admin
        admin.execute("drop schema kill cascade")


@pytest.fixture
def lake(postgres: str, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    use(monkeypatch, source("postgres", relation="kill.tickets", page_rows=2, file_rows=2))
    parts = psycopg.conninfo.conninfo_to_dict(postgres)
    return lake_with(tmp_path / "lake", tickets={**parts, "port": int(str(parts["port"]))})


@pytest.mark.parametrize(
    ("where", "times", "at_most"),
    [
        (("files.LandingDraft", "write"), 0, 1),
        (("files.LandingDraft", "finish"), 1, 1),
        (("pull_state.PullState", "remember"), 1, 2),  # the file is there and its manifest is not: its rows land again
        (("pull_state.PullState", "save"), 2, 2),  # called twice for each file
        (("pull", "advance"), 1, 1),
        (("pull_state.PullState", "close"), 1, 1),
    ],
)
def test_a_kill_at_any_step_loses_nothing(lake: Lake, where: tuple[str, str], times: int, at_most: int) -> None:
    """Given a pull of three files, When it is killed at a step, Then after the next run every state of every row is
    there, at most twice: the engine drops what came twice."""
    script = KILLED.format(where=where, times=times, home=str(lake.home), tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = landing.names(lake.landing / "tickets")
    result = pull(lake)
    assert set(versions(lake)) == {(str(n), f"2026-01-01T00:0{n}:00Z") for n in range(1, 7)}
    assert max(versions(lake).values()) <= at_most
    assert mark(lake) == Watermark("2026-01-01T00:06:00Z", "6")
    assert not list(lake.landing.rglob("*.tmp"))
    assert set(before) <= set(landing.names(lake.landing / "tickets")), "a file that was delivered is never replaced"
    assert any("unfinished" in warning for warning in result.warnings) == (where[0] == "files.LandingDraft")
    manifests = [json.loads(path.read_text()) for path in PullState(lake.state / "extract", "tickets").manifests()]
    assert all(m["done"] for m in manifests)
    assert pull(lake).rows == 0


def test_a_manifest_whose_file_is_gone_moves_no_watermark(lake: Lake) -> None:
    """Given a run that died before it saved the watermark, When its file is lost too, Then its rows are read again."""
    script = KILLED.format(where=("pull", "advance"), times=0, home=str(lake.home), tests=str(Path(__file__).parent))
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, timeout=60)
    (file,) = (lake.landing / "tickets").iterdir()
    file.unlink()
    assert pull(lake).rows == 6 and len(versions(lake)) == 6


def test_a_draft_is_invisible_and_cleaned(lake: Lake) -> None:
    folder = lake.landing / "tickets"
    folder.mkdir(parents=True)
    (folder / ".tickets_000001_20260101T000000Z.csv.gz.tmp").write_bytes(b"half")
    (folder / ".tickets_of_another.tmp").write_bytes(b"of another source or program")
    assert landing.names(folder) == []
    assert "1 unfinished files of an interrupted run" in pull(lake).warnings[0]
    assert [path.name for path in folder.glob(".*")] == [".tickets_of_another.tmp"]


def test_numbers_go_on_although_files_and_journal_are_gone(lake: Lake, table: Any) -> None:
    """Given files that were archived, When the record of pulls is lost, Then no name that was taken is used again."""

    pull(lake)
    folder = lake.landing / "tickets"
    names = landing.names(folder)
    taken = [inspect(folder, name, contract()) for name in names]
    lake.ledger("tickets").freeze(1, "1.0.0", taken)
    for name in names:
        (folder / name).unlink()
    shutil.rmtree(lake.state / "extract")
    table.execute("update kill.tickets set updated_at = '2026-01-02' where ticket_id = 1")
    pull(lake)
    assert names[-1].startswith("tickets_000003_")
    assert min(landing.names(folder)) > names[-1]


def test_one_source_is_extracted_by_one_process(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with lease(lake.store, "extract.tickets", "lakeops extract run"):
        (result,) = extract(lake, ["tickets"])
    assert isinstance(result.error, BusyError) and "extract.tickets is held by" in str(result.error)
    assert pull(lake).rows == 6


def test_a_zombie_lands_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a process that lost its lease while it read, When it would make its file visible, Then it stops."""
    from python_ops.jobs.extract.database import DatabaseReader

    real = DatabaseReader.pages

    def slow(reader: Any, *given: Any) -> Any:
        store = lake.store
        for page in real(reader, *given):
            record = store.get("lease", "extract.tickets")
            assert record is not None
            store.put("lease", "extract.tickets", {**record.value, "holder": "another", "token": 9}, record.revision)
            yield page

    monkeypatch.setattr(DatabaseReader, "pages", slow)
    (result,) = extract(lake, ["tickets"])
    assert isinstance(result.error, BusyError) and "The lease of extract.tickets was lost" in str(result.error)
    assert landing.names(lake.landing / "tickets") == [] and mark(lake) is None


def test_a_rival_that_moves_the_watermark_costs_duplicates_only(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    real = PullState.save

    def save(pull_state: PullState, manifest: Any) -> Any:
        if not manifest.done:
            record = lake.store.get("watermark", "tickets")
            lake.store.put(
                "watermark",
                "tickets",
                {"at": "2026-01-01T00:01:00+00:00", "key": "1"},
                record.revision if record else 0,
            )
        return real(pull_state, manifest)

    monkeypatch.setattr(PullState, "save", save)
    (result,) = extract(lake, ["tickets"])
    assert isinstance(result.error, BusyError) and "changed by another process" in str(result.error)
    monkeypatch.setattr(PullState, "save", real)
    pull(lake)
    assert len(versions(lake)) == 6


def test_a_full_disk_fails_its_source_alone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from python_ops.jobs.extract import files

    def full(draft: Any, rows: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.LandingDraft, "write", full)
    message = failed(lake)
    assert "cannot be written (No space left on device)" in message
    assert not list(lake.landing.rglob("*.tmp")) and mark(lake) is None


def test_what_nobody_foresaw_fails_its_source_alone_and_shows_no_value(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from python_ops.jobs.extract import files

    def stumble(draft: Any, rows: Any) -> None:
        raise KeyError("anna@x.example")

    monkeypatch.setattr(files.LandingDraft, "write", stumble)
    message = failed(lake)
    assert message.startswith("tickets: unexpected KeyError (test_extract.py, line ") and "anna" not in message
    assert not list(lake.landing.rglob("*.tmp")) and mark(lake) is None


def test_a_source_that_fails_does_not_stop_the_others(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(sources()["redshift_behavior"], timeout_seconds=1)
    use(monkeypatch, source("postgres", relation="kill.tickets"), broken)
    seen = []
    results = extract(lake, ["redshift_behavior", "tickets"], seen.append)
    assert [(r.source, bool(r.error), r.rows) for r in results] == [
        ("redshift_behavior", True, 0), ("tickets", False, 6),
    ]  # fmt: skip
    assert seen == results
    assert isinstance(results[0].error, ConfigError) and "Secret redshift_behavior is not set" in str(results[0].error)
    (first, second) = status(lake)
    assert (first.rows, first.error, first.unfinished) == (6, None, False)
    assert second.error and second.at is None


def test_lineage_and_figures_say_what_landed(lake: Lake) -> None:
    pull(lake)
    events = [json.loads(line) for line in (lake.state / "lineage" / "events.jsonl").read_text().splitlines()]
    assert [(e["job"]["name"], e["eventType"]) for e in events] == [
        ("extract.tickets", "START"), ("extract.tickets", "COMPLETE"),
    ]  # fmt: skip
    (made,) = events[-1]["outputs"]
    size = sum(path.stat().st_size for path in (lake.landing / "tickets").iterdir())
    assert made["name"] == "landing/tickets"
    assert made["outputFacets"]["outputStatistics"] == {
        **made["outputFacets"]["outputStatistics"],
        "rowCount": 6,
        "size": size,
    }
    figures = PullState(lake.state / "extract", "tickets").figures(datetime(2026, 1, 1, 1, tzinfo=UTC))
    assert figures == {
        "rows_extracted": 6, "bytes_extracted": size, "extract_failed": 0, "extract_lag_seconds": 54 * 60.0,
    }  # fmt: skip
    assert "canary" not in (lake.state / "lineage" / "events.jsonl").read_text()


def test_watermarks_in_dynamodb(aws: str, lake: Lake) -> None:
    """Given the state store of production, When a source is pulled, Then it behaves as with files."""
    make_table()
    given = lake.with_settings(state_store="dynamodb", state_table="state")
    assert pull(given).rows == 6 and pull(given).rows == 0
    assert mark(given) == Watermark("2026-01-01T00:06:00Z", "6")
    assert read(lake.store, "tickets") == (None, 0)
    assert boto3.client("dynamodb").scan(TableName="state")["Count"] == 2, "the watermark and the lease"


GOOD = "fx_rates: {system: fx, watermark: rate_date}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fx_rates: {system: fx}", "at fx_rates: 'watermark' is a required property"),
        ("fx_rates: {system: paper, watermark: rate_date}", "'paper' is not one of"),
        ("fx_rates: {system: fx, watermark: rate_date, overlap_seconds: 5}", "'overlap_seconds' is not one of"),
        ("shop_orders: {system: postgres, watermark: updated_at}", "'relation' is a required property"),
        ("snowflake_orders: {system: snowflake, watermark: updated_at, relation: 'a\"; drop'}", "does not match"),
        ("snowflake_orders: {system: snowflake, watermark: nope, relation: a}", "has no column nope, the watermark"),
        ("snowflake_orders: {system: snowflake, watermark: sku, relation: a}", "sku is a string, not a timestamp"),
        (
            "snowflake_orders: {system: snowflake, watermark: updated_at, relation: a, columns: {nope: x}}",
            "the contract has no column nope",
        ),
        ("shop_orders: {system: postgres, watermark: ordered_at, relation: a}", "an extraction writes csv"),
        ("redshift_behavior: {system: fx, watermark: occurred_at}", "has the columns rate_date, currency"),
        ("no_contract: {system: fx, watermark: at}", "There is no contract for source 'no_contract'"),
        ("fx_rates: [", "is not YAML"),
    ],
)
def test_a_wrong_entry_says_where(text: str, told: str) -> None:
    assert set(parse(GOOD)) == {"fx_rates"}
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert told in str(error.value)


def test_every_entry_is_valid_and_what_environments_extract_has_one() -> None:
    from python_ops.lake.config import environments, load_settings

    known = sources()
    assert all(isinstance(entry, Source) for entry in known.values())
    for name in environments():
        assert set(load_settings(name).extract) <= set(known)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process; gives its exit code and what it printed."""
    from python_ops import cli

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        given = {"LAKEHOUSE_HOME": str(tmp_path / "lake"), "LAKEHOUSE_SCHEMA_PREFIX": "", **environment}
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["lakeops", *arguments])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_the_commands(tmp_path: Path, command: Command) -> None:
    """Given the bank's file on disk, When the commands run, Then they land it, say so, and show where it stands."""
    rates = tmp_path / "rates.csv"
    rates.write_text(DAY_ONE)
    given = {"LAKEHOUSE_SECRET_FX_RATES": json.dumps({"url": rates.as_uri()}), "LAKEHOUSE_EXTRACT": '["fx_rates"]'}
    code, out, err = command("extract", "run", **given)
    assert (code, err) == (0, "") and "extract fx_rates                      2 rows" in out
    rates.write_text(DAY_TWO)
    (result,) = json.loads(command("extract", "run", "--json", **given)[1])
    assert (result["rows"], result["watermark"][0]) == (2, "2025-01-03T00:00:00.000000+00:00")
    assert "nothing new" in command("extract", "run", **given)[1]
    shown = {row["source"]: row for row in json.loads(command("extract", "status", "--json", **given)[1])}
    assert (shown["fx_rates"]["is_due"], shown["fx_rates"]["at"]) == (True, "2025-01-03T00:00:00.000000+00:00")
    assert shown["snowflake_orders"]["at"] is None
    rates.write_text("nonsense")
    code, out, err = command("extract", "run", **given)
    assert code == 1 and "1 of 1 sources failed: fx_rates. The others are done." in err and "FAILED" in out
    assert "failed: fx_rates:" in command("extract", "status", **given)[1]
    done = lakeops(tmp_path / "lake", "extract", "run", **given)  # as people call it
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (("extract", "run", "nope"), {}, "Nothing says how nope is extracted"),
        (("extract", "run"), {"LAKEHOUSE_EXTRACT": '["nope"]'}, "Nothing says how nope is extracted"),
        (("extract", "run", "snowflake_orders"), {}, "1 of 1 sources failed: snowflake_orders"),
        (("secrets", "check"), {"LAKEHOUSE_EXTRACT": '["snowflake_orders"]'}, "Secret snowflake_orders is not set"),
    ],
)
def test_wrong_usage_exits_2(
    command: Command, arguments: tuple[str, ...], environment: dict[str, str], told: str
) -> None:
    code, _, err = command(*arguments, **environment)
    assert code == 2 and told in err


def test_an_environment_that_extracts_nothing_says_so(command: Command) -> None:
    code, out, _ = command("extract", "run")
    assert code == 0 and "python_ops/lake/config/local.yml names no source" in out


@pytest.mark.parametrize(("content", "outcome"), [(DAY_ONE, "ok"), ("nonsense", "failed")])
def test_a_run_extracts_first_and_ends_with_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, outcome: str
) -> None:
    """Given an environment that extracts, When its source fails, Then the rest is still done, and the run fails."""
    from python_ops.lake.run_record import last_run
    from python_ops.run import daily

    (tmp_path / "rates.csv").write_text(content)
    given = lake_with(tmp_path / "lake", fx_rates={"url": (tmp_path / "rates.csv").as_uri()})
    given = given.with_settings(extract=("fx_rates",))
    steps: list[str] = []
    for step in ("ingest", "build", "publish"):  # what starts a JVM
        monkeypatch.setattr(daily.Job, step, lambda job, step=step: steps.append(step))
    monkeypatch.setattr(daily, "remember", lambda lake: None)
    reports: list[str] = []
    try:
        daily.run(given, lambda what, value: reports.append(what))
        assert outcome == "ok"
    except OpsError as exc:
        assert outcome == "failed" and exc.exit_code == 1
        assert "extract failed: fx_rates:" in str(exc) and "To go on: `lakeops extract run`" in str(exc)
    assert steps == ["ingest", "build", "publish"]
    assert reports == ["step", "starts", "extract", "step", "reason"]
    record = last_run(given)
    assert record is not None
    (step,) = record["steps"]
    assert (step["name"], step["outcome"], step["summary"]["rows"]) == ("extract", outcome, 2 if outcome == "ok" else 0)


def test_a_run_with_nothing_new_has_asked_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a lake with nothing to do, When a source has nothing new either, Then no JVM starts, and it was asked."""
    from python_ops.run import daily

    (tmp_path / "rates.csv").write_text(DAY_ONE)
    given = lake_with(tmp_path / "lake", fx_rates={"url": (tmp_path / "rates.csv").as_uri()})
    given = given.with_settings(extract=("fx_rates",))
    extract(given, ["fx_rates"])
    asked = PullState(given.state / "extract", "fx_rates").last()
    monkeypatch.setattr(daily, "reason_to_run", lambda lake: None)
    monkeypatch.setattr(daily, "green_since", lambda lake: "yesterday")
    job = daily.run(given, lambda what, value: None)
    assert job.unchanged_since == "yesterday" and [step.name for step in job.steps] == ["extract"]
    assert PullState(given.state / "extract", "fx_rates").last()["rows"] == 0 != asked["rows"]


@pytest.fixture
def ctrl_c() -> Iterator[int]:
    """SIGINT as a terminal's Ctrl-C, also where the tests were started by a script that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.SIGINT
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_run_stops_what_is_being_read(lake: Lake, monkeypatch: pytest.MonkeyPatch, ctrl_c: int) -> None:
    """Given a long pull, When Ctrl-C comes, Then it ends at its next page, and nothing is built."""
    from python_ops.jobs.extract.database import DatabaseReader
    from python_ops.lake.errors import Interrupted
    from python_ops.run import daily

    real = DatabaseReader.pages

    def interrupted(reader: Any, *given: Any) -> Any:
        for number, page in enumerate(real(reader, *given)):
            if number == 2:
                signal.pthread_kill(threading.main_thread().ident, ctrl_c)
                time.sleep(0.5)
            yield page

    monkeypatch.setattr(DatabaseReader, "pages", interrupted)
    monkeypatch.setattr(daily.Job, "ingest", lambda job: pytest.fail("nothing is to be done after Ctrl-C"))
    with pytest.raises(Interrupted, match="extract was interrupted; what it committed is kept"):
        daily.run(lake.with_settings(extract=("tickets",)), lambda what, value: None)
    assert len(landed(lake)) == 4 and mark(lake) == Watermark("2026-01-01T00:04:00Z", "4")
    monkeypatch.setattr(DatabaseReader, "pages", real)
    assert pull(lake).rows == 2 and set(versions(lake).values()) == {1}
