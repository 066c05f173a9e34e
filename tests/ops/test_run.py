"""The daily job: what stops what when one source is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import artifact_files as files
import boto3
import programs
import pyarrow as pa
import pytest
from dbt.exceptions import UninstalledPackagesFoundError
from deltalake import write_deltalake

from python_ops.jobs.build import arguments, failure, readers_of
from python_ops.jobs.ingest import IngestResult
from python_ops.jobs.publish import refuse_untested
from python_ops.lake import interrupts
from python_ops.lake.artifacts import load_manifest, load_run_results
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.errors import BusyError, ConfigError, Interrupted, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.run_record import last_run, left_out
from python_ops.run import daily
from python_ops.run.daily import Job, run
from python_ops.watch.alerts import Cause, check

HALTED = IngestResult(
    "fx_rates", error=OpsError("fx_rates: batch 3 is halted. `--approve 3`, or `--discard 3`."), halted=3
)


def project(folder: Path) -> None:
    """fct_orders reads slv_fx_rates and slv_orders, dim_product reads slv_products; a test compares the two."""
    models = [
        files.model("slv_fx_rates", layer="silver"), files.model("slv_orders", layer="silver"),
        files.model("fct_orders", parents=["slv_fx_rates", "slv_orders"]), files.model("dim_product"),
    ]  # fmt: skip
    for name, source in (("slv_fx_rates", "fx_rates"), ("slv_orders", "shop_orders"), ("dim_product", "shop_products")):
        node = next(model for model in models if model["name"] == name)
        node["depends_on"]["nodes"].append(f"source.lakehouse.bronze.{source}")
    tests = [files.test("key_of_product", "dim_product"), files.test("products_of_orders", "dim_product", "fct_orders")]
    files.write_manifest(folder, *models, *tests)


@dataclass
class Day:
    """A run whose sources and dbt answer what a test says."""

    lake: Lake
    artifacts: Path
    results: Sequence[IngestResult]
    build: str = ""
    done: list[str] | None = None

    def dbt(self, lake: Lake, listed: Sequence[str], on_event: Any) -> Any:
        selection = listed[listed.index("--log-path") + 2 : listed.index("--target-path")]
        self.done = [*(self.done or []), " ".join([listed[1], *selection])]
        on_event(SimpleNamespace(info=SimpleNamespace(name="MainReportVersion", invocation_id="this build")))
        node = SimpleNamespace(name="slv_orders", resource_type="model")
        results = [SimpleNamespace(node=node, status="error" if self.build else "success", message=self.build)]
        return SimpleNamespace(success=not self.build, exception=None, result=SimpleNamespace(results=results))

    def run(self) -> None:
        run(self.lake, lambda what, value: None)


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Day:
    lake = Lake(Settings(home=tmp_path / "lake"), start=lambda: None)
    made = Day(lake, lake.artifacts, [HALTED])
    project(made.artifacts)
    monkeypatch.setattr(daily, "ingest", lambda lake, **told: made.results)
    monkeypatch.setattr(daily, "invoke", made.dbt)
    monkeypatch.setattr(daily, "publish", lambda *given: (made.done or []).append("publish") or [])
    monkeypatch.setattr(daily, "remember", lambda lake: (made.done or []).append("green"))
    return made


def test_only_what_reads_a_halted_source_waits_and_the_run_is_red(day: Day) -> None:
    """Given one halted source, Then all else is built and published, and the error names who waits and how to go on."""
    with pytest.raises(OpsError) as told:
        day.run()
    assert day.done == ["build --exclude source:bronze.fx_rates+", "publish"], "and it does not count as green"
    assert told.value.exit_code == 1
    for text in ("ingest failed: fx_rates: batch 3 is halted.", "`--discard 3`", "then `lakeops run`",
                 "fct_orders, slv_fx_rates wait for fx_rates"):  # fmt: skip
        assert text in str(told.value)
    record = last_run(day.lake)
    assert record is not None and record["waiting"] == {"fx_rates": ["fct_orders", "slv_fx_rates"]}
    assert [(step["name"], step["outcome"]) for step in record["steps"]] == [
        ("ingest", "failed"), ("dbt build", "ok"), ("publish", "ok"),
    ]  # fmt: skip
    breach = next(b for b in check(day.lake) if b.kind is Cause.LAST_RUN)
    assert breach.got == "ingest failed; fct_orders, slv_fx_rates wait for fx_rates"


def test_a_green_build_is_registered_where_the_environment_says_so(day: Day, aws: str) -> None:
    """Given Glue as catalog, Then a run registers the tables; an entry that became somebody else's makes it red."""
    day.results = [IngestResult("fx_rates", batch_id=3)]
    day.lake = day.lake.with_settings(catalog="glue")
    path = day.lake.table_path("gold", "fct_orders")
    path.parent.mkdir(parents=True)
    write_deltalake(str(path), pa.table({"order_id": [1]}))
    day.run()
    assert day.done == ["build", "publish", "green"]
    record = last_run(day.lake)
    assert record is not None and record["steps"][-1]["name"] == "catalog"
    assert record["steps"][-1]["summary"] == {"create": 4}, "three databases and the table"
    glue = boto3.client("glue")
    entry = glue.get_table(DatabaseName="gold", Name="fct_orders")["Table"]
    theirs = {"Name": entry["Name"], "StorageDescriptor": {"Location": "s3://theirs/x"}, "Parameters": {}}
    glue.update_table(DatabaseName="gold", TableInput=theirs)
    with pytest.raises(OpsError, match=r"catalog failed: 1 of 4 entries .*gold\.fct_orders refused"):
        day.run()
    assert day.done == ["build", "publish", "green", "build", "publish"], "and it does not count as green"


def test_what_a_build_left_out_is_known_of_that_build_alone(day: Day) -> None:
    """Given a build without a source's readers, Then its record says so, also after a run that finds nothing new."""
    with pytest.raises(OpsError):
        day.run()
    for _ in range(2):
        assert left_out(day.lake, "this build") == ("fx_rates",)
        assert left_out(day.lake, "a build by hand") == ()
        Job(day.lake, lambda what, value: None).save()
    day.results = [IngestResult("fx_rates", batch_id=3)]
    day.run()
    assert left_out(day.lake, "this build") == ()


def test_a_model_that_an_interruption_cancelled_is_not_told_beside_it(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given Ctrl-C, whose cancelled Spark job ends its model with Java's stack trace, Then only the step is told."""
    told: list[str] = []
    node = SimpleNamespace(unique_id="model.lakehouse.slv_orders", node_status="error")

    def cancelled(lake: Lake, listed: Sequence[str], on_event: Any) -> Any:
        event = SimpleNamespace(info=SimpleNamespace(name="NodeFinished", invocation_id="1"))
        event.data = SimpleNamespace(node_info=node)
        on_event(event)
        interrupts._seen.set()
        on_event(event)
        raise KeyboardInterrupt

    day.results = []
    monkeypatch.setattr(interrupts, "_seen", threading.Event())
    monkeypatch.setattr(daily, "invoke", cancelled)
    with pytest.raises(Interrupted, match="dbt build was interrupted"):
        run(day.lake, lambda what, value: told.append(what))
    assert told == ["reason", "step", "step", "step", "node", "step"]


def test_a_build_that_fails_beside_a_halted_source_hides_neither(day: Day) -> None:
    day.build = "no such column"
    with pytest.raises(OpsError, match=r"ingest failed: fx_rates.* dbt build failed: slv_orders: no such column.*wait"):
        day.run()
    assert day.done == ["build --exclude source:bronze.fx_rates+"]


def test_sources_that_others_hold_leave_the_run_busy(day: Day) -> None:
    day.results = [IngestResult("fx_rates", error=BusyError("fx_rates is held by `stream run`"))]
    with pytest.raises(BusyError, match="fct_orders, slv_fx_rates wait for fx_rates"):
        day.run()


@pytest.mark.parametrize("error", [OpsError("Spark does not start"), ConfigError("a contract is not valid")])
def test_ingestion_that_fails_as_a_whole_builds_nothing(
    day: Day, monkeypatch: pytest.MonkeyPatch, error: OpsError
) -> None:
    def fails(*given: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(daily, "ingest", fails)
    with pytest.raises(type(error), match=str(error)):
        day.run()
    assert day.done is None


def test_a_green_day_is_remembered(day: Day) -> None:
    day.results = [IngestResult("fx_rates", batch_id=3)]
    day.run()
    assert day.done == ["build", "publish", "green"]


def test_a_test_that_reads_what_waits_waits_with_it(tmp_path: Path) -> None:
    """Given a build without the readers of a source, Then what is built needs its own tests only."""
    project(tmp_path)
    manifest = load_manifest(tmp_path)
    product = [manifest.models["model.lakehouse.dim_product"]]
    statuses = {"model.lakehouse.dim_product": "success", "test.lakehouse.key_of_product": "pass"}
    files.write_run_results(tmp_path, statuses)
    with pytest.raises(OpsError, match=r"did not run 1 tests .*products_of_orders"):
        refuse_untested(manifest, load_run_results(tmp_path), product, frozenset())
    without = manifest.readers_of(["fx_rates"])
    refuse_untested(manifest, load_run_results(tmp_path), product, without)
    files.write_run_results(tmp_path, {})
    with pytest.raises(OpsError, match=r"did not run 1 tests .*key_of_product"):
        refuse_untested(manifest, load_run_results(tmp_path), product, without)


@pytest.mark.slow
def test_dbt_by_hand_parses_no_more_than_has_changed_since_lakeops(tmp_path: Path) -> None:
    """Given what `lakeops` gave dbt, which names the target, When a command names none, Then it is not parsed anew."""
    lake = Lake(Settings(home=tmp_path))
    for words in (arguments(["parse"], lake), ["parse", "--log-path", str(tmp_path / "logs")]):
        given = {**os.environ, "LAKEHOUSE_HOME": str(tmp_path)}
        done = programs.run(("dbt", *words), given, PROJECT_ROOT)
        assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "logs" / "dbt.log").read_text()
    assert log.count("Partial parsing enabled: 0 files deleted, 0 files added, 0 files changed") == 1
    assert "Unable to do partial parsing because config vars" not in log


@pytest.mark.slow
def test_dbt_leaves_out_exactly_what_reads_the_sources(tmp_path: Path) -> None:
    """Given two broken sources, Then dbt's selection is what python_ops says that waits."""
    broken = ["fx_rates", "crm_opportunities"]
    command = (
        "dbt", "--quiet", "ls", "--project-dir", str(PROJECT_ROOT),
        "--profiles-dir", str(PROJECT_ROOT / "profiles"), "--target-path", str(tmp_path), "--log-path", str(tmp_path),
        "--output", "json", "--output-keys", "unique_id", "--exclude", *readers_of(broken),
    )  # fmt: skip
    given = {**os.environ, "LAKEHOUSE_HOME": str(tmp_path / "lake")}
    done = programs.run(command, given, PROJECT_ROOT)
    assert done.returncode == 0, done.stdout[-2000:]
    listed = {line.split('"')[3] for line in done.stdout.splitlines() if line.startswith("{")}
    manifest = load_manifest(tmp_path)
    waiting = manifest.readers_of(broken)
    mixed = {"model.lakehouse.rpt_daily_revenue", "test.lakehouse.assert_orders_are_converted_to_euro"}
    assert {"model.lakehouse.slv_fx_rates", "model.lakehouse.fct_opportunities", *mixed} < waiting
    nodes = {node for node in manifest.parents if not node.startswith(("operation.", "analysis."))}
    assert listed & nodes == nodes - waiting
    assert "model.lakehouse.fct_orders" in listed


def test_dbt_packages_that_are_not_there_are_asked_for_by_name(tmp_path: Path) -> None:
    """Given a checkout without them, Then dbt and lakeops say `dbt deps`, which needs no environment."""
    for name in ("dbt_project.yml", "packages.yml", "package-lock.yml"):
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    for name in ("macros", "packages/delta_cdc", "profiles"):
        shutil.copytree(PROJECT_ROOT / name, tmp_path / name)

    def dbt(*words: str) -> subprocess.CompletedProcess[str]:
        given = {**os.environ, "LAKEHOUSE_HOME": str(tmp_path / "lake"), "DBT_PROFILES_DIR": "profiles"}
        return programs.run(("dbt", *words, "--log-path", str(tmp_path / "logs")), given, tmp_path)

    lacking = dbt("parse", "--no-partial-parse")
    assert lacking.returncode == 2 and 'Run "dbt deps"' in lacking.stdout, lacking
    for words in (["deps"], ["clean"], ["parse"]):
        done = dbt(*words)
        assert done.returncode == 0, done.stdout
    error = UninstalledPackagesFoundError(1, 0, "packages.yml", "dbt_packages")
    assert 'Run "dbt deps"' in failure(SimpleNamespace(result=None, exception=error))
