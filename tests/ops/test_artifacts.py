"""Reading dbt's artifacts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import artifact_files as files
import programs
import pytest

from python_ops.lake.artifacts import load_manifest, load_run_results
from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.errors import OpsError


def test_a_missing_artifact_says_what_to_run(tmp_path: Path) -> None:
    for load in (load_manifest, load_run_results):
        with pytest.raises(OpsError, match=r"\.json does not exist: run `dbt build` first"):
            load(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"nodes": 1, "results": [1]}', '{"nodes": {"a": {}}, "results": [{}]}']
)
def test_a_file_that_is_no_artifact_is_named(tmp_path: Path, text: str) -> None:
    for name, load in (("manifest.json", load_manifest), ("run_results.json", load_run_results)):
        (tmp_path / name).write_text(text)
        with pytest.raises(OpsError, match=f"{name} is not an artifact"):
            load(tmp_path)


def test_upstream_and_tests_follow_the_graph(tmp_path: Path) -> None:
    files.write_manifest(
        tmp_path,
        files.model("slv_a", layer="silver"),
        files.model("dim_a", parents=["slv_a"]),
        files.model("fct_b", parents=["dim_a"]),
        files.model("rpt_other"),
        files.test("unique_dim_a", "dim_a"),
        files.test("relationship", "fct_b", "dim_a"),
        files.test("folds", "slv_a", kind="unit_test"),
    )
    manifest = load_manifest(tmp_path)
    short = lambda nodes: {node.rsplit(".", 1)[1] for node in nodes}  # noqa: E731
    assert short(manifest.upstream(["model.lakehouse.fct_b"])) == {"fct_b", "dim_a", "slv_a"}
    assert short(manifest.tests_of(["model.lakehouse.dim_a"])) == {"unique_dim_a", "relationship"}
    assert short(manifest.tests_of(["model.lakehouse.slv_a"])) == {"folds"}


def test_failures_come_before_what_they_skipped(tmp_path: Path) -> None:
    statuses = {
        "model.lakehouse.a": "skipped",
        "model.lakehouse.b": "error",
        "model.lakehouse.c": "success",
        "test.lakehouse.d": "warn",
        "test.lakehouse.e": "fail",
    }
    files.write_run_results(tmp_path, statuses)
    results = load_run_results(tmp_path)
    assert [r.unique_id[-1] for r in results.failed()] == ["b", "e", "a"]
    assert [r.unique_id[-1] for r in results.failed(["model.lakehouse.a", "model.lakehouse.c"])] == ["a"]
    assert results.green_tests() == {"test.lakehouse.d"}
    assert results.nodes["model.lakehouse.c"].seconds == 0.5


def test_a_command_that_only_compiles_has_no_green_tests(tmp_path: Path) -> None:
    files.write_run_results(tmp_path, {"test.lakehouse.d": "success"}, command="generate")
    assert load_run_results(tmp_path).green_tests() == frozenset()


@pytest.mark.slow
def test_what_dbt_writes_is_read(tmp_path: Path) -> None:
    """dbt's own manifest of a small project: names, meta, columns and the tests' parents are where we look."""
    (tmp_path / "models").mkdir()
    (tmp_path / "dbt_project.yml").write_text(
        "name: lakehouse\nprofile: lakehouse\nmodel-paths: [models]\nflags: {send_anonymous_usage_stats: false}\n"
    )
    (tmp_path / "models" / "dim_a.sql").write_text(
        "{{ config(materialized='table', schema='gold', meta={'publish_to': ['duckdb']}) }}\nselect 1 as a_id\n"
    )
    (tmp_path / "models" / "_models.yml").write_text(
        "models:\n  - name: dim_a\n    description: One row per a.\n    columns:\n"
        "      - {name: a_id, data_type: int, description: The key., data_tests: [not_null]}\n"
    )
    environment = {**os.environ, "LAKEHOUSE_HOME": str(tmp_path), "LAKEHOUSE_SCHEMA_PREFIX": ""}
    command = (
        "dbt", "parse", "--project-dir", str(tmp_path),
        "--profiles-dir", str(PROJECT_ROOT / "profiles"), "--log-path", str(tmp_path / "logs"),
    )  # fmt: skip
    done = programs.run(command, environment, tmp_path)
    assert done.returncode == 0, done.stdout
    manifest = load_manifest(tmp_path / "target")
    (model,) = manifest.models.values()
    assert (model.layer, model.alias, model.materialized, model.strategy) == ("gold", "dim_a", "table", None)
    assert model.meta == {"publish_to": ["duckdb"]}
    assert [(c.name, c.description, c.data_type) for c in model.columns] == [("a_id", "The key.", "int")]
    assert (model.description, model.path) == ("One row per a.", "models/dim_a.sql")
    (test_id,) = manifest.tests_of([model.unique_id])
    assert test_id.startswith("test.lakehouse.not_null_dim_a_a_id")
    assert json.loads((tmp_path / "target" / "manifest.json").read_text())["nodes"][test_id]
