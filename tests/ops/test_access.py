"""Lake Formation's tags, filters and grants: the document, `grants apply` on moto, and Terraform with the same file.

moto keeps tags, assignments and grants, and cannot make data cells filters: their calls are checked by botocore's own
model of the service. Nothing here decides about a reader: only AWS does that.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import artifact_files as files
import boto3
import pyarrow as pa
import pytest
from botocore.stub import ANY, Stubber
from deltalake import write_deltalake
from test_terraform import SOURCE, plugins, terraform
from typer.testing import CliRunner

from python_ops.cli.app import app
from python_ops.jobs.catalog import Change, refuse_incomplete
from python_ops.jobs.catalog.access import Access, exported
from python_ops.jobs.catalog.lake_formation import grants
from python_ops.lake import aws as aws_clients
from python_ops.lake.artifacts import load_manifest
from python_ops.lake.config import Settings
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.marks import of_model

ANALYST, JOB = "arn:aws:iam::123456789012:role/analysts", "arn:aws:iam::123456789012:role/lakehouse-run"
KEY = "lakehouse.prod."


@pytest.fixture
def formation(aws: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lake Formation as moto plays it, which is made to answer where it fails and AWS does not: for a resource that
    has no tags, and for grants of one principal by tags (as Terraform asks).
    """
    from moto.lakeformation import models

    init, listed = models.LakeFormationBackend.__init__, models.LakeFormationBackend.list_permissions

    def begin(self: Any, *given: Any, **named: Any) -> None:
        init(self, *given, **named)
        self.lf_database_tags, self.lf_table_tags = defaultdict(list), defaultdict(list)

    def by_principal(self: Any, catalog_id: str, principal: Any = None, resource: Any = None, **rest: Any) -> Any:
        found = listed(self, catalog_id, None, None, **rest)
        return [each for each in found if principal is None or each["Principal"] == principal]

    monkeypatch.setattr(models.LakeFormationBackend, "__init__", begin)
    monkeypatch.setattr(models.LakeFormationBackend, "list_permissions", by_principal)
    monkeypatch.setattr(models.ListPermissionsResource, "__init__", lambda self, **parts: None)
    return boto3.client("lakeformation")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two gold tables and a bronze one."""
    settings = Settings(home=tmp_path / "lake", target="prod", access={"analyst": (ANALYST,), "service": (JOB,)})
    own = Lake(settings)
    customer = files.model("dim_customer", columns={"customer_id": "", "email": ""})
    customer["columns"]["email"]["meta"] = {"pii": True}
    customer["config"]["group"] = "CRM"
    orders = files.model("fct_orders", columns={"order_id": "", "country": ""})
    orders["config"]["meta"] = {"sensitivity": "secret"}
    files.write_manifest(own.artifacts, customer, orders)
    source = {"name": "crm_contacts", "schema": "bronze", "config": {"meta": {}}}
    files.add_to_manifest(own.artifacts, sources={"source.lakehouse.bronze.crm_contacts": source})
    for layer, name, columns in (
        ("gold", "dim_customer", ("customer_id", "email", "undescribed")),
        ("gold", "fct_orders", ("order_id", "country")),
        ("bronze", "crm_contacts", ("contact_id", "email", "_extra", "_batch_id")),
    ):  # fmt: skip
        path = own.table_path(layer, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_deltalake(str(path), pa.table({column: ["x"] for column in columns}))
    return own


def change_model(lake: Lake, name: str, **meta: Any) -> None:
    path = lake.artifacts / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["nodes"][f"model.lakehouse.{name}"]["config"]["meta"] = meta
    path.write_text(json.dumps(manifest))


def to_do(changes: Sequence[Change]) -> dict[str, str]:
    return {change.name: change.action.value for change in changes if change.action.value != "unchanged"}


def state() -> dict[str, Any]:
    """All that Lake Formation was told, in an order of its own."""
    from moto.lakeformation.models import lakeformation_backends

    client = boto3.client("lakeformation")
    (backend,) = [
        each for of in lakeformation_backends.values() for region, each in of.items() if region == "eu-west-1"
    ]
    tags = {tag["TagKey"]: sorted(tag["TagValues"]) for tag in client.list_lf_tags()["LFTags"]}
    assigned = {
        key[1:]: {tag["TagKey"]: tag["TagValues"] for tag in given}
        for of in (backend.lf_database_tags, backend.lf_table_tags, backend.lf_columns_tags)
        for key, given in of.items()
        if given
    }
    given = [
        (
            each["Principal"]["DataLakePrincipalIdentifier"], policy["ResourceType"], sorted(each["Permissions"]),
            {tag["TagKey"]: sorted(tag["TagValues"]) for tag in policy["Expression"]},
        )
        for each in client.list_permissions()["PrincipalResourcePermissions"]
        for policy in [each["Resource"]["LFTagPolicy"]]
    ]  # fmt: skip
    return {"tags": tags, "assigned": assigned, "granted": sorted(given, key=repr)}


def test_marks_become_tags_and_what_nobody_judged_has_none(lake: Lake) -> None:
    document = Access(lake).document
    assert document["databases"]["gold"]["tags"] == {f"{KEY}layer": "gold"}
    assert document["tables"]["gold.dim_customer"]["tags"] == {
        f"{KEY}domain": "crm", f"{KEY}rows": "all", f"{KEY}sensitivity": "internal",
    }  # fmt: skip
    assert document["tables"]["gold.fct_orders"]["tags"][f"{KEY}sensitivity"] == "secret"
    assert document["tables"]["bronze.crm_contacts"]["tags"][f"{KEY}domain"] == "crm", "as its contract says"
    told = {
        (item["table"], column): item["tags"] for item in document["columns"].values() for column in item["columns"]
    }
    personal = {f"{KEY}pii": "true", f"{KEY}sensitivity": "personal"}
    assert told == {
        ("dim_customer", "customer_id"): {f"{KEY}pii": "false"}, ("dim_customer", "email"): personal,
        ("fct_orders", "order_id"): {f"{KEY}pii": "false"}, ("fct_orders", "country"): {f"{KEY}pii": "false"},
        ("crm_contacts", "contact_id"): {f"{KEY}pii": "false"}, ("crm_contacts", "email"): personal,
        ("crm_contacts", "_batch_id"): {f"{KEY}pii": "false"},
    }, "and neither `undescribed` nor `_extra`"  # fmt: skip
    assert document["tags"][f"{KEY}layer"]["values"] == ["bronze", "dlq", "gold", "ops", "silver"]
    (of_analyst,) = [g for g in document["grants"].values() if (g["principal"], g["type"]) == (ANALYST, "TABLE")]
    assert of_analyst["permissions"] == ["DESCRIBE", "SELECT"]
    assert of_analyst["where"] == {f"{KEY}layer": ["gold"], f"{KEY}pii": ["false"], f"{KEY}rows": ["all"]}


def test_a_table_that_cannot_be_read_fails_alone_and_is_not_left_out_of_a_file(lake: Lake, formation: Any) -> None:
    (log,) = (lake.table_path("gold", "fct_orders") / "_delta_log").glob("*.json")
    log.write_text("{}")
    found = to_do(grants(lake, execute=True))
    assert [name for name, action in found.items() if action == "failed"] == ["tables gold.fct_orders"]
    assert found["tables gold.dim_customer"] == "create"
    with pytest.raises(OpsError, match=r"nothing was exported\. gold\.fct_orders"):
        exported(lake)


def test_the_engines_own_columns_are_judged_by_what_they_hold(tmp_path: Path) -> None:
    """So a view on a history is readable; the struct of filled values is as personal as the model's columns."""
    contacts = files.model("slv_contacts_history", layer="silver", columns={"email": ""})
    for personal, expected in ((True, "true"), (False, "false")):
        contacts["columns"]["email"]["meta"] = {"pii": personal}
        files.write_manifest(tmp_path, contacts)
        marks = of_model(load_manifest(tmp_path).models[contacts["unique_id"]]).columns
        assert {name: marks[name]["pii"] for name in ("_cdc_filled", "_cdc_visible", "_batch_id")} == {
            "_cdc_filled": expected, "_cdc_visible": "false", "_batch_id": "false",
        }  # fmt: skip
        assert "_extra" not in marks


def test_a_plan_writes_nothing_and_a_second_apply_changes_nothing(lake: Lake, formation: Any) -> None:
    planned = to_do(grants(lake))
    assert set(planned.values()) == {"create"} and not formation.list_lf_tags()["LFTags"]
    assert to_do(grants(lake, execute=True)) == planned
    made = state()
    assert to_do(grants(lake, execute=True)) == {} and state() == made


def test_what_changes_in_the_project_or_by_hand_is_put_right(lake: Lake, formation: Any) -> None:
    grants(lake, execute=True)
    asked = state()
    policy = {"ResourceType": "TABLE", "Expression": [{"TagKey": f"{KEY}layer", "TagValues": ["bronze"]}]}
    formation.grant_permissions(
        Principal={"DataLakePrincipalIdentifier": ANALYST}, Resource={"LFTagPolicy": policy}, Permissions=["SELECT"],
        PermissionsWithGrantOption=["SELECT"],
    )  # fmt: skip
    formation.add_lf_tags_to_resource(
        Resource={"TableWithColumns": {"DatabaseName": "gold", "Name": "dim_customer", "ColumnNames": ["email"]}},
        LFTags=[{"TagKey": f"{KEY}pii", "TagValues": ["false"]}],
    )
    formation.update_lf_tag(TagKey=f"{KEY}pii", TagValuesToAdd=["maybe"])
    assert to_do(grants(lake)) == {
        f"grants {ANALYST} table {KEY}layer=bronze": "remove", "columns gold.dim_customer": "update",
        f"tags {KEY}pii": "update",
    }  # fmt: skip
    grants(lake, execute=True)
    assert state() == asked
    lake.settings = lake.settings.model_copy(update={"access": {"service": (JOB,)}})
    assert set(to_do(grants(lake, execute=True)).values()) == {"remove"}, "who has lost a role has lost its grants"
    assert {principal for principal, *_ in state()["granted"]} == {JOB}


def test_what_is_somebody_elses_stays(lake: Lake, formation: Any) -> None:
    """Also what has a key of another environment; a table that is left to IAM is named."""
    database, other, developers = {"Database": {"Name": "gold"}}, "lakehouse.dev.layer", "lakehouse.prod.anna.layer"
    for key in (other, developers):
        formation.create_lf_tag(TagKey=key, TagValues=["gold"])
    expression = [{"TagKey": other, "TagValues": ["gold"]}]
    for principal, resource in (
        (ANALYST, {"Table": {"DatabaseName": "gold", "Name": "dim_customer"}}),
        (ANALYST, {"LFTagPolicy": {"ResourceType": "DATABASE", "Expression": expression}}),
        ("IAM_ALLOWED_PRINCIPALS", database),
    ):
        formation.grant_permissions(
            Principal={"DataLakePrincipalIdentifier": principal}, Resource=resource, Permissions=["ALL"]
        )
    found = grants(lake, execute=True)
    assert to_do(found)["databases gold"] == "left"
    assert "IAM alone decides" in next(change.why for change in found if change.action == "left")
    kept = formation.list_permissions()["PrincipalResourcePermissions"]
    assert sum(each["Permissions"] == ["ALL"] for each in kept) == 3
    assert {other, developers} <= {tag["TagKey"] for tag in formation.list_lf_tags()["LFTags"]}
    assert set(to_do(grants(lake))) == {"databases gold"}


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """Lake Formation by botocore's own model of it: each call is what the service takes, in this order."""
    for name, value in {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    client, sts = boto3.client("lakeformation", region_name="eu-west-1"), boto3.client("sts", region_name="eu-west-1")
    whose = Stubber(sts)
    whose.add_response("get_caller_identity", {"Account": "123456789012"})
    monkeypatch.setattr(aws_clients, "client", lambda service, **_: sts if service == "sts" else client)
    with whose, Stubber(client) as stub:
        yield stub


def test_a_part_of_a_table_is_a_filter_and_the_table_is_no_longer_granted_as_a_whole(
    lake: Lake, stubbed: Stubber
) -> None:
    lake.settings = lake.settings.model_copy(update={"access": {"analyst": (ANALYST,)}})
    change_model(lake, "dim_customer", access_filters={"analyst": {"rows": "customer_id <> 'x'"}})
    document = Access(lake).document
    assert document["tables"]["gold.dim_customer"]["tags"][f"{KEY}rows"] == "filtered"
    assert document["filters"] == {
        "gold.dim_customer analyst": {
            "database": "gold", "table": "dim_customer", "name": f"{KEY}analyst", "rows": "customer_id <> 'x'",
            "without": ["email", "undescribed"],
        }
    }  # fmt: skip
    old = {
        "TableCatalogId": "123456789012", "DatabaseName": "gold", "TableName": "fct_orders", "Name": f"{KEY}analyst",
        "RowFilter": {"AllRowsWildcard": {}}, "ColumnWildcard": {},
    }  # fmt: skip
    others = {**old, "Name": "by_hand"}
    stubbed.add_response("list_lf_tags", {})
    stubbed.add_client_error("get_resource_lf_tags", "EntityNotFoundException")  # bronze is not in Glue
    for count in (1, 1, 1, 1, 2, 2, 2):  # databases; a table and its columns
        for _ in range(count):
            stubbed.add_response("get_resource_lf_tags", {}, {"Resource": ANY, "ShowAssignedLFTags": True})
    stubbed.add_response("list_data_cells_filter", {"DataCellsFilters": [old, others]})
    stubbed.add_response("list_permissions", {"PrincipalResourcePermissions": []})
    where = {"TableCatalogId": "123456789012", "DatabaseName": "gold", "Name": f"{KEY}analyst"}
    stubbed.add_response("delete_data_cells_filter", {}, {**where, "TableName": "fct_orders"})
    for _ in document["tags"]:
        stubbed.add_response("create_lf_tag", {}, {"TagKey": ANY, "TagValues": ANY})
    for _ in [*document["databases"], *document["tables"], *document["columns"]][1:]:
        stubbed.add_response("add_lf_tags_to_resource", {"Failures": []}, {"Resource": ANY, "LFTags": ANY})
    made = {
        **where, "TableName": "dim_customer", "RowFilter": {"FilterExpression": "customer_id <> 'x'"},
        "ColumnWildcard": {"ExcludedColumnNames": ["email", "undescribed"]},
    }  # fmt: skip
    stubbed.add_response("create_data_cells_filter", {}, {"TableData": made})
    for _ in document["grants"]:
        stubbed.add_response("grant_permissions", {}, {"Principal": ANY, "Resource": ANY, "Permissions": ANY})
    cells = {"DataCellsFilter": {**where, "TableName": "dim_customer"}}
    to = {"DataLakePrincipalIdentifier": ANALYST}
    stubbed.add_response("grant_permissions", {}, {"Principal": to, "Resource": cells, "Permissions": ["SELECT"]})
    changes = grants(lake, execute=True)
    refuse_incomplete(changes)
    stubbed.assert_no_pending_responses()
    assert to_do(changes)["filters gold.fct_orders analyst"] == "remove"
    assert to_do(changes)["databases bronze"] == "left"


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"analyst": {"rows": "nobody = 1"}}, "names columns it lacks"),
        ({"analyst": {"rows": "order_id ="}}, "must be roles with `rows`"),
        ({"analyst": {"where": "x"}}, "must be roles with `rows`"),
        (["analyst"], "must be roles with `rows`"),
        ({"engineer": {"rows": "true"}}, "may read filtered tables as a whole"),
        ({"auditor": {"rows": "true"}}, "may read filtered tables as a whole, or none"),
        ({"nobody": {"rows": "true"}}, "is not in roles.yml"),
    ],
)
def test_a_filter_that_cannot_hold_is_refused(lake: Lake, filters: Any, told: str) -> None:
    change_model(lake, "fct_orders", access_filters=filters)
    with pytest.raises(ConfigError, match=told):
        Access(lake)


def test_an_unknown_role_or_an_empty_lake_is_refused(lake: Lake, tmp_path: Path) -> None:
    lake.settings = lake.settings.model_copy(update={"access": {"boss": (ANALYST,)}})
    with pytest.raises(ConfigError, match=r"names boss, which roles\.yml lacks"):
        Access(lake)
    with pytest.raises(OpsError, match="no tables"):
        Access(Lake(Settings(home=tmp_path / "empty", target="prod"), artifacts=lake.artifacts))
    with pytest.raises(ValueError, match="string_pattern_mismatch"):
        Settings(access={"analyst": ("analysts",)})


def test_commands_show_a_plan_and_act(lake: Lake, formation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"HOME": str(lake.home), "STATE_STORE": "file", "SECRETS": "file", "LINEAGE": "file"}
    for name, value in {**given, "ACCESS": json.dumps({"analyst": [ANALYST]})}.items():
        monkeypatch.setenv(f"LAKEHOUSE_{name}", value)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["catalog", "grants", *arguments, "--env", "prod"], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert "Nothing was done" in run("plan") and "create" in run("apply")
    assert "create" in run("apply", "--execute")
    assert run("plan").endswith("entries are as they should be.\n") and "create" not in run("plan")
    assert json.loads(run("export")).keys() == Access(lake).document.keys()


ROOT = """
terraform {
  required_providers {
    aws = { source = "hashicorp/aws", version = "5.100.0" }
  }
}
provider "aws" { region = "eu-west-1" }
module "lake_formation" {
  source = "%s"
  grants = jsondecode(file("grants.json"))
}
"""


class Module:
    """infra/terraform/modules/lake_formation, with what a lake's `grants export` prints."""

    def __init__(self, folder: Path, lake: Lake) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "main.tf").write_text(ROOT % (SOURCE / "modules" / "lake_formation"))
        (folder / "grants.json").write_text(json.dumps(Access(lake).document))
        self("init", "-input=false", f"-plugin-dir={plugins()}")

    def __call__(self, *arguments: str) -> str:
        return terraform(self.folder, *arguments)


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.skipif(not shutil.which("terraform") or not plugins(), reason="no terraform, or no provider for it")
def test_terraform_makes_what_apply_makes(lake: Lake, formation: Any, aws: str, tmp_path: Path) -> None:
    """And `plan` finds nothing to do after it. Filters are planned by Terraform and not made: moto has no such call."""
    grants(lake, execute=True)
    made = state()
    urllib.request.urlopen(urllib.request.Request(f"{aws}/moto-api/reset", method="POST"), timeout=10).close()
    assert set(to_do(grants(lake)).values()) == {"create"}
    terraform = Module(tmp_path / "terraform", lake)
    terraform("apply", "-auto-approve", "-input=false")
    assert state() == made
    assert to_do(grants(lake)) == {}

    change_model(lake, "dim_customer", access_filters={"analyst": {"rows": "customer_id <> 'x'"}})
    document = Access(lake).document
    (terraform.folder / "grants.json").write_text(json.dumps(document))
    terraform("plan", "-out=filters", "-refresh=false", "-input=false")
    planned = json.loads(terraform("show", "-json", "filters"))["resource_changes"]
    new = {each["type"]: each["change"]["after"] for each in planned if each["change"]["actions"] == ["create"]}
    (part,) = new["aws_lakeformation_data_cells_filter"]["table_data"]
    assert (part["table_name"], part["name"]) == ("dim_customer", f"{KEY}analyst")
    assert part["row_filter"][0]["filter_expression"] == "customer_id <> 'x'"
    assert part["column_wildcard"][0]["excluded_column_names"] == ["email", "undescribed"]
    assert new["aws_lakeformation_permissions"]["data_cells_filter"][0]["name"] == f"{KEY}analyst"
