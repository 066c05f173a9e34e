"""No secret in any output, artifact, log, alert, report or lineage file, least of all where something fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from canaries import CANARY, PLANTED, found_in
from test_cli import COMMANDS, lakeops

from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake
from python_ops.run.daily import Job, Step

pytestmark = pytest.mark.slow

# Nothing listens on port 9: every system that a command turns to fails, which is when secrets get into messages.
EVERYTHING = {
    **PLANTED,
    "LAKEHOUSE_ALERTS": '["console", "slack", "sns"]',
    "LAKEHOUSE_ALERTS_TOPIC": "arn:aws:sns:eu-west-1:123456789012:alerts",
    "LAKEHOUSE_LINEAGE": "http",
    "LAKEHOUSE_METRICS": "cloudwatch",
    "LAKEHOUSE_PUBLISH": '["duckdb", "postgres"]',
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "PATH": "/nowhere",
    "JAVA_HOME": "/nowhere",
}
TURNED_TO = [
    ("secrets", "check"),
    ("secrets", "list", "--json"),
    ("sla", "check", "--notify"),
    ("metrics", "push"),
    ("lineage", "emit"),
    ("run",),
    ("publish", "run"),
    ("publish", "status"),
    ("extract", "run"),
    ("ingest", "run"),
    ("status", "--json"),
    ("doctor",),
    ("report",),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A lake after a run that failed, with a file waiting."""
    home = tmp_path / "lake"
    job = Job(Lake(Settings(home=home)), lambda what, value: None)
    job.steps = [Step("ingest", "failed", resume="lakeops ingest run")]
    job.save()
    (home / "landing" / "fx_rates").mkdir(parents=True)
    (home / "landing" / "fx_rates" / "a.csv").write_text("rate_date,currency,units_per_eur\n2025-01-02,USD,1.03\n")
    return home


def test_commands_that_fail_at_every_system_tell_no_secret(home: Path) -> None:
    told: dict[str, Any] = {}
    for words in TURNED_TO:
        if " ".join(("lakeops", *(word for word in words if not word.startswith("-")))) in COMMANDS:
            done = lakeops(home, *words, **EVERYTHING)
            told[" ".join(words)] = done.stdout + done.stderr
            assert "Traceback" not in done.stderr
    assert [command for command, text in told.items() if CANARY in text] == []
    assert found_in(home) == []
    assert (home / "state" / "lineage" / "spool.jsonl").exists(), "the commands did turn to the receiver"


QUOTING = [
    "could not connect to postgresql://ann:{secret}@127.0.0.1/x",
    "syntax error at or near \"{secret}\": create user ann with password '{secret}'",
    '{{"password": "{secret}"}} is not accepted',
]


@pytest.mark.parametrize("kind", ["OpsError", "RuntimeError"])
def test_an_error_that_quotes_a_secret_is_masked(tmp_path: Path, kind: str) -> None:
    """Given a driver that puts a credential into its message, Then the command line masks it, whatever was raised."""
    code = f"""
import sys
from python_ops import cli
from python_ops.cli import doctor
from python_ops.lake.config import Settings
from python_ops.lake.errors import OpsError

import python_ops.watch.status, python_ops.cli.run

for text in {QUOTING!r}:
    def fails(lake):
        secret = lake.secrets.get("postgres").json()["password"]
        raise {kind}(text.format(secret=secret))

    python_ops.cli.run.read_status = fails
    sys.argv = ["lakeops", "status"]
    try:
        cli.main()
    except SystemExit as exc:
        print("exits", exc.code, file=sys.stderr)
"""

    given = {**os.environ, **PLANTED, "LAKEHOUSE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=60)
    *told, rest = done.stderr.split("exits 1\n")
    assert (len(told), rest, done.returncode) == (len(QUOTING), "", 0), done.stderr
    assert all("***" in text for text in told)
    assert CANARY not in done.stdout + done.stderr
    assert found_in(tmp_path) == []


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.json").write_text(json.dumps({"password": CANARY}))
    assert found_in(tmp_path) == [str(tmp_path / "a" / "x.json")]
