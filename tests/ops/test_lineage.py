"""Lineage: where columns come from, that every job sends events, and that no receiver can harm a run."""

from __future__ import annotations

import inspect
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import artifact_files as files
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from pytest_httpserver import HTTPServer
from test_cli import COMMANDS, lakeops
from werkzeug import Request, Response

from python_ops.lake import refused
from python_ops.lake.artifacts import Manifest, load_manifest
from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.lineage import Dataset, job_run
from python_ops.lake.lineage.sink import waiting
from python_ops.lake.lock import exclusive
from python_ops.run.daily import aftermath
from python_ops.watch.lineage.columns import ColumnLineage
from python_ops.watch.lineage.dbt import NodeEvents, emit
from python_ops.watch.lineage.personal import refuse, unmarked

# The core model's rules for a run event (openlineage.io, spec 2-0-2), in our words.
FACETS = {
    "additionalProperties": {"required": ["_producer", "_schemaURL"], "properties": {"_schemaURL": {"format": "uri"}}}
}
DATASETS = {"items": {"required": ["namespace", "name"], "properties": {"facets": FACETS}}}
RUN_EVENT = {
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventTime": {"type": "string", "format": "date-time"},
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "run": {"required": ["runId"], "properties": {"runId": {"format": "uuid"}, "facets": FACETS}},
        "job": {"required": ["namespace", "name"], "properties": {"facets": FACETS}},
        "inputs": DATASETS,
        "outputs": DATASETS,
    },
}
VALIDATOR = Draft202012Validator(RUN_EVENT, format_checker=FormatChecker())


def events(lake: Lake, name: str = "events") -> list[Any]:
    path = lake.state / "lineage" / f"{name}.jsonl"
    found = [json.loads(line) for line in path.read_text().split("\n") if line] if path.exists() else []
    for event in found:
        VALIDATOR.validate(event)
    return found


def told(found: list[Any]) -> list[tuple[str, str]]:
    return [(event["eventType"], event["job"]["name"]) for event in found]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(Settings(home=tmp_path / "lake"), artifacts=tmp_path / "target")


# Commands that only read, or that write nothing but their own small state.
READ_ONLY = {
    "lakeops status", "lakeops report", "lakeops doctor", "lakeops ingest status", "lakeops publish status",
    "lakeops cost", "lakeops maintain plan", "lakeops secrets list", "lakeops secrets check", "lakeops watermark list",
    "lakeops watermark get", "lakeops watermark set", "lakeops watermark reset", "lakeops sla check", "lakeops sla ack",
    "lakeops metrics push", "lakeops metrics dashboard", "lakeops lineage show", "lakeops lineage export",
    "lakeops lineage check", "lakeops sql", "lakeops catalog status", "lakeops catalog check",
    "lakeops catalog grants plan", "lakeops catalog grants export",
    "lakeops snapshot list", "lakeops snapshot verify", "lakeops table history", "lakeops extract status",
    "lakeops stream status", "lakeops ingest report", "lakeops contracts check", "lakeops contracts diff",
    "lakeops contracts release", "lakeops contracts export", "lakeops contracts infer", "lakeops dlq list",
    "lakeops dlq show", "lakeops spark start", "lakeops spark stop", "lakeops spark status",
    "lakeops table tags", "lakeops features list", "lakeops features export", "lakeops features asof",
    "lakeops erase plan", "lakeops erase status",
}  # fmt: skip

# Packages that move data, each with the name that its jobs begin with.
JOBS = {
    "extract": "extract.", "ingest": "ingest.", "ingest/streaming": "stream.", "publish": "publish.",
    "maintenance": "maintain.", "recovery": "snapshot.",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in READ_ONLY])
def test_every_command_that_writes_holds_the_lock_that_sends_events(name: str) -> None:
    assert "exclusive(" in inspect.getsource(COMMANDS[name].callback)


@pytest.mark.parametrize("package", JOBS)
def test_no_job_class_is_without_events(package: str) -> None:
    """Packages that move data open runs of their own, under names that the guide lists."""
    text = "\n".join(path.read_text() for path in (PROJECT_ROOT / "python_ops" / "jobs" / package).glob("*.py"))
    assert re.search(rf'job_run\(\s*\w+, f?"{re.escape(JOBS[package])}', text), f"{package} sends no events"
    guide = (PROJECT_ROOT / "docs" / "guides" / "lineage.md").read_text()
    assert f"`{JOBS[package]}" in guide, f"docs/guides/lineage.md does not name jobs of {package}"


def test_every_package_is_known_to_move_data_or_not() -> None:
    """A new package that opens runs belongs into JOBS."""
    root = PROJECT_ROOT / "python_ops"
    opening = {
        str(path.relative_to(root / "jobs").parent)
        for path in root.rglob("*.py")
        if root / "lake" not in path.parents  # whose locks open the runs of commands
        if re.search(r"(with|,|\()\s*job_run\(", path.read_text())
    }
    assert opening <= set(JOBS)


def test_a_command_is_a_run_and_what_happens_in_it_its_children(lake: Lake) -> None:
    made = Dataset("gold.a", "file:///lake/a", (("id", "bigint"),), (("id", (("silver.b", "id"),)),), rows=5, bytes=7)
    with exclusive(lake, "publish run"), job_run(lake, "publish.duckdb", [Dataset("silver.b")]) as run:
        run.outputs = [made]
    found = events(lake)
    assert told(found) == [
        ("START", "lakeops publish run"),
        ("START", "publish.duckdb"),
        ("COMPLETE", "publish.duckdb"),
        ("COMPLETE", "lakeops publish run"),
    ]
    child = found[2]
    assert child["run"]["facets"]["parent"]["run"]["runId"] == found[0]["run"]["runId"] == found[3]["run"]["runId"]
    (output,) = child["outputs"]
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 5
    assert output["facets"]["columnLineage"]["fields"]["id"]["inputFields"][0]["name"] == "silver.b"
    assert child["inputs"][0]["name"] == "silver.b"


def test_a_failure_is_told_without_its_text(lake: Lake) -> None:
    with pytest.raises(OpsError), job_run(lake, "ingest.x"):
        raise OpsError("ann@example.com is there twice")
    failed = events(lake)[-1]
    assert (failed["eventType"], failed["run"]["facets"]["errorMessage"]["message"]) == ("FAIL", "OpsError")
    assert "ann@example.com" not in json.dumps(failed)


def receiver(lake: Lake, httpserver: HTTPServer) -> Lake:
    return lake.with_settings(lineage="http", lineage_url=httpserver.url_for("/"))


HANGS = 3.0


def hang(request: Request) -> Response:
    time.sleep(HANGS)
    return Response("late")


@pytest.mark.parametrize(
    ("fail", "late"),
    [
        (lambda expected: expected.respond_with_data("", status=429), 0.0),
        (lambda expected: expected.respond_with_data("", status=500), 0.0),
        (lambda expected: expected.respond_with_handler(hang), HANGS),
    ],
    ids=["429", "500", "hanging"],
)
@pytest.mark.slow
def test_what_a_receiver_does_not_take_is_sent_first_and_in_order_next_time(
    lake: Lake, httpserver: HTTPServer, fail: Callable[[Any], None], late: float
) -> None:
    there = receiver(lake, httpserver)
    fail(httpserver.expect_request("/api/v1/lineage", method="POST"))
    started = time.monotonic()
    with job_run(there, "first"):
        for number in range(20):
            with job_run(there, f"inner {number}"):
                pass
    assert time.monotonic() - started < 5.5
    spooled = told(events(there, "spool"))
    assert len(spooled) == 42
    time.sleep(late)  # for the answer of the request that was given up
    httpserver.clear()
    httpserver.expect_request("/api/v1/lineage", method="POST").respond_with_data("", status=201)
    with job_run(there, "second"):
        pass
    received = [request.get_json() for request, _ in httpserver.log]
    assert told(received)[-44:] == [*spooled, ("START", "second"), ("COMPLETE", "second")]
    assert not (there.state / "lineage" / "spool.jsonl").exists()


def test_nobody_listening_harms_nothing(lake: Lake) -> None:
    there = lake.with_settings(lineage="http", lineage_url="http://127.0.0.1:9")
    with job_run(there, "job"):
        pass
    assert told(events(there, "spool")) == [("START", "job"), ("COMPLETE", "job")]


def test_an_event_that_is_refused_for_good_is_put_aside_and_the_others_go_on(
    lake: Lake, httpserver: HTTPServer
) -> None:
    """Given a receiver that answers 400 to one job, Then the rest arrives, and the one is kept with the reason."""
    there, taken = receiver(lake, httpserver), []

    def take(request: Request) -> Response:
        if request.get_json()["job"]["name"] == "poison":
            return Response("job name is not valid", status=400)
        taken.append(request.get_json())
        return Response("", status=201)

    httpserver.expect_request("/api/v1/lineage", method="POST").respond_with_handler(take)
    with job_run(there.with_settings(lineage_url="http://127.0.0.1:9"), "while it was down"):
        pass
    for name in ("poison", "after"):
        with job_run(there, name):
            pass
    assert told(taken) == [(state, job) for job in ("while it was down", "after") for state in ("START", "COMPLETE")]
    kept = [json.loads(line) for line in (there.state / "refused" / "lineage.jsonl").read_text().splitlines()]
    assert [(k["value"]["eventType"], k["value"]["job"]["name"]) for k in kept] == [
        ("START", "poison"), ("COMPLETE", "poison"),
    ]  # fmt: skip
    assert kept[0]["reason"] == "the lineage receiver answered 400: job name is not valid"
    with (there.state / "refused" / "lineage.jsonl").open("a") as file:
        file.write('{"at": "half')
    (text,) = refused.told(there)
    assert text.startswith("2 messages were refused for good") and "answered 400: job name is not valid" in text


def test_a_receiver_without_an_address_is_told(lake: Lake, tmp_path: Path) -> None:
    there = lake.with_settings(lineage="http")
    with job_run(there, "job"):
        pass
    assert waiting(there).startswith("LAKEHOUSE_LINEAGE_URL is not set: 2 lineage events wait in ")
    said: list[str] = []
    aftermath(there, said.append, unchanged=True)
    assert f"warning: {waiting(there)}" in said
    assert waiting(lake).startswith("2 lineage events wait"), "of a receiver that is no longer asked"


def sql_model(name: str, sql: str, layer: str = "gold", strategy: str = "merge", **config: Any) -> dict[str, Any]:
    node = files.model(name, layer=layer, strategy=strategy)
    node["config"] |= config
    node["compiled_code"] = sql
    return node


@pytest.fixture
def project(tmp_path: Path) -> Manifest:
    """Contacts from bronze, a history, a current view and two gold tables that read them."""
    history = sql_model(
        "slv_contacts_history",
        "select contact_id, email, _op, _source_lsn, _source_ts, _unsent, _batch_id from bronze.crm_contacts",
        "silver", "cdc_scd2", effective_at="_source_ts", sequence_by=["_source_lsn"],
    )  # fmt: skip
    current = sql_model(
        "slv_contacts",
        "with h as (select * from silver.slv_contacts_history) "
        "select contact_id, email, valid_from from h where is_current",
        "silver",
    )
    current["config"]["materialized"] = "view"
    dim = sql_model(
        "dim_customer",
        "with changed as (select * from gold__dim_customer__touched), c as (select slv_contacts.* from "
        "silver.slv_contacts left semi join changed on slv_contacts.contact_id = changed.customer_id) "
        "select md5(concat_ws('|', contact_id, valid_from)) as customer_key, contact_id as customer_id, "
        "lower(email) as email from c union all select 'unknown', null, null",
        replace_by="customer_id",
    )
    report = sql_model("rpt_domains", "select count(*) as n, max(email) as last_email from gold.dim_customer")
    files.write_manifest(tmp_path / "target", history, current, dim, report)
    return load_manifest(tmp_path / "target")


def test_columns_of_a_storage_table_are_those_of_its_model(lake: Lake, tmp_path: Path, project: Manifest) -> None:
    """Given a gold model that reads every event of a history, Then its columns lead through the history to bronze."""
    feature = sql_model(
        "feat_customer",
        "with e as (select * from silver.slv_contacts_history__cdc) select contact_id, "
        "case when not _cdc_deleted then email end as email, _source_ts as valid_at from e where not _cdc_truncate",
    )
    data = json.loads((tmp_path / "target" / "manifest.json").read_text())
    files.write_manifest(tmp_path / "target", *data["nodes"].values(), feature)
    found = ColumnLineage(lake, lake.manifest())
    email = found.upstream("gold.feat_customer", "email")
    assert email["gold.feat_customer", "email"] == (("silver.slv_contacts_history", "email"),)
    assert ("bronze.crm_contacts", "email") in email
    assert ("gold.feat_customer", "email") in found.downstream("bronze.crm_contacts", "email")


def test_columns_are_followed_to_bronze(lake: Lake, project: Manifest) -> None:
    columns = ColumnLineage(lake, project)
    key = columns.upstream("gold.dim_customer", "customer_key")
    assert key["gold.dim_customer", "customer_key"] == (
        ("silver.slv_contacts", "contact_id"),
        ("silver.slv_contacts", "valid_from"),
    )
    assert ("bronze.crm_contacts", "_source_ts") in key, "valid_from comes from effective_at"
    assert columns.columns("silver.slv_contacts_history") == [
        "contact_id", "email", "_source_lsn", "_source_ts", "valid_from", "valid_to", "is_current", "_batch_id",
    ]  # fmt: skip
    assert columns.of(columns.by_table["gold.rpt_domains"])["n"] == (), "a count of rows has no origin"


def test_columns_are_followed_to_reports(lake: Lake, project: Manifest) -> None:
    found = ColumnLineage(lake, project).downstream("bronze.crm_contacts", "email")
    assert set(found) == {
        ("bronze.crm_contacts", "email"),
        ("silver.slv_contacts_history", "email"),
        ("silver.slv_contacts", "email"),
        ("gold.dim_customer", "email"),
        ("gold.rpt_domains", "last_email"),
    }


def test_columns_are_followed_where_the_manifest_has_a_schema_prefix(lake: Lake, tmp_path: Path) -> None:
    """Given a project that was compiled under a prefix, When it is asked without one, Then the path is found."""
    node = sql_model("slv_rates", "select rate_date from dev_bronze.fx_rates", "silver")
    node["schema"] = "dev_silver"
    files.write_manifest(tmp_path / "target", node)
    files.add_to_manifest(tmp_path / "target", sources={"s": {"name": "fx_rates", "schema": "dev_bronze"}})
    columns = ColumnLineage(lake, lake.manifest())
    for name in ("fx_rates.rate_date", "dev_bronze.fx_rates.rate_date"):
        table, column = columns.find(name)
        assert columns.downstream(table, str(column))["dev_bronze.fx_rates", "rate_date"] == (
            ("dev_silver.slv_rates", "rate_date"),
        )


@pytest.mark.parametrize(
    ("email", "last_email", "found"),
    [
        ({"pii": True}, {"pii": True}, []),
        ({"pii": True}, {"not_pii": "an example"}, []),
        ({}, {}, ["gold.dim_customer.email is not marked"]),
        ({"not_pii": "of companies"}, {}, []),
        ({"pii": True}, {}, ["gold.rpt_domains.last_email is not marked"]),
        ({"pii": True}, {"not_pii": " "}, ["gold.rpt_domains.last_email has not_pii without a reason"]),
        ({"pii": True}, {"pii": True, "not_pii": "x"}, ["gold.rpt_domains.last_email has both pii and not_pii"]),
        ({"not_pii": "of companies"}, {"not_pii": "x"},
         ["gold.rpt_domains.last_email has not_pii, and is made from no personal column"]),
    ],
)  # fmt: skip
def test_a_column_that_is_made_from_a_personal_one_says_what_it_is(
    lake: Lake, project: Manifest, email: dict[str, Any], last_email: dict[str, Any], found: list[str]
) -> None:
    """Given a personal address in bronze, Then each column after it is marked, or has a reason; one step at a time."""
    path = lake.artifacts / "manifest.json"
    manifest = json.loads(path.read_text())
    marks = {"slv_contacts_history": ("email", {"pii": True}), "slv_contacts": ("email", {"pii": True}),
             "dim_customer": ("email", email), "rpt_domains": ("last_email", last_email)}  # fmt: skip
    for name, (column, meta) in marks.items():
        columns = {column: {"name": column, "meta": meta}}
        manifest["nodes"][f"model.lakehouse.{name}"]["columns"] = columns
    path.write_text(json.dumps(manifest))
    wrong = unmarked(ColumnLineage(lake, lake.manifest()))
    assert [f"{each.column} {each.fault}" for each in wrong] == found
    if found:
        with pytest.raises(OpsError, match=rf"1 columns .*{found[0].split(' ')[0]} \(dbt_project/models/gold"):
            refuse(wrong)
    refuse([])


def test_names_that_do_not_exist_and_models_that_are_not_compiled(
    lake: Lake, project: Manifest, tmp_path: Path
) -> None:
    columns = ColumnLineage(lake, project)
    assert columns.find("crm_contacts.email") == ("bronze.crm_contacts", "email")
    for name in ("dim_customer.email", "gold.dim_customer.email"):
        assert columns.find(name) == ("gold.dim_customer", "email")
    assert columns.find("bronze.crm_contacts") == ("bronze.crm_contacts", None)
    for wrong, told_ in {
        "nope": "no model or source 'nope'. `dbt ls` lists them",
        "dim_custmer.email": "no model or source 'dim_custmer'. The nearest: dim_customer",
        "gold.dim_custmer.email": "no model or source 'gold'",
        "dim_customer.emial": "dim_customer has no column 'emial'. The nearest: email",
        "dim_customer.x": "dim_customer has no column 'x'. The nearest: customer_key, customer_id, email",
        "dim_customer.email.x": "dim_customer has no column 'email.x'",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(told_)):
            columns.find(wrong)
    files.write_manifest(tmp_path / "target", files.model("dim_a"))
    raw = ColumnLineage(lake, lake.manifest())
    with pytest.raises(OpsError, match="dim_a is not compiled: run `dbt compile`"):
        raw.of(raw.by_table["gold.dim_a"])


def test_events_of_a_build_by_hand_are_the_same_runs_however_often_sent(
    lake: Lake, project: Manifest, tmp_path: Path
) -> None:
    nodes = {"model.lakehouse.dim_customer": "success", "test.lakehouse.key": "fail"}
    files.write_run_results(tmp_path / "target", nodes)
    path = tmp_path / "target" / "run_results.json"
    results = json.loads(path.read_text())
    results["metadata"]["invocation_id"] = "abc"
    for result in results["results"]:
        result["timing"] = [
            {"name": n, "started_at": "2026-01-02T03:04:05Z", "completed_at": "2026-01-02T03:04:09Z"}
            for n in ("a", "b")
        ]
    path.write_text(json.dumps(results))
    assert (emit(lake), emit(lake)) == (2, 2)
    found = events(lake)
    assert told(found[:4]) == [
        ("START", "dbt.dim_customer"), ("COMPLETE", "dbt.dim_customer"), ("START", "dbt.key"), ("FAIL", "dbt.key"),
    ]  # fmt: skip
    assert found[:4] == [{**event} for event in found[4:]], "the same runs, times and facets"
    assert len({event["run"]["runId"] for event in found}) == 2
    lineage = found[1]["outputs"][0]["facets"]["columnLineage"]["fields"]
    (origin,) = lineage["email"]["inputFields"]
    assert (origin["name"], origin["field"]) == ("silver.slv_contacts", "email")


def test_dbt_goes_on_without_a_manifest(lake: Lake, tmp_path: Path) -> None:
    NodeEvents(Lake(lake.settings, artifacts=tmp_path / "nothing")).start("model.lakehouse.x", "abc")
    assert events(lake) == []


@pytest.mark.slow
def test_a_command_that_fails_before_it_works_sends_fail(tmp_path: Path) -> None:
    home = tmp_path / "lake"
    assert lakeops(home, "ingest", "run", "nope").returncode == 2
    assert told(events(Lake(Settings(home=home)))) == [("START", "lakeops ingest run"), ("FAIL", "lakeops ingest run")]
