"""packages/delta_cdc in a stranger's project: an empty dbt project that follows the package's README word by word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cdc_lab import ROOT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PACKAGE = ROOT / "packages" / "delta_cdc"
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
# Name of a block: its first line, a comment.
BLOCKS = {
    block[1].strip(): re.sub(rf"^{block[0]}", "", block[2], flags=re.M)
    for block in re.findall(r"^( *)```(?:sql|yaml)\n\s*(?:--|#) (.*?)\n(.*?)^ *```", README, re.DOTALL | re.M)
}
TABLE = [tuple(cell.strip() for cell in row.split("|")[1:-1]) for row in re.findall(r"^\| c\d .*$", README, re.M)]
EMPTY_PROJECT = """
name: your_project
version: "1.0.0"
profile: stranger
flags: {send_anonymous_usage_stats: false}
"""
PROFILE = """
stranger: {target: t, outputs: {t: {type: spark, method: session, host: localhost, schema: stranger, threads: 1}}}
"""


def git(*arguments: str, folder: Path) -> None:
    known = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *known, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project with the README's files, and the package installed from a git repository."""
    folder = tmp_path_factory.mktemp("stranger")
    repository, project = folder / "repository", folder / "project"
    for path in (path for path in PACKAGE.rglob("*") if path.is_file()):
        copy = repository / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for command in (["init"], ["add", "."], ["commit", "-m", "package"]):
        git(*command, folder=repository)
    for name, text in {"dbt_project.yml": EMPTY_PROJECT, "profiles.yml": PROFILE}.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    for name, text in BLOCKS.items():
        if not name.startswith("events"):
            (project / name).parent.mkdir(exist_ok=True)
            with (project / name).open("a") as file:
                file.write(text.replace("<this repository>", str(repository)))
    dbt(project, "deps")
    return project


def dbt(project: Path, *arguments: str) -> str:
    """A dbt command in a process of its own, which needs no Spark."""
    command = [str(Path(sys.executable).with_name("dbt")), *arguments, "--project-dir", ".", "--profiles-dir", "."]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_project_of_the_readme_parses(stranger: Path) -> None:
    """Nothing of the package is a link to this checkout, and no warning is given."""
    assert not (stranger / "dbt_packages" / "delta_cdc").is_symlink()
    assert "WARN" not in dbt(stranger, "parse").upper()


@pytest.mark.spark
def test_the_models_of_the_readme_give_what_it_says(stranger: Path, spark: SparkSession) -> None:
    """Both deliveries and a full refresh: what the README prints, and the same again."""
    from dbt.cli.main import dbtRunner

    def run(*arguments: str) -> dict[str, str]:
        places = ["--project-dir", str(stranger), "--profiles-dir", str(stranger), "--log-path", str(stranger / "logs")]
        done = dbtRunner().invoke(["--quiet", "run", *places, "--target-path", str(stranger / "target"), *arguments])
        assert done.success, done.exception or [result.message for result in done.result]
        return {result.node.name: result.message for result in done.result}

    def rows(sql: str) -> list[tuple[Any, ...]]:
        found = spark.sql(sql).collect()
        return sorted(tuple("NULL" if value is None else str(value) for value in row) for row in found)

    def given() -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        history = "select customer_id, email, valid_from, valid_to from stranger.customers_history"
        return rows(history), rows("select * from stranger.customers")

    spark.sql("create schema raw")
    try:
        for delivery in ("events: first delivery", "events: second delivery"):
            for statement in BLOCKS[delivery].split(";"):
                spark.sql(statement)
            messages = run()
        assert "late 1" in messages["customers_history"] and "deletes 1" in messages["customers_history"]
        assert given() == (sorted(TABLE), [("c1", "ann@new.example")])
        operations = [commit["operation"] for commit in spark.sql("describe history stranger.customers").collect()]
        assert operations[1] == "MERGE"
        run("--full-refresh")
        assert given() == (sorted(TABLE), [("c1", "ann@new.example")])
    finally:
        for schema in ("raw", "stranger"):
            spark.sql(f"drop schema if exists {schema} cascade")
