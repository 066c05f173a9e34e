"""The command line as CI and people use it: help, documentation, exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
import typer

from python_ops.cli import Environment
from python_ops.cli.app import app
from python_ops.cli.commands import ALONE, NOUNS
from python_ops.cli.run import run
from python_ops.lake.config import environments
from python_ops.lake.contracts import sources
from python_ops.lake.errors import SlaBreached
from python_ops.lake.lake import Lake
from python_ops.run.daily import Job
from python_ops.watch.alerts import Breach, Cause

pytestmark = pytest.mark.slow


def commands(group: Any, path: str = "lakeops") -> Iterator[tuple[str, Any]]:
    if not hasattr(group, "commands"):
        yield path, group
        return
    for name, command in group.commands.items():
        yield from commands(command, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def lakeops(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own."""
    given = {**os.environ, "LAKEHOUSE_HOME": str(home), "LAKEHOUSE_SCHEMA_PREFIX": "", **environment}
    return programs.run(("lakeops", *arguments), given)


def test_a_call_imports_only_the_command_that_it_names() -> None:
    """Importing all of them took most of the second of a run with nothing to do."""
    code = """if True:
        import json, sys
        from python_ops.cli.commands import made
        made(sys.argv[1:])
        print(json.dumps([name.split(".")[2] for name in sys.modules if name.startswith("python_ops.cli.")]))
    """
    found = {}
    for asked in ("sql", "sla", "no-such-command"):
        given = [sys.executable, "-c", code, asked, "--help"]
        found[asked] = set(json.loads(subprocess.run(given, capture_output=True, text=True, check=True).stdout))
    assert found["sql"] & {*NOUNS, *ALONE.values()} == {"sql"}
    assert found["sla"] & {*NOUNS, *ALONE.values()} == {"sla"}
    assert {*NOUNS, *ALONE.values()} <= found["no-such-command"], "which the message names the nearest of"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    help_text = COMMANDS[name].help or ""
    assert re.search(rf"Example: {name}\b", help_text), f"{name} --help has no example"
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--env", "--json"} <= options


def test_env_offers_every_environment_that_has_a_file() -> None:
    assert sorted(Environment) == list(environments())


def test_help_and_status_start_no_jvm(home: Path) -> None:
    done = lakeops(home, "status", "--json", PATH="", JAVA_HOME="/nowhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert [source["batches"] for source in json.loads(done.stdout)["sources"]] == [0] * len(sources())
    assert "no run yet" in lakeops(home, "status").stdout
    assert re.fullmatch(r"lakeops \d+\.\d+\.\d+\n", lakeops(home, "--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (("ingest", "run", "nope"), {}, "Unknown source nope. Known sources: crm_accounts"),
        (
            ("ingest", "run"),
            {"LAKEHOUSE_SCHEMA_PREFIX": "a-b"},
            "Wrong settings of environment local. LAKEHOUSE_SCHEMA_PREFIX",
        ),
        (("run", "--env", "nowhere"), {}, "nowhere"),
        (("stream", "run", "shop_orders"), {}, "No Kafka servers are set for environment local"),
        (("stream", "run", "nope"), {"LAKEHOUSE_KAFKA_SERVERS": "127.0.0.1:1"}, "Unknown source nope"),
        (("stream", "run", "fx_rates"), {"LAKEHOUSE_KAFKA_SERVERS": "127.0.0.1:1"}, "fx_rates has no topic"),
        (("stream", "status"), {"LAKEHOUSE_KAFKA_SERVERS": "not an address"}, "LAKEHOUSE_KAFKA_SERVERS"),
        (("nonsense",), {}, "No such command"),
    ],
)
def test_wrong_usage_exits_2(home: Path, arguments: tuple[str, ...], environment: dict[str, str], told: str) -> None:
    done = lakeops(home, *arguments, **environment)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_without_java_a_run_says_so_and_takes_nothing(home: Path) -> None:
    landing = home / "landing" / "fx_rates"
    landing.mkdir(parents=True)
    (landing / "a.csv").write_text("rate_date,currency,units_per_eur\n2025-01-02,USD,1.03\n")
    done = lakeops(home, "ingest", "run", PATH="/nowhere", JAVA_HOME="/nowhere")
    assert done.returncode == 1
    assert "Spark did not start" in done.stderr and "Java 17 or 21" in done.stderr
    assert "Traceback" not in done.stderr
    (waiting,) = [
        s for s in json.loads(lakeops(home, "ingest", "status", "--json").stdout) if s["source"] == "fx_rates"
    ]
    assert (waiting["batches"], waiting["waiting_files"]) == (0, 1)


@pytest.mark.parametrize("arguments", [("run",), ("demo",), ("ingest", "run"), ("publish", "run"), ("stream", "run")])
def test_a_second_run_exits_4_and_says_who_holds_the_lake(home: Path, arguments: tuple[str, ...]) -> None:
    (home / "state").mkdir(parents=True)
    with (home / "state" / "lock.json").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"command": "lakeops run", "pid": 4711, "since": "2026-01-01T00:00:00+00:00"}))
        file.flush()
        done = lakeops(home, *arguments)
    assert done.returncode == 4
    assert "in use by `lakeops run` (process 4711, since 2026-01-01T00:00:00+00:00)" in done.stderr


@pytest.mark.parametrize("unchanged_since", [None, "2026-01-01T00:00:00+00:00"])
def test_a_run_prints_its_record_before_a_breach_ends_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unchanged_since: str | None
) -> None:
    def job(lake: Lake, *given: Any) -> Job:
        made = Job(lake, lambda what, value: None)
        made.unchanged_since = unchanged_since
        made.save()
        return made

    stale = Breach(Cause.FRESHNESS, "fx_rates", "a delivery every 26 h", "the last came 3 days ago", "Platform", "look")
    monkeypatch.setattr("python_ops.cli.run.run_job", job)
    monkeypatch.setattr("python_ops.cli.run.aftermath", lambda lake, say, unchanged: [stale])
    monkeypatch.setenv("LAKEHOUSE_HOME", str(home))
    for as_json in (True, False):
        with pytest.raises(SlaBreached, match="1 service levels are breached: stale: fx_rates"):
            run(as_json=as_json)
    printed = capsys.readouterr().out
    record, end = json.JSONDecoder().raw_decode(printed)
    assert (record["command"], record["unchanged_since"]) == ("run", unchanged_since)
    assert printed[end:].strip().startswith("nothing new since" if unchanged_since else "done ")


def test_an_unreadable_landing_folder_fails_its_source_and_names_it(home: Path) -> None:
    (home / "landing").mkdir(parents=True)
    (home / "landing" / "fx_rates").write_text("not a folder")
    done = lakeops(home, "ingest", "run", "fx_rates")
    assert done.returncode == 1
    assert re.search(r"fx_rates +FAILED .*landing/fx_rates cannot be read", done.stdout)
    assert "1 of 1 sources failed: fx_rates. The others are done." in done.stderr
