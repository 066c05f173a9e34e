"""Lake Formation brought to what the document of `access.py` says, and what it says now in the same form.

Only what bears the environment's own keys is changed or removed: tags, assignments of them, filters by their name,
grants whose expression has no other key. Grants on tables and databases by name are somebody else's and stay; those of
IAM_ALLOWED_PRINCIPALS, which leave a table to IAM alone, are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

from python_ops.jobs.catalog import Action, Change, carried_out
from python_ops.jobs.catalog.access import KINDS, Access, Document, grant_name, own_prefix
from python_ops.lake import aws
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake

_GRANTABLE = " WITH GRANT OPTION"
_EVERYBODY = "IAM_ALLOWED_PRINCIPALS"


def grants(lake: Lake, execute: bool = False) -> list[Change]:
    """Makes Lake Formation's tags, filters and grants those of the project and of the setting `access`.

    Args:
        execute: Act; otherwise only the plan is made.

    Returns:
        Every item: tags, then what bears them, then filters, then grants.

    Raises:
        ConfigError: boto3 is missing, or roles, principals or filters are wrong.
        OpsError: Lake Formation does not answer or admit, or there is nothing to grant. What fails at one item is its
            `FAILED` change.
    """
    service, access = _LakeFormation(lake), Access(lake)
    wanted, absent = _by_table(access.document), set[str]()
    present = service.present(access, absent)
    steps: list[tuple[Change, Callable[[], None] | None]] = []
    for kind in KINDS:
        for key in sorted(wanted[kind].keys() | present[kind].keys()):
            has, should = present[kind].get(key), wanted[kind].get(key)
            name = f"{kind} {key}"
            if key in absent and kind in ("databases", "tables", "columns", "filters", "filter_grants"):
                steps.append((Change(name, Action.LEFT, "Glue lacks it: `lakeops catalog register --execute`"), None))
            elif has == should:
                steps.append((Change(name, Action.UNCHANGED), None))
            else:
                steps.append(
                    (Change(name, *_differs(has, should)), partial(service.set, kind, has or {}, should or {}))
                )
    # What is removed goes first, grants before what they are on.
    removed = [step for step in reversed(steps) if step[0].action is Action.REMOVE]
    others = [step for step in steps if step[0].action is not Action.REMOVE]
    done = [carried_out(change, act if execute else None) for change, act in (*removed, *others)]
    open_to_all = [Change(f"databases {name}", Action.LEFT, why) for name, why in sorted(service.left_to_iam.items())]
    unread = [Change(f"tables {name}", Action.FAILED, why) for name, why in sorted(access.unread.items())]
    return [*done, *unread, *open_to_all]


def _differs(has: Mapping[str, Any] | None, should: Mapping[str, Any] | None) -> tuple[Action, str]:
    if should is None:
        return Action.REMOVE, _told(has or {})
    if has is None:
        return Action.CREATE, _told(should)
    keys = [key for key in sorted(has.keys() | should.keys()) if has.get(key) != should.get(key)]
    return Action.UPDATE, "; ".join(f"{key}: {has.get(key)} → {should.get(key)}" for key in keys)


def _told(item: Mapping[str, Any]) -> str:
    """What an item is about, besides its name."""
    parts = [", ".join(item.get("permissions") or item.get("values") or ()), item.get("rows", "")]
    parts += [f"without {', '.join(item['without'])}" if item.get("without") else ""]
    parts += [f"{key}={value}" for key, value in item.get("tags", {}).items()]
    if "columns" in item:
        parts = [f"{len(item['columns'])} columns"]
    return "; ".join(part for part in parts if part)


def _by_table(document: Document) -> Document:
    """The document with its columns by table, each with its tags: so a column that changes its tags is one change."""
    tables: dict[str, dict[str, Any]] = {}
    for item in document["columns"].values():
        place = {"database": item["database"], "table": item["table"]}
        of_table = tables.setdefault(f"{item['database']}.{item['table']}", {**place, "columns": {}})
        of_table["columns"].update(dict.fromkeys(item["columns"], item["tags"]))
    return {**document, "columns": tables}


class _LakeFormation:
    """Calls of AWS Lake Formation, in the document's words."""

    def __init__(self, lake: Lake) -> None:
        self.prefix = own_prefix(lake)
        self.left_to_iam: dict[str, str] = {}
        with self._asked("anything"):
            self.client = aws.client("lakeformation", answer_seconds=20)

    def _asked(self, what: str) -> AbstractContextManager[None]:
        right = "The role must be an administrator of the data lake (docs/runbooks/data_access_governance.md)."
        return aws.explained("Lake Formation", what, right)

    def _is_own(self, name: str) -> bool:
        """Whether a key or a filter is the environment's: not that of a schema prefix below it either."""
        return name.startswith(self.prefix) and "." not in name.removeprefix(self.prefix)

    @cached_property
    def _account(self) -> str:
        return str(aws.client("sts").get_caller_identity()["Account"])

    # What there is.

    def present(self, access: Access, absent: set[str]) -> Document:
        """What Lake Formation says of the environment, and the names of the tables that Glue lacks."""
        found: Document = {kind: {} for kind in KINDS}
        for tag in self._pages("list_lf_tags", "LFTags"):
            if self._is_own(tag["TagKey"]):
                found["tags"][tag["TagKey"]] = {"key": tag["TagKey"], "values": sorted(tag["TagValues"])}
        for kind in ("databases", "tables"):
            for key, item in access.document[kind].items():
                place = {name: item[name] for name in ("database", "table") if name in item}
                tags = self._tags_of(key, place, access.columns.get(key, []), absent)
                if tags[0]:
                    found[kind][key] = {**place, "tags": tags[0]}
                if tags[1]:
                    found["columns"][key] = {**place, "columns": tags[1]}
        for item in self._pages("list_data_cells_filter", "DataCellsFilters"):
            if self._is_own(item["Name"]):
                place = {"database": item["DatabaseName"], "table": item["TableName"]}
                rows = item.get("RowFilter", {}).get("FilterExpression", "")
                without = sorted(item.get("ColumnWildcard", {}).get("ExcludedColumnNames", ()))
                key = f"{place['database']}.{place['table']} {item['Name'].removeprefix(self.prefix)}"
                found["filters"][key] = {**place, "name": item["Name"], "rows": rows, "without": without}
        for given in self._pages("list_permissions", "PrincipalResourcePermissions"):
            self._grant(given, found, access)
        return found

    def _grant(self, given: Mapping[str, Any], found: Document, access: Access) -> None:
        resource, principal = given["Resource"], given["Principal"]["DataLakePrincipalIdentifier"]
        grantable = [f"{name}{_GRANTABLE}" for name in given.get("PermissionsWithGrantOption") or ()]
        item: dict[str, Any] = {"principal": principal, "permissions": sorted([*given["Permissions"], *grantable])}
        if policy := resource.get("LFTagPolicy"):
            where = {tag["TagKey"]: sorted(tag["TagValues"]) for tag in policy.get("Expression") or ()}
            if where and all(map(self._is_own, where)):
                key = grant_name(principal, policy["ResourceType"], where)
                found["grants"][key] = {**item, "type": policy["ResourceType"], "where": where}
        elif (cells := resource.get("DataCellsFilter")) and self._is_own(cells["Name"]):
            place = {"database": cells["DatabaseName"], "table": cells["TableName"], "name": cells["Name"]}
            role = cells["Name"].removeprefix(self.prefix)
            found["filter_grants"][f"{place['database']}.{place['table']} {role} {principal}"] = {**place, **item}
        elif principal == _EVERYBODY:
            of_table = resource.get("Table") or resource.get("TableWithColumns") or {}
            name = of_table.get("DatabaseName") or (resource.get("Database") or {}).get("Name", "")
            if name in access.document["databases"]:
                self.left_to_iam[name] = (
                    f"{_EVERYBODY} has rights there, so IAM alone decides: docs/runbooks/data_access_governance.md"
                )

    def _tags_of(
        self, key: str, place: Mapping[str, str], columns: list[str], absent: set[str]
    ) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """The environment's tags of a database or a table, and of the columns; none inherited."""
        with self._asked(f"read the tags of {key}"):
            ask = partial(self.client.get_resource_lf_tags, ShowAssignedLFTags=True)
            try:
                said = ask(Resource=_resource(place))
                of_columns = ask(Resource=_resource(place, columns)) if columns else {}
            except self.client.exceptions.EntityNotFoundException:
                absent.add(key)
                return {}, {}
        own = self._own(said.get("LFTagsOnTable" if "table" in place else "LFTagOnDatabase"))
        each = {item["Name"]: self._own(item["LFTags"]) for item in of_columns.get("LFTagsOnColumns") or ()}
        return own, {column: tags for column, tags in each.items() if tags}

    def _own(self, tags: list[Mapping[str, Any]] | None) -> dict[str, str]:
        return {tag["TagKey"]: tag["TagValues"][0] for tag in tags or () if self._is_own(tag["TagKey"])}

    def _pages(self, call: str, what: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            with self._asked(call):
                answer = getattr(self.client, call)(**token)
            yield from answer.get(what) or ()
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    # What is to be. An empty item is one that is not there.

    def set(self, kind: str, has: Mapping[str, Any], should: Mapping[str, Any]) -> None:
        """Makes one item what it should be."""
        with self._asked(f"change {kind}"):
            match kind:
                case "tags":
                    self._tag(has, should)
                case "databases" | "tables":
                    self._assign(_resource(should or has), has.get("tags", {}), should.get("tags", {}))
                case "columns":
                    self._assign_columns(should or has, has.get("columns", {}), should.get("columns", {}))
                case "filters":
                    self._filter(has, should)
                case _:
                    self._permit(has, should)

    def _tag(self, has: Mapping[str, Any], should: Mapping[str, Any]) -> None:
        if not has:
            self.client.create_lf_tag(TagKey=should["key"], TagValues=should["values"])
        elif not should:
            self.client.delete_lf_tag(TagKey=has["key"])
        else:
            more, less = (sorted(set(a["values"]) - set(b["values"])) for a, b in ((should, has), (has, should)))
            given = {"TagValuesToAdd": more, "TagValuesToDelete": less}
            self.client.update_lf_tag(TagKey=has["key"], **{name: values for name, values in given.items() if values})

    def _assign(self, resource: Mapping[str, Any], has: Mapping[str, str], should: Mapping[str, str]) -> None:
        calls = (
            (self.client.remove_lf_tags_from_resource, {key: has[key] for key in has if key not in should}),
            (self.client.add_lf_tags_to_resource, should),
        )
        for call, tags in calls:
            if not tags:
                continue
            answer = call(Resource=resource, LFTags=[{"TagKey": key, "TagValues": [tags[key]]} for key in sorted(tags)])
            if failures := answer.get("Failures"):
                told = "; ".join(f"{each['LFTag']['TagKey']}: {each['Error']['ErrorMessage']}" for each in failures)
                raise OpsError(f"Lake Formation refused tags: {told}.")

    def _assign_columns(
        self, place: Mapping[str, Any], has: Mapping[str, Mapping[str, str]], should: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Columns that go from the same tags to the same tags are one call."""
        alike: dict[str, list[str]] = {}
        for column in sorted(has.keys() | should.keys()):
            if has.get(column) != should.get(column):
                alike.setdefault(repr((has.get(column), should.get(column))), []).append(column)
        for columns in alike.values():
            self._assign(_resource(place, columns), has.get(columns[0], {}), should.get(columns[0], {}))

    def _filter(self, has: Mapping[str, Any], should: Mapping[str, Any]) -> None:
        place = {"DatabaseName": (should or has)["database"], "TableName": (should or has)["table"]}
        whose = {"TableCatalogId": self._account, **place, "Name": (should or has)["name"]}
        if not should:
            self.client.delete_data_cells_filter(**whose)
            return
        change = self.client.update_data_cells_filter if has else self.client.create_data_cells_filter
        rows = {"FilterExpression": should["rows"]} if should["rows"] else {"AllRowsWildcard": {}}
        columns = {"ExcludedColumnNames": should["without"]} if should["without"] else {}
        change(TableData={**whose, "RowFilter": rows, "ColumnWildcard": columns})

    def _permit(self, has: Mapping[str, Any], should: Mapping[str, Any]) -> None:
        item = should or has
        if "where" in item:
            expression = [{"TagKey": key, "TagValues": values} for key, values in item["where"].items()]
            resource = {"LFTagPolicy": {"ResourceType": item["type"], "Expression": expression}}
        else:
            place = {"DatabaseName": item["database"], "TableName": item["table"], "Name": item["name"]}
            resource = {"DataCellsFilter": {"TableCatalogId": self._account, **place}}
        to = {"Principal": {"DataLakePrincipalIdentifier": item["principal"]}, "Resource": resource}
        had, wants = set(has.get("permissions", ())), set(should.get("permissions", ()))
        if surplus := had - wants:
            grantable = {name.removesuffix(_GRANTABLE) for name in surplus if name.endswith(_GRANTABLE)}
            revoked = {name for name in surplus if not name.endswith(_GRANTABLE)} | grantable
            had -= revoked  # a right to grant goes with the right; one that is wanted is granted again
            self.client.revoke_permissions(
                **to, Permissions=sorted(revoked), PermissionsWithGrantOption=sorted(grantable)
            )
        if missing := sorted(wants - had):
            self.client.grant_permissions(**to, Permissions=missing)


def _resource(place: Mapping[str, Any], columns: list[str] | None = None) -> dict[str, Any]:
    """A database, a table, or columns of a table, as Lake Formation names them."""
    if "table" not in place:
        return {"Database": {"Name": place["database"]}}
    named = {"DatabaseName": place["database"], "Name": place["table"]}
    return {"TableWithColumns": {**named, "ColumnNames": columns}} if columns else {"Table": named}
