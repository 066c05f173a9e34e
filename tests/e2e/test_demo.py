"""The two commands as a user runs them, in processes of their own: the demo, and then the daily run.

The demo starts its own Spark, with the settings of production. After it the runs share a warm server on the same home.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import consumption
import documented
import pytest
import sqlglot
from canaries import PLANTED, found_in
from cdc_lab import install_package
from deltalake import DeltaTable
from recording import wrong_rows
from sqlglot import exp
from typer.testing import CliRunner

from python_ops.cli.app import app
from python_ops.jobs.catalog.readers import check
from python_ops.jobs.publish import Action, publish
from python_ops.jobs.publish.fingerprint import DUCKDB, SPARK, Field
from python_ops.jobs.query import names, query
from python_ops.lake.artifacts import load_run_results
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.delta import columns
from python_ops.lake.lake import Lake
from python_ops.lake.views import Views

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def warm(home: Path) -> Iterator[None]:
    """A Spark server on the home: no command after this starts a JVM, until it is stopped."""
    started = lakeops(home, "spark", "start")
    assert started.returncode == 0, started.stderr
    yield
    lakeops(home, "spark", "stop")


def lakeops(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    told = {**PLANTED, "LAKEHOUSE_ALERTS": '["console", "slack"]'}
    given = {**os.environ, **told, "LAKEHOUSE_HOME": str(home), "LAKEHOUSE_SCHEMA_PREFIX": "", **environment}
    return subprocess.run([sys.executable, "-m", "python_ops", *arguments], env=given, capture_output=True, text=True)


def versions(home: Path) -> dict[str, int]:
    logs = sorted((home / "warehouse").glob("*.db/*/_delta_log"))
    return {str(log.parent.relative_to(home)): DeltaTable(str(log.parent)).version() for log in logs}


def steps(home: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((home / "state" / "last_run.json").read_text())
    return {step["name"]: step for step in record["steps"]}


def cpu_seconds() -> float:
    """Processor time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


NO_JVM = {"PATH": "/nowhere", "JAVA_HOME": "/nowhere"}


def test_the_demo_builds_publishes_and_documents(home: Path) -> None:
    done = lakeops(home, "demo")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("failed 0, skipped 0") == 2
    assert "published 13" in done.stdout
    assert "resolution report" not in (home / "logs" / "spark-start.log").read_text(), "no jar is looked for at a start"
    nodes = load_run_results(home / "target").nodes.values()
    assert any(node.counts.get("inserted") for node in nodes), "what CDC models counted, as data"
    page = (home / "target" / "static_index.html").read_text(encoding="utf-8")
    assert "fct_orders" in page and "change feeds of the CRM, the shop" in page
    assert "metric.lakehouse.average_order_value" in page and "semantic_model.lakehouse.orders" in page


def test_the_demos_lake_is_what_postgresql_held(home: Path, spark: SparkSession) -> None:
    """The demo takes the first batch, and then four at once that are not in order."""

    def table(layer: str, name: str) -> DataFrame:
        return spark.read.format("delta").load(str(home / "warehouse" / f"{layer}.db" / name))

    wrong = wrong_rows(spark, table)
    assert not wrong, f"{len(wrong)} wrong, the first: {wrong[:3]}"


def test_sql_without_a_jvm_answers_as_spark_does(home: Path, spark: SparkSession) -> None:
    """Every table and view, row for row: each engine computes the fingerprint of publishing. None is empty
    but those of rejected records."""
    lake = Lake(Settings(home=home))
    known, texts = names(lake), Views(lake.artifacts)
    assert {f"silver.{name}" for name in ("slv_contacts", "slv_contacts_history", "slv_fx_rates_daily")} <= {*texts}

    def spelled(node: exp.Expression) -> exp.Expression:
        """A table by its folder and a view by its text: this session has another metastore."""
        if not isinstance(node, exp.Table) or not node.db:
            return node
        view, path = texts.get(f"{node.db}.{node.name}"), lake.table_path(node.db, node.name)
        made = view.query.transform(spelled).sql("spark") if view else f"select * from delta.`{path}`"
        return exp.Subquery(this=sqlglot.parse_one(made, dialect="spark"), alias=exp.to_identifier(node.alias_or_name))

    wrong, empty = [], []
    for name, _ in known:
        read = sqlglot.parse_one(f"select * from {name}", dialect="spark").transform(spelled).sql("spark")
        frame = spark.sql(read)
        fields = [Field(column, type_) for column, type_ in frame.dtypes if "<" not in type_]
        spark_parts, duck_parts = SPARK.aggregates(fields), DUCKDB.aggregates(fields)
        there = frame.selectExpr(*(f"{part} as p{i}" for i, part in enumerate(spark_parts.values()))).first()
        (here,) = query(lake, f"select {', '.join(duck_parts.values())} from {name}").rows()
        empty += [name] if here[0] == 0 and not name.startswith("dlq.") else []
        told = zip(spark_parts, there or (), here, strict=True)
        # a sum too large for Spark is NULL there
        wrong += [(name, part, a, b) for part, a, b in told if a != b and not (part.startswith("sum") and a is None)]
        if name in texts and lakeops_types(lake, name) != frame.dtypes:
            wrong.append((name, "types", frame.dtypes, lakeops_types(lake, name)))
    assert not wrong, f"{len(wrong)} wrong, the first: {wrong[:3]}"
    assert empty == []
    assert {each.table: each.broken for each in check(lake) if each.broken} == {}, "gold is what its readers can read"


def test_the_queries_of_the_guide_are_answered(home: Path, tmp_path: Path) -> None:
    text = (PROJECT_ROOT / "docs" / "guides" / "querying.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\.venv/bin/lakeops (sql.*?)(?: +#.*)?$", text, re.M)
    assert len(lines) == 6
    (tmp_path / "query.sql").write_text("select 42 as answer", encoding="utf-8")
    given = {**os.environ, **NO_JVM, "LAKEHOUSE_HOME": str(home), "LAKEHOUSE_SCHEMA_PREFIX": ""}
    for line in lines:
        command = f"{sys.executable} -m python_ops {line}"
        done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=given, capture_output=True, text=True)
        assert done.returncode == 0 and (done.stdout or ">" in line), f"{line}: {done.stdout}{done.stderr}"
    assert (tmp_path / "revenue.parquet").read_bytes()[:4] == b"PAR1"


# fakesnow's own use of DuckDB
@pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")
def test_the_questions_of_the_consumption_guide_have_one_answer_everywhere(
    home: Path, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given gold, published to every kind of warehouse, When the guide's commands ask, Then all say what it says."""
    (tmp_path / ".lake").symlink_to(home)
    monkeypatch.chdir(tmp_path)
    asked, answers, told = consumption.questions(), {}, consumption.places()
    given = {"LAKEHOUSE_HOME": str(home), "LAKEHOUSE_SCHEMA_PREFIX": "", **NO_JVM, "PATH": os.environ["PATH"]}
    with consumption.warehouses() as (secrets, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        lake = Lake(
            Settings(home=home, publish=["postgres", "redshift", "snowflake"]), secrets=secrets, start=lambda: spark
        )
        assert {result.action for result in publish(lake)} == {Action.PUBLISHED}
        for title, (sql, answer) in asked.items():
            (tmp_path / "question.sql").write_text(sql, encoding="utf-8")
            sqlglot.parse_one(sql, dialect="athena")
            for place in ("DuckDB", "Redshift", "Snowflake", "A notebook"):
                names: dict[str, Any] = {}
                exec(consumption.snippet(told[place]), names)
                answers[title, place] = consumption.plain(names["rows"])
            answers[title, "lakeops sql"] = consumption.plain(query(lake, sql).rows())
            _, psql, described = consumption.shell(told["PostgreSQL"])
            printed = consumption.run(f"{psql} --csv --tuples-only", tmp_path, given)
            answers[title, "PostgreSQL"] = consumption.plain([line.split(",") for line in printed.splitlines()])
            wrong = {
                place: rows for (asked_for, place), rows in answers.items() if asked_for == title and rows != answer
            }
            assert wrong == {}, f"{title}: the guide says {answer}"
        assert "EUR" in consumption.run(described, tmp_path, given), "the columns' descriptions"
        for line in consumption.shell(told["DuckDB"]):
            consumption.run(line, tmp_path, given)
    assert len(answers) == 3 * 6 and (tmp_path / "revenue.csv").read_text().startswith("order_date,")


# Commands to type of docs/ that only read, and answer from the demo's lake alone.
READS = {
    "sql", "status", "cost", "ingest status", "publish status", "contracts check", "contracts diff", "lineage show",
    "lineage export", "lineage check", "metrics push", "metrics dashboard", "watermark list",
}  # fmt: skip
# What they name that the demo has not: a source that its guide adds, a tag that its guide makes.
NOT_IN_THE_DEMO = {"erp_partners", "release-2026-11", "-"}


def test_what_the_pages_show_is_what_the_commands_print(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**NO_JVM, "LAKEHOUSE_HOME": str(home), "AWS_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    shutil.copy(PROJECT_ROOT / "python_ops" / "watch" / "cost" / "prices.yml", "our_prices.yml")

    def typed(words: Sequence[str]) -> str:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{words}: {done.stdout_bytes!r} {done.exception!r}"
        return done.stdout if "parquet" not in words else ""

    ran = 0
    for named in documented.commands():
        tool, *words = named.words
        reads = tool == "lakeops" and {" ".join(words[:1]), " ".join(words[:2])} & READS
        if named.whole and reads and not {"--env", "--execute", *NOT_IN_THE_DEMO} & {*words}:
            typed(words)
            ran += 1
    assert ran > 25
    page = (PROJECT_ROOT / "docs" / "concepts" / "path.md").read_text(encoding="utf-8")
    shown = re.findall(r"```sh\n\.venv/bin/lakeops ([^\n]*)\n```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert len(shown) == 4 and [typed(shlex.split(line)) for line, _ in shown] == [text for _, text in shown]


def lakeops_types(lake: Lake, name: str) -> list[tuple[str, str]]:
    """A view's columns and their types, found without Spark."""

    def of(read: str) -> Mapping[str, str]:
        if view := Views(lake.artifacts).get(read):
            return view.resolved(of).types
        return {column: type_ for column, (type_, _) in columns(lake.table_path(*read.split("."))).items()}

    return list(of(name).items())


def test_a_run_with_nothing_new_starts_no_jvm_and_commits_nothing(home: Path) -> None:
    before, started, spent = versions(home), time.monotonic(), cpu_seconds()
    done = lakeops(home, "run", **NO_JVM)
    spent = cpu_seconds() - spent
    assert done.returncode == 0, done.stderr
    assert "nothing new since the green run of" in done.stdout
    assert versions(home) == before
    print(f"nothing new: {time.monotonic() - started:.1f} s, {spent:.1f} s of them computing")
    assert spent <= 3, "of processor time: the machine may be busy with other things"
    assert json.loads(lakeops(home, "run", "--json", **NO_JVM).stdout)["unchanged_since"]


def test_a_new_file_a_restored_table_and_a_red_run_are_reasons_to_run(home: Path) -> None:
    """Given nothing new, When anything changes, Then a run finds it, and without Java it fails instead of passing."""
    target = home / "target" / "run_results.json"
    green = target.read_text()
    target.write_text(green.replace('"status": "pass"', '"status": "fail"', 1))
    red = lakeops(home, "run", **NO_JVM)
    target.write_text(green)
    assert red.returncode == 1 and "the last dbt command was not green: test.lakehouse" in red.stdout
    late = home / "landing" / "fx_rates" / "late.csv"
    shutil.copy(next((home / "landing" / "fx_rates").glob("batch_1.*")), late)
    new = lakeops(home, "run", **NO_JVM)
    assert new.returncode == 1 and "because: new files of fx_rates" in new.stdout
    assert lakeops(home, "run", **NO_JVM).returncode == 1, "a run that failed is not forgotten"


def test_a_halted_source_is_left_out_until_its_batch_is_discarded(home: Path, warm: None) -> None:
    """Given a batch that is bad as a whole, When the job runs, Then it fails, and all that does not read it is done."""
    (home / "landing" / "crm_opportunities" / "bad.jsonl").write_text('{"op": "x"}\n' * 20)
    done = lakeops(home, "run")
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert steps(home)["ingest"]["summary"]["batches"] == 1
    assert "ingest failed: crm_opportunities: batch" in done.stderr
    left = "fct_opportunities, slv_opportunities, slv_opportunities_history wait for crm_opportunities"
    assert left in done.stderr and left in lakeops(home, "status").stdout
    assert [steps(home)[name]["outcome"] for name in ("ingest", "dbt build", "publish")] == ["failed", "ok", "ok"]
    sources = json.loads(lakeops(home, "ingest", "status", "--json").stdout)
    (halted,) = (source["halted"] for source in sources if source["source"] == "crm_opportunities")
    assert lakeops(home, "ingest", "run", "crm_opportunities", "--discard", str(halted)).returncode == 0
    done = lakeops(home, "run")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "nothing new since" in lakeops(home, "run", **NO_JVM).stdout


def test_every_model_has_column_lineage_and_every_job_its_events(home: Path) -> None:
    """Given the demo and the runs after it, Then sources, nodes and sets have events, and no job is left open."""
    found = json.loads(lakeops(home, "lineage", "export").stdout)
    manifest = json.loads((home / "target" / "manifest.json").read_text())
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    assert set(found) == {f"{node['schema']}.{node['alias']}" for node in models}
    assert all(columns for columns in found.values())
    without = {table for table, columns in found.items() if not any(columns.values())}
    assert without == {"gold.dim_date"}, "made of dates alone"
    personal = lakeops(home, "lineage", "check", **NO_JVM)
    assert personal.returncode == 0, personal.stderr
    lines = (home / "state" / "lineage" / "events.jsonl").read_text().split("\n")
    events = [json.loads(line) for line in lines if line]
    begun = {event["run"]["runId"] for event in events if event["eventType"] == "START"}
    ended = {event["run"]["runId"] for event in events if event["eventType"] in ("COMPLETE", "FAIL")}
    assert begun == ended
    jobs = {event["job"]["name"] for event in events}
    tests = [node for node in manifest["nodes"].values() if node["resource_type"] == "test"]
    assert {f"dbt.{node['unique_id'].split('.')[2]}" for node in (*models, *tests)} <= jobs
    assert {"lakeops demo", "lakeops run", "ingest.shop_orders", "publish.duckdb"} <= jobs
    rows = [
        output["outputFacets"]["outputStatistics"]["rowCount"]
        for event in events
        for output in event["outputs"]
        if (event["eventType"], event["job"]["name"]) == ("COMPLETE", "dbt.fct_orders") and output["outputFacets"]
    ]
    assert rows[0] == 5000, "the first build writes every order once"


# The analyses, then the guide's commands. Says the rows of each analysis, and what the guide speaks of.
ANALYST = """
import json, sys
from dbt.cli.main import dbtRunner

from python_ops.lake.config import Settings
from python_ops.lake.spark import session

home, project, folder = sys.argv[1:]
spark = session(Settings(home=home))
places = ["--log-path", folder, "--target-path", f"{folder}/target"]


def dbt(*line):
    done = dbtRunner().invoke(["--quiet", *line, *places])
    assert done.success, done.exception or [f"{r.node.name}: {r.message}" for r in done.result if r.message]
    return done.result


compiled = dbt("compile", "--select", "resource_type:analysis")
count = lambda query: spark.sql(query).count()
analyses = {result.node.name: count(result.node.compiled_code) for result in compiled}
shown = [dbt("show", "--limit", "-1", "--inline", question).results[0].agate_table for question in json.load(sys.stdin)]
dbt("build", "--project-dir", project, "--select", "slv_contacts_history", "--full-refresh")
dbt("build", "--project-dir", project, "--select", "slv_contacts_history+")
history, report = "from silver.slv_contacts_history where", "from gold.rpt_customers_by_domain"
print(json.dumps({
    "analyses": analyses,
    "orders": count("select 1 from gold.fct_orders"),
    "without_domain": count(f"select 1 {history} email like '%@%' and email_domain is null"),
    "current": count(f"select 1 {history} is_current"),
    "domains": count(f"select 1 {report}"),
    "answers": [[[str(value) for value in row] for row in table.rows] for table in shown],
    "customers": spark.sql(f"select sum(customer_count) {report}").collect()[0][0],
}))
"""


def test_the_analyses_run_and_the_analysts_guide_does_what_it_says(home: Path, warm: None, tmp_path: Path) -> None:
    """Given the project, When the guide's edits are made and its commands run, Then both tables hold what it says."""
    project = tmp_path / "project"
    for name in ("dbt_project", "macros", "tests/contracts"):
        shutil.copytree(PROJECT_ROOT / name, project / name)
    shutil.copy(PROJECT_ROOT / "dbt_project.yml", project)
    install_package(project)
    apply_guide(project)
    asked = consumption.questions().values()
    assert '.venv/bin/dbt show --limit -1 --inline "$(cat question.sql)"' in consumption.places()["Spark SQL"]
    done = subprocess.run(
        [sys.executable, "-c", ANALYST, str(home), str(project), str(tmp_path)], cwd=PROJECT_ROOT,
        env={**os.environ, "LAKEHOUSE_HOME": str(home), "LAKEHOUSE_SCHEMA_PREFIX": ""}, capture_output=True, text=True,
        input=json.dumps([sql for sql, _ in asked]),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["analyses"]) == {path.stem for path in (PROJECT_ROOT / "dbt_project" / "analyses").glob("*.sql")}
    joined = found["analyses"]["customer_of_an_order_at_its_time"]
    assert joined == found["orders"] > 0, "a point-in-time join neither loses nor doubles"
    assert list(map(consumption.plain, found["answers"])) == [answer for _, answer in asked]
    assert found["without_domain"] == 0 and found["domains"] > 1
    assert found["customers"] == found["current"]


def apply_guide(project: Path) -> None:
    """Makes the edits of docs/guides/analyst.md: a place in backticks, then the text to put there."""
    guide = (PROJECT_ROOT / "docs" / "guides" / "analyst.md").read_text(encoding="utf-8")
    edits = re.findall(
        r"`(dbt_project/\S+)`([^`]*(?:`[^`\n]+`[^`\n]*)?):\n\n```(?:sql|yaml)\n(.*?)```", guide, re.DOTALL
    )
    assert len(edits) == 4
    for file, place, text in edits:
        path = project / file
        if anchor := re.search(r"(after|before)\s[^`]*`([^`]+)`", place):
            given = path.read_text(encoding="utf-8")
            assert f"{anchor[2]}\n" in given, f"{file} has no {anchor[2]!r}"
            old = f"{anchor[2]}\n"
            path.write_text(given.replace(old, old + text if anchor[1] == "after" else text + old, 1), encoding="utf-8")
        else:
            with path.open("a", encoding="utf-8") as end:
                end.write(text)


@pytest.fixture(scope="module")
def copy(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo's lake, adopted. No server is up any more: it would write to what is copied."""
    lakeops(home, "spark", "stop")
    copied = tmp_path_factory.mktemp("copied") / "lake"
    shutil.copytree(home, copied)
    refused = lakeops(copied, "run")
    assert refused.returncode == 2 and f"{copied} is registered at {home}" in refused.stderr, refused.stderr
    assert lakeops(copied, "home", "adopt", "--execute").returncode == 0
    return copied


def test_dbt_typed_by_hand_is_quiet_and_reads_the_copy_alone(home: Path, copy: Path, tmp_path: Path) -> None:
    """Given a copy of the lake, When it is adopted and the lake is away, Then dbt reads the copy and finds it whole."""
    before, away = versions(copy), home.with_name("away")
    home.rename(away)
    try:
        typed = subprocess.run(
            [str(Path(sys.executable).with_name("dbt")), "build", "--select", "slv_fx_rates"], cwd=PROJECT_ROOT,
            env={**os.environ, "LAKEHOUSE_HOME": str(copy), "DBT_LOG_PATH": str(tmp_path / "logs")},
            capture_output=True, text=True,
        )  # fmt: skip
    finally:
        away.rename(home)
    assert typed.returncode == 0 and "nothing new" in typed.stdout, typed.stdout[-3000:]
    assert "full parse" not in typed.stdout, "what `lakeops run` has parsed is taken"
    assert "resolution" not in typed.stderr + typed.stdout and len(typed.stdout.splitlines()) < 30, typed.stdout
    assert versions(copy) == before


def test_no_secret_is_in_any_artifact(home: Path) -> None:
    """Secrets of every kind were in the environment of every command above."""
    assert found_in(home, home / "target") == []
