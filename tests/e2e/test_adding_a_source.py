"""docs/guides/adding_a_source.md, followed: its files are written and its commands run, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cdc_lab import install_package

from python_ops.jobs.build import invoke
from python_ops.jobs.ingest import ingest
from python_ops.lake import contracts
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.lake import Lake
from python_ops.lake.spark import export_environment
from python_ops.watch import quality

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

GUIDE = (PROJECT_ROOT / "docs" / "guides" / "adding_a_source.md").read_text(encoding="utf-8")


def block(after: str, language: str) -> str:
    """The first block of a language after a text of the guide."""
    found = re.search(rf"{re.escape(after)}.*?\n```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert found, f"the guide has no {language} after {after!r}"
    return found[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the guide edits."""
    for name in ("dbt_project", "macros", "tests/contracts", "python_ops", "profiles"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT_ROOT / name, tmp_path / "project" / name, ignore=ignored)
    shutil.copy(PROJECT_ROOT / "dbt_project.yml", tmp_path / "project")
    install_package(tmp_path / "project")
    return tmp_path / "project"


def lakeops(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in the copy; none of these needs Java."""
    given = {**os.environ, "LAKEHOUSE_HOME": str(project / ".lake"), "LAKEHOUSE_SCHEMA_PREFIX": "", "PATH": "/nowhere"}
    command = [sys.executable, "-m", "python_ops", "contracts", *arguments]
    return subprocess.run(command, cwd=project, env=given, capture_output=True, text=True, timeout=120)


def write_contract(project: Path) -> None:
    """Steps 1 and 2: the draft, what is wrong with it, and the finished contract."""
    (project / "partners.csv").write_text(block("`partners.csv`, as the ERP wrote it", "csv"), encoding="utf-8")
    path = project / "python_ops" / "lake" / "contracts" / "erp_partners.yml"
    drafted = lakeops(project, "infer", "partners.csv", "--source", "erp_partners")
    path.write_text(drafted.stdout, encoding="utf-8")
    refused = lakeops(project, "check", "erp_partners")
    assert refused.returncode == 2 and "at description" in refused.stdout, refused
    path.write_text(block("Finish `python_ops/lake/contracts/erp_partners.yml`", "yaml"), encoding="utf-8")

    draft, finished = yaml.safe_load(drafted.stdout), yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (draft["format"], draft["key"]) == (finished["format"], finished["key"])
    guessed = {column["name"]: column["type"].split("(")[0] for column in draft["columns"]}
    assert guessed == {column["name"]: column["type"].split("(")[0] for column in finished["columns"]}
    personal = [[column["name"] for column in found["columns"] if column.get("pii")] for found in (draft, finished)]
    assert personal == [["contact_email"]] * 2


@pytest.mark.slow
def test_the_contract_of_the_guide_is_drafted_checked_exported_and_released(project: Path) -> None:
    write_contract(project)

    stale = lakeops(project, "check", "erp_partners")
    assert stale.returncode == 2 and "`lakeops contracts export --dbt` writes it" in stale.stderr
    for arguments in (("export", "--dbt"), ("check", "erp_partners"), ("release", "erp_partners"), ("check",)):
        done = lakeops(project, *arguments)
        assert done.returncode == 0, done.stderr

    assert (project / "python_ops/lake/contracts/released/erp_partners/1.0.0.yml").is_file()
    generated = (project / "dbt_project/models/_sources/_bronze__sources.yml").read_text(encoding="utf-8")
    assert "name: erp_partners" in generated and "Share of the turnover" in generated


@pytest.mark.spark
@pytest.mark.campaign
def test_the_guide_leads_from_a_file_to_a_tested_table(
    project: Path, spark: SparkSession, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_contract(project)
    assert lakeops(project, "export", "--dbt").returncode == 0
    for file, language in (
        ("dbt_project/models/silver/partners/slv_partners.sql", "sql"),
        ("dbt_project/models/silver/partners/_partners__models.yml", "yaml"),
        ("tests/contracts/silver/assert_a_partner_never_gets_more_than_half.sql", "sql"),
    ):
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text(block(f"`{file}`", language), encoding="utf-8")
    in_prefix = Lake(
        settings.model_copy(update={"schema_prefix": "partners", "home": settings.place}), start=lambda: spark
    )
    (in_prefix.landing / "erp_partners").mkdir(parents=True)
    monkeypatch.setattr(contracts, "FOLDER", project / "python_ops" / "lake" / "contracts")
    for cached in (contracts.sources, contracts.load):
        cached.cache_clear()
    try:
        first = deliver_and_build(project, in_prefix, spark, tmp_path, "`partners.csv`, as the ERP", "2025-03-01.csv")
        assert (first.read, first.accepted, first.quarantined, first.ignored) == (4, 3, 0, 1)
        assert "batch 1: 1 files, read 4 = 3 accepted + 0 quarantined + 1 ignored" in GUIDE
        second = deliver_and_build(project, in_prefix, spark, tmp_path, "## The next delivery", "2025-03-02.csv")
        counts = f"{second.accepted} accepted + {second.quarantined} quarantined + {second.ignored} ignored"
        assert f"read {second.read} = {counts}" in GUIDE
        verdict = quality.judge(in_prefix, "erp_partners")
    finally:
        monkeypatch.undo()
        for cached in (contracts.sources, contracts.load):
            cached.cache_clear()

    partners = spark.table(f"{in_prefix.schema_name('silver')}.slv_partners")
    rows = {row["partner_id"]: (str(row["commission"]), row["name"]) for row in partners.collect()}
    assert rows.keys() == {"P-001", "P-002", "P-003", "P-004"}
    assert rows["P-002"][0] == "0.0900" and rows["P-003"][1] == "Bridge, Stone & Co"
    (dead,) = spark.table(f"{in_prefix.schema_name('dlq')}.erp_partners").collect()
    assert (dead["column"], f"{dead['reason']}`" in GUIDE) == ("commission", True)
    assert verdict.good and verdict.rows == 2


def deliver_and_build(project: Path, lake: Lake, spark: SparkSession, folder: Path, after: str, name: str) -> Any:
    """A file of the guide to the landing folder, ingested and built."""
    (lake.landing / "erp_partners" / name).write_text(block(after, "csv"), encoding="utf-8")
    (result,) = ingest(lake, ["erp_partners"])
    assert result.error is None
    export_environment(lake.settings)
    listed = ["--quiet", "build", "--project-dir", str(project), "--select", "slv_partners"]
    built = invoke(lake, [*listed, "--log-path", str(folder), "--target-path", str(folder / "target")])
    assert built.success, [f"{r.node.name}: {r.message}" for r in built.result if r.message]
    assert {r.node.name for r in built.result} >= {"slv_partners", "assert_a_partner_never_gets_more_than_half"}
    return result
