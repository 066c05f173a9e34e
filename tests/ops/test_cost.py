"""`lakeops cost`: figures of a lake with known files and runs, in a folder and in a bucket, by round prices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake
from servers import to_bucket
from typer.testing import CliRunner

from python_ops.cli.app import app
from python_ops.lake.config import Settings
from python_ops.lake.errors import ConfigError
from python_ops.lake.lake import Lake
from python_ops.lake.metrics import Metric, record
from python_ops.lake.run_record import save_run
from python_ops.watch.cost import NOT_COUNTED, estimate
from python_ops.watch.cost.prices import DEFAULT, Prices, load

ROUND = {
    "currency": "EUR", "region": "here", "runs_per_month": 10,
    "storage": {"gb_month": 2.0, "snapshots_gb_month": 1.0},
    "requests": {"writes_per_1000": 5.0, "reads_per_1000": 0.5},
    "compute": {"vcpu_hour": 1.0, "gb_hour": 0.5, "vcpus": 4, "memory_gb": 8},
    "warehouses": {"redshift": {"unit_hour": 3.0, "units": 2, "minimum_seconds": 90}},
}  # fmt: skip
PRICES = Prices.model_validate(ROUND)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A table of two versions, a landed file, a snapshot's file, and three runs."""
    made = Lake(Settings(home=tmp_path / "lake", publish=["duckdb", "postgres", "redshift"]))
    table = made.table_path("gold", "fct_orders")
    table.parent.mkdir(parents=True)
    for version in (1, 2):
        write_deltalake(str(table), pa.table({"id": range(version * 1000)}), mode="overwrite")
    for name, size in {"landing/shop/a.csv": 3000, "snapshots/files/b": 5000, "target/manifest.json": 700}.items():
        path = made.home / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * size)
    for at, seconds, publishing in ((1, 100.0, 20.0), (2, 300.0, 40.0), (3, 200.0, 30.0)):
        begun = f"2025-01-0{at}T00:00:00+00:00"
        figures = {"run": seconds, "publish": publishing}
        record(made, [Metric("run_seconds", "job", name, value, begun, begun) for name, value in figures.items()])
    save_run(made, {"command": "run", "started_at": "2025-01-03T00:00:00+00:00", "steps": []})
    return made


def sizes(lake: Lake) -> dict[str, int]:
    table = lake.table_path("gold", "fct_orders")
    live = [Path(file).name for file in DeltaTable(str(table)).file_uris()]
    found = {path.name: path.stat().st_size for path in table.glob("*.parquet")}
    return {
        "gold, live": sum(found[name] for name in live),
        "older versions": sum(size for name, size in found.items() if name not in live),
        "Delta logs": sum(path.stat().st_size for path in (table / "_delta_log").iterdir()),
        "landing": 3000, "snapshots": 5000, "published file": 0,
    }  # fmt: skip


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_each_part_is_the_lakes_figure_times_the_price(
    lake: Lake, where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    expected = sizes(lake)
    files = [path for path in lake.home.rglob("*") if path.is_file()]
    if where == "bucket":
        request.getfixturevalue("aws")
        to_bucket(lake.home, "lakes", "own")
        lake = Lake(
            Settings(home="s3://lakes/own", publish=lake.settings.publish, workspace=str(tmp_path / "workspace"))
        )
    made = estimate(lake, PRICES)
    found = {line.part: line for line in made.lines}
    held = {part: round(line.quantity * 1e9) for part, line in found.items() if line.group == "storage"}
    records = held.pop("records")
    assert held == expected and min(expected["older versions"], expected["Delta logs"]) > 0
    assert records == sum(path.stat().st_size for path in files) - sum(expected.values())
    assert found["snapshots"].amount == pytest.approx(5000e-9 * 1.0)
    assert found["landing"].amount == pytest.approx(3000e-9 * 2.0)
    written = len(files) + 1  # all since the last run began, and a list of the one table
    assert found["writes and lists"].amount == pytest.approx(10 * written / 1000 * 5.0)
    assert found["reads"].amount == pytest.approx(10 * (1 + 2) / 1000 * 0.5), "one live file, two commits"
    assert found["runs"].amount == pytest.approx(10 * 200 / 3600 * (4 * 1.0 + 8 * 0.5)), "the median run"
    assert found["redshift"].amount == pytest.approx(10 * 90 / 3600 * 6.0), "30 s, billed as 90"
    assert made.total == pytest.approx(sum(line.amount for line in made.lines))
    assert made.not_counted == ("loads of postgres: the price file has no warehouse postgres", *NOT_COUNTED)


def test_what_is_unknown_is_said(tmp_path: Path) -> None:
    """Given a home without a run, and a table whose log is garbled, Then both are named and the rest is counted."""
    lake = Lake(Settings(home=tmp_path / "lake"))
    table = lake.table_path("silver", "slv_a")
    table.mkdir(parents=True)
    write_deltalake(str(table), pa.table({"id": [1]}))
    (table / "_delta_log" / "00000000000000000000.json").write_text("garbled")
    made = estimate(lake, PRICES)
    assert made.not_counted[:2] == (
        "the table silver.slv_a, whose log cannot be read: its files count as old versions",
        "compute and warehouse loads: no run was recorded yet",
    )
    found = {line.part: line.quantity for line in made.lines}
    assert found["silver, live"] == 0 and found["older versions"] > 0 and "runs" not in found


def changed(*path: str, to: Any = None) -> str:
    """The price file with one value changed, or left out."""
    made = json.loads(json.dumps(ROUND))
    inner = made
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    if to is None:
        del inner[path[-1]]
    return yaml.safe_dump(made)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (changed("storage", "gb_month"), r"storage\.gb_month: Field required"),
        (changed("storage", "gb_month", to=-1), r"storage\.gb_month: .*greater than or equal to 0"),
        (changed("compute", "vcpu_hour", to="0,05"), r"compute\.vcpu_hour: .*valid number"),
        (changed("requests", "read_per_1000", to=1), r"requests\.read_per_1000: Extra inputs are not permitted"),
        (changed("warehouses", "redshift", "units", to=float("inf")), r"redshift\.units: .*finite number"),
        ("storage: [", "is not YAML, line 1"),
        ("", "the whole file: "),
        (None, r"There is no price file .*prices\.yml\. Copy "),
    ],
)
def test_a_price_file_that_does_not_fit_is_refused(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "prices.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load(path)


def test_the_command_prints_lines_the_sum_and_what_is_missing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_HOME", str(lake.home))
    (tmp_path / "own.yml").write_text(yaml.safe_dump(ROUND))
    shown = CliRunner().invoke(app, ["cost", "--prices", str(tmp_path / "own.yml")]).output
    assert (
        "EUR a month" in shown and "gold, live" in shown and "Not counted:\n- " in shown and "prices of here" in shown
    )
    told = json.loads(CliRunner().invoke(app, ["cost", "--json"]).output)
    assert (told["currency"], told["prices"]) == ("USD", str(DEFAULT))
    assert told["total"] == pytest.approx(sum(line["amount"] for line in told["lines"]))
    assert {line["group"] for line in told["lines"]} == {"storage", "requests", "compute"}, "local publishes to DuckDB"


def test_the_code_has_no_price() -> None:
    """Each figure of the default file stands there alone."""
    code = "".join(path.read_text() for path in DEFAULT.parent.glob("*.py"))
    figures = {figure for figure in DEFAULT.read_text().split() if figure.startswith("0.")}
    assert len(figures) > 5 and not [figure for figure in figures if figure in code]
