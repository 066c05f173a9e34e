"""Service levels: each limit breached and kept, with its cause first."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import artifact_files as files
import programs
import pytest
from deltalake import write_deltalake

from python_ops.lake.config import Settings
from python_ops.lake.contracts import sources
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.landing import LandingFile
from python_ops.lake.ledger import BatchState
from python_ops.lake.metrics import Metric, history, read, record
from python_ops.lake.rejections import from_texts
from python_ops.run.daily import Job, Step
from python_ops.run.pending import remember
from python_ops.watch.alerts import Breach, Cause, check, pressing
from python_ops.watch.alerts.acknowledged import acknowledge
from python_ops.watch.alerts.notify import notify
from python_ops.watch.metrics import collect

NOW = datetime.now(UTC)


@dataclass
class Place:
    """An environment with a green run, one gold table of ten rows, and its artifacts."""

    lake: Lake
    artifacts: Path

    def run(self, *steps: Step, at: datetime = NOW) -> None:
        job = Job(self.lake, lambda what, value: None)
        job.started_at, job.steps = at, list(steps)
        job.save()

    def was_run_last(self, at: datetime) -> None:
        self.run(Step("ingest", "ok"), at=at)
        files.write_run_results(self.artifacts, {"model.lakehouse.dim_a": "success"}, at=at.isoformat())

    def policy(self, daily: dict[str, Any], source: dict[str, Any]) -> None:
        """Limits of the daily run and of the source."""
        files.add_to_manifest(
            self.artifacts,
            exposures={"e": {"name": "daily_run", "owner": {"name": "Platform"}, "config": {"meta": daily}}},
            sources={"s": {"name": "fx_rates", "config": {"meta": source}}},
        )

    def build(self, seconds: float = 1.0, status: str = "success", **meta: Any) -> None:
        model = files.model("dim_a")
        model["config"] |= {"meta": meta, "group": "sales"}
        files.write_manifest(self.artifacts, model, files.test("key_of_a", "dim_a"))
        files.add_to_manifest(self.artifacts, groups={"g": {"name": "sales", "owner": {"name": "Sales"}}})
        self.policy(
            {"sla_minutes": 1560, "sla_max_seconds": 100},
            {"sla_minutes": 60, "sla_max_rejected": 0.1, "sla_max_mistyped": 0.0, "sla_min_records": 1},
        )
        results = {"model.lakehouse.dim_a": "success", "test.lakehouse.key_of_a": status}
        files.write_run_results(self.artifacts, results, seconds=seconds)

    def shrink(self) -> None:
        """The last build left ten of 500 rows."""
        self.build(sla_max_shrink=0.5)
        files.write_run_results(self.artifacts, {"model.lakehouse.dim_a": "success"}, began=hours_ago(1).isoformat())
        record(self.lake, [Metric("rows", "table", "gold.dim_a", 500, hours_ago(2).isoformat(), "run")])

    def table(self, rows: int, layer: str = "gold", name: str = "dim_a") -> None:
        import pyarrow as pa

        ids = pa.array(range(rows), pa.int64())
        write_deltalake(str(self.lake.table_path(layer, name)), pa.table({"id": ids}), mode="overwrite")

    def events(self, current: int, past: int) -> None:
        """The table of the CDC model slv_a: current rows, versions that ended, and events that show nothing."""
        import pyarrow as pa

        shown = [True] * (current + past) + [False] * past
        ended = [None] * current + [NOW] * past + [None] * past
        columns = {"_cdc_visible": shown, "_cdc_valid_to": pa.array(ended, pa.timestamp("us", "UTC"))}
        write_deltalake(str(self.lake.table_path("silver", "slv_a__cdc")), pa.table(columns))

    def batch(
        self, read: int, quarantined: int = 0, at: datetime = NOW, reasons: Mapping[str, int] | None = None
    ) -> None:
        ledger = self.lake.ledger("fx_rates")
        manifest = ledger.freeze(ledger.last_number + 1, "1.0.0", [LandingFile("f", 1, "")])
        counts = {"read": read, "accepted": read - quarantined, "quarantined": quarantined, "ignored": 0}
        ledger.set_state(
            manifest, BatchState.COMMITTED, counts=counts, arrived_at=at.isoformat(), rejected=from_texts(reasons or {})
        )

    def kinds(self, now: datetime = NOW) -> list[tuple[Cause, str]]:
        return [(breach.kind, breach.subject) for breach in check(self.lake, now)]

    def lakeops(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in a process of its own that finds no Java."""
        given = {**os.environ, "LAKEHOUSE_HOME": str(self.lake.settings.home), "LAKEHOUSE_SCHEMA_PREFIX": ""}
        return programs.run(("lakeops", *arguments), {**given, "PATH": "/nowhere", "JAVA_HOME": "/nowhere"})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(Lake(Settings(home=tmp_path / "lake")), tmp_path / "lake" / "target")
    place.run(Step("ingest", "ok", seconds=10), Step("dbt build", "ok", seconds=50))
    place.build()
    place.table(10)
    return place


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


MISTYPED = {"not a decimal(18,6) (units_per_eur)": 1}

BREACHES: list[tuple[str, Callable[[Place], None], Cause, str, str]] = [
    ("failed", lambda p: p.run(Step("build", "failed", resume="dbt build")), Cause.LAST_RUN, "build", "`dbt build`, "),
    ("died", lambda p: p.run(Step("ingest", "running")), Cause.LAST_RUN, "ingest", "lakeops run"),
    ("dead warehouse", lambda p: p.run(Step("publish", "failed", resume="lakeops publish run")), Cause.SERVING,
     "publish", "`lakeops publish status`, then `lakeops publish run`"),
    ("missing", lambda p: p.was_run_last(hours_ago(27)), Cause.MISSED_RUN, "run", "scheduler"),
    ("slow run", lambda p: p.run(Step("dbt build", "ok", seconds=101)), Cause.RUNTIME, "run", "maintain plan"),
    ("test", lambda p: p.build(status="fail"), Cause.TESTS, "key_of_a", "dbt build --select key_of_a"),
    ("rejected", lambda p: p.batch(100, 11), Cause.QUARANTINE, "fx_rates", "lakeops dlq list fx_rates"),
    ("mistyped", lambda p: p.batch(100, 1, reasons=MISTYPED), Cause.TYPES, "fx_rates", "lakeops dlq list fx_rates"),
    ("stale source", lambda p: p.batch(1, at=hours_ago(1.1)), Cause.FRESHNESS, "fx_rates", "landing folder"),
    ("slow model", lambda p: p.build(seconds=9, sla_max_seconds=8), Cause.RUNTIME, "dim_a", "maintain plan gold.dim_a"),
    ("shrank", lambda p: p.shrink(), Cause.SHRINK, "dim_a", "table history gold.dim_a"),
    ("few rows", lambda p: p.build(sla_min_rows=11), Cause.ROWS, "dim_a", "dbt build --select dim_a"),
]  # fmt: skip


def test_everything_holds(place: Place) -> None:
    place.batch(100, 10)
    place.build(seconds=8, sla_max_seconds=8, sla_min_rows=10, sla_minutes=60)
    assert place.kinds() == []


@pytest.mark.parametrize(("do", "kind", "subject", "action"), [b[1:] for b in BREACHES], ids=[b[0] for b in BREACHES])
def test_a_breach_names_its_subject_owner_and_next_action(
    place: Place, do: Callable[[Place], None], kind: Cause, subject: str, action: str
) -> None:
    do(place)
    (breach,) = check(place.lake, NOW)
    assert (breach.kind, breach.subject) == (kind, subject)
    assert action in breach.next_action
    assert breach.owner in {"Platform", "Sales", "data-platform"}
    heading = breach.runbook.split("#")[1].replace("-", " ")
    assert f"\n## {heading}\n" in (Path(__file__).parents[2] / breach.runbook.split("#")[0]).read_text()


def test_zero_rows_breach_unless_allowed(place: Place) -> None:
    place.table(0)
    place.build(sla_min_rows=1)
    assert place.kinds() == [(Cause.ROWS, "dim_a")]
    place.build(sla_min_rows=0)
    assert place.kinds() == []


def test_a_batch_without_records_breaches_unless_allowed(place: Place) -> None:
    place.build()
    place.batch(0)
    assert place.kinds() == [(Cause.ROWS, "fx_rates")]
    place.policy({}, {"sla_min_records": 0})
    assert place.kinds() == []


def test_values_of_another_type_name_their_columns_and_not_themselves(place: Place) -> None:
    place.policy({}, {"sla_max_mistyped": 0.02})
    place.batch(100, 2, reasons={"not a date (a)": 1, "not a decimal(18,6) (b)": 1})
    assert place.kinds() == []
    reasons = {"not a date (a)": 1, "not a decimal(18,6) (b)": 4, "not a int (c)": 2, "not a int (d)": 1}
    place.batch(100, 20, reasons={**reasons, "required (e)": 5, "not a commit time": 7})
    (breach,) = check(place.lake, NOW)
    assert breach.got == (
        "in batch 2: b is not a decimal(18,6) in 4, c is not a int in 2, a is not a date in 1, and 1 more columns"
    )
    assert (breach.kind, breach.expected) == (
        Cause.TYPES,
        "at most 2.0% of a batch of another type than the contract's",
    )
    place.batch(100)
    assert place.kinds() == []


def test_a_step_has_a_limit_of_its_own(place: Place) -> None:
    place.policy({"sla_max_seconds_dbt_build": 49, "sla_max_seconds_ingest": 10}, {})
    assert place.kinds() == [(Cause.RUNTIME, "dbt build")]


def test_a_build_that_grew_old_is_stale(place: Place) -> None:
    place.build(sla_minutes=60)
    assert place.kinds(NOW + timedelta(minutes=59)) == []
    assert (Cause.FRESHNESS, "dim_a") in place.kinds(datetime.now(UTC) + timedelta(minutes=61))


def test_causes_come_first(place: Place) -> None:
    place.run(Step("dbt build", "failed", seconds=101))
    place.build(status="fail", sla_min_rows=11)
    assert [kind for kind, _ in place.kinds()] == [Cause.LAST_RUN, Cause.TESTS, Cause.ROWS, Cause.RUNTIME]


def test_a_breach_knows_what_it_reaches(place: Place) -> None:
    """Given a source, a history made of it, a fact and a dashboard, Then each breach names what lies behind it."""
    silver = files.model("slv_fx", layer="silver")
    silver["depends_on"]["nodes"] = ["source.lakehouse.bronze.fx_rates"]
    gold, other = files.model("dim_a", parents=["slv_fx"], publish_to=["duckdb"]), files.model("dim_b")
    files.write_manifest(place.artifacts, silver, gold, other, files.test("key_of_fx", "slv_fx"))
    reads = {"depends_on": {"nodes": ["model.lakehouse.dim_a"]}}
    files.add_to_manifest(
        place.artifacts,
        sources={"s": {"name": "fx_rates", "config": {"meta": {"sla_minutes": 60}}}},
        exposures={"e": {"name": "board", "owner": {"name": "Sales"}, **reads}, "d": {"name": "daily_run", **reads}},
    )
    files.write_run_results(place.artifacts, {"model.lakehouse.slv_fx": "success", "test.lakehouse.key_of_fx": "fail"})
    place.batch(100, at=hours_ago(5))
    place.run(Step("publish", "failed"))
    found = {breach.kind: (breach.affects, breach.readers) for breach in check(place.lake, NOW)}
    assert found == {
        Cause.TESTS: (("dim_a", "slv_fx"), ("board",)),
        Cause.SERVING: (("dim_a",), ("board",)),
        Cause.FRESHNESS: (("dim_a", "slv_fx"), ("board",)),
    }
    place.run(Step("dbt build", "failed"))
    files.write_run_results(place.artifacts, {"model.lakehouse.slv_fx": "error", "model.lakehouse.dim_a": "skipped"})
    found = {breach.kind: (breach.affects, breach.readers) for breach in check(place.lake, NOW)}
    assert found[Cause.LAST_RUN] == (("dim_a", "slv_fx"), ("board",))


def test_no_run_at_all_is_missing(tmp_path: Path) -> None:
    place = Place(Lake(Settings(home=tmp_path / "lake")), tmp_path / "lake" / "target")
    place.build()
    assert place.kinds() == [], "the build of a stream, or by hand"
    (place.artifacts / "run_results.json").unlink()
    assert place.kinds() == [(Cause.MISSED_RUN, "run")]


@pytest.mark.parametrize(
    ("past", "newest", "is_unusual"),
    [
        ([100] * 7, 1000, False),  # too few runs to judge
        ([100] * 8, 1000, True),
        ([100] * 8, 1, True),
        ([100] * 8, 109, False),  # a steady history: ten rows are no alarm
        ([1000, 1100, 900, 1050, 950, 1020, 980, 1010], 1200, False),
        ([1000, 1100, 900, 1050, 950, 1020, 980, 1010], 2000, True),
        ([1000, 1100, 900, 1050, 950, 1020, 980, 1_000_000], 1010, False),  # one odd run does not move the median
    ],
)
def test_volume_against_recent_runs(place: Place, past: list[int], newest: int, is_unusual: bool) -> None:
    for count in (*past, newest):
        place.batch(count)
    assert place.kinds() == ([(Cause.VOLUME, "fx_rates")] if is_unusual else [])


def test_a_tables_rows_against_recent_runs(place: Place) -> None:
    place.build(sla_min_rows=1)
    for number in range(8):
        record(place.lake, [Metric("rows", "table", "gold.dim_a", 500, NOW.isoformat(), f"run {number}")])
    assert place.kinds() == [(Cause.VOLUME, "dim_a")]


@pytest.mark.parametrize(
    ("before", "now", "is_told"),
    [(500, 10, True), (500, 251, False), (500, 250, False), (500, 249, True), (12, 3, False)],
)
def test_a_table_that_shrank_is_told(place: Place, before: int, now: int, is_told: bool) -> None:
    """Given rows recorded before a build, When fewer are left than the limit allows, Then it is a breach until the next
    build; what was recorded of the build itself is no measure of it."""
    place.table(now)
    place.build(sla_max_shrink=0.5)
    files.write_run_results(place.artifacts, {"model.lakehouse.dim_a": "success"}, began=hours_ago(1).isoformat())
    for number, (rows, hours) in enumerate([(9000, 25), (before, 2), (now, 0.5)]):
        at = hours_ago(hours).isoformat()
        record(place.lake, [Metric("rows", "table", "gold.dim_a", rows, at, f"run {number}")])
    found = check(place.lake, NOW)
    assert [(breach.kind, breach.subject, breach.owner) for breach in found] == (
        [(Cause.SHRINK, "dim_a", "Sales")] if is_told else []
    )
    if now == 10:
        assert found[0].got == "98% gone: 10 of 500 are left" and found[0].severity == "warning"
        assert found[0].next_action == "`lakeops table history gold.dim_a`"
    files.write_run_results(place.artifacts, {"model.lakehouse.dim_a": "success"}, began=NOW.isoformat())
    assert place.kinds() == []


@pytest.mark.parametrize(
    ("opened", "closed", "left", "is_told"),
    [(3, 493, 10, True), (0, 250, 250, False), (0, 251, 249, True), (490, 490, 0, False), (0, 9, 1, False)],
)
def test_a_cdc_model_whose_keys_were_deleted_is_told(
    place: Place, opened: int, closed: int, left: int, is_told: bool
) -> None:
    """Given a table of events, which a mass delete makes longer, Then the rows that its view shows as current count."""
    place.events(current=left, past=700)
    models = [files.model(name, layer="silver", strategy="cdc_scd2") for name in ("slv_a", "slv_never_built")]
    for model in models:
        model["config"]["meta"] = {"sla_max_shrink": 0.5}
    files.write_manifest(place.artifacts, *models)
    counts = {"model.lakehouse.slv_a": {"read": 500, "opened": opened, "closed": closed}}
    files.write_run_results(place.artifacts, {"model.lakehouse.slv_a": "success"}, counts=counts)
    found = check(place.lake, NOW)
    assert [(breach.kind, breach.subject) for breach in found] == ([(Cause.SHRINK, "slv_a")] if is_told else [])
    if left == 10:
        assert found[0].got == "98% gone: 10 of 500 are left"
        assert found[0].next_action == "`lakeops table history silver.slv_a__cdc`"


@pytest.mark.parametrize("limit", ["soon", -1, True])
def test_a_limit_that_is_no_number_is_refused(place: Place, limit: Any) -> None:
    place.build(sla_minutes=limit)
    with pytest.raises(ConfigError, match="meta sla_minutes must be a number"):
        check(place.lake)


def test_figures_are_kept_one_per_run(place: Place) -> None:
    place.batch(100, 10)
    for _ in range(2):
        record(place.lake, collect(place.lake))
    found = {(m.name, m.subject): m.value for m in read(place.lake)}
    assert found["run_seconds", "dbt build"] == 50
    assert (found["rows_quarantined", "fx_rates"], found["rows", "gold.dim_a"]) == (10, 10)
    assert history(read(place.lake), "rows", "table") == {"gold.dim_a": [10.0]}, "the same run twice is one"
    path = place.lake.state / "metrics" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"name": "half')
    assert len(read(place.lake)) == len(found) * 2


def test_an_acknowledged_breach_is_listed_and_neither_told_nor_counted(place: Place) -> None:
    """Given a breach, When it is acknowledged, Then only another is told, until the time; its end is told as ever."""
    place.run(Step("ingest", "failed"))
    place.batch(100, at=hours_ago(2))
    lake, said = place.lake, list[str]()

    def told(now: datetime) -> list[Breach]:
        found = check(lake, now)
        notify(lake, found, said.append, now=now)
        return pressing(found)

    assert [breach.subject for breach in told(NOW)] == ["ingest", "fx_rates"] and len(said) == 1
    identities = [breach.identity for breach in check(lake, NOW)]
    until = (NOW + timedelta(hours=20)).isoformat()
    assert acknowledge(lake, identities, "fx_rates", until, NOW) == ["stale: fx_rates"]
    later = NOW + timedelta(hours=7)
    assert [breach.subject for breach in told(later)] == ["ingest"]
    assert len(said) == 2 and "fx_rates" not in said[1], "a reminder of the other alone"
    assert [b.subject for b in check(lake, later) if b.acknowledged_until] == ["fx_rates"]
    place.batch(100, at=later)
    told(later)
    assert "recovered: stale: fx_rates" in said[2]
    place.batch(100, at=hours_ago(2))
    assert "fx_rates" in [breach.subject for breach in told(NOW + timedelta(hours=21))], "it has run out"


@pytest.mark.parametrize(
    ("name", "until", "message"),
    [
        ("fx_rate", "2999-01-01", "No open breach is called 'fx_rate'. Open are: fx_rates"),
        ("fx_rates", "soon", "--until 'soon' is no time"),
        ("fx_rates", "2020-01-01", "has passed"),
    ],
)
def test_what_cannot_be_acknowledged_says_why(place: Place, name: str, until: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        acknowledge(place.lake, ["stale: fx_rates"], name, until, NOW)


@pytest.mark.slow
def test_the_command_exits_3_on_a_breach(place: Place) -> None:
    assert place.lakeops("sla", "check").returncode == 0
    place.run(Step("ingest", "failed"))
    done = place.lakeops("sla", "check", "--json")
    assert done.returncode == 3, done.stderr
    assert [breach["kind"] for breach in json.loads(done.stdout)] == ["last run failed"]
    assert "1 service levels are breached; the first: last run failed: ingest." in done.stderr
    assert place.lakeops("sla", "ack", "ingest", "--until", "2999-01-01").returncode == 0
    known = place.lakeops("sla", "check")
    assert known.returncode == 0 and "acknowledged until 2999-01-01" in known.stdout
    assert place.lakeops("sla", "ack", "ingest", "--remove").returncode == 0
    assert place.lakeops("sla", "check").returncode == 3


@pytest.mark.slow
def test_a_run_with_nothing_new_checks_service_levels_and_alerts(place: Place) -> None:
    """Given a green run and nothing new, When a source grows stale, Then runs exit 3 and tell it once, without Java."""
    for source in sources():
        place.table(100 if source == "fx_rates" else 0, "bronze", source)
    place.batch(100, at=hours_ago(2))
    place.policy({}, {"sla_minutes": 180})
    remember(place.lake)
    done = place.lakeops("run")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.startswith("nothing new since the green run of")

    place.policy({}, {"sla_minutes": 60})
    done = place.lakeops("run", "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["unchanged_since"]
    assert "Lakehouse local: fx_rates stale" in done.stderr
    assert "1 service levels are breached: stale: fx_rates." in done.stderr
    again = place.lakeops("run")
    assert again.returncode == 3 and again.stdout.startswith("nothing new since"), "told once"
    assert not (place.lake.state / "metrics").exists(), "a run that did nothing has no figures"
