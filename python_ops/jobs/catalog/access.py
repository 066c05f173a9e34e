"""Who may read what: one document of Lake Formation's tags, filters and grants, for `grants apply` and for Terraform.

It is made from the marks of contracts and models (`lake/marks.py`), from `roles.yml`, and from the environment's
setting `access`. Every tag's key begins with the environment's name, because an account has one set of keys; whatever
has such a key is the environment's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlglot
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlglot import exp

from python_ops.jobs.catalog.entries import Entries
from python_ops.lake.artifacts import Model
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.home import LAYERS
from python_ops.lake.lake import Lake
from python_ops.lake.marks import INTERNAL, PERSONAL

Document = dict[str, dict[str, dict[str, Any]]]
"""For each kind of item, the items by a name of their own."""

KINDS = ("tags", "databases", "tables", "columns", "filters", "grants", "filter_grants")
_ROLES = Path(__file__).with_name("roles.yml")
_TAGS = ("layer", "domain", "sensitivity", "pii", "rows")


class Role(BaseModel):
    """A role of roles.yml, which says what each field means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on_databases: tuple[str, ...]
    on_tables: tuple[str, ...]
    where: Mapping[str, tuple[str, ...]]


class Filter(BaseModel):
    """What a role gets of a table: `access_filters` in a model's meta, by role.

    Attributes:
        rows: A condition in Lake Formation's SQL, such as `country = 'DE'`; empty: every row.
        without: Columns that it does not get, besides those that the role's `where` leaves out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: str = ""
    without: tuple[str, ...] = ()


class Access:
    """What Lake Formation should say of an environment.

    Attributes:
        document: What `lakeops catalog grants export` prints.
        columns: Columns of each table, those included that have no tag.
        unread: Why a table or view is not in the document, by name.

    Raises:
        ConfigError: the setting names an unknown role, or a model's filter cannot hold.
        OpsError: there is no manifest, or the lake has no table.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake, self.prefix = lake, own_prefix(lake)
        self.roles = {name: Role(**given) for name, given in yaml.safe_load(_ROLES.read_text()).items()}
        for name, role in self.roles.items():
            if unknown := sorted(role.where.keys() - set(_TAGS)):
                raise ConfigError(
                    f"{_ROLES.name}: `where` of {name} has {', '.join(unknown)}. Known: {', '.join(_TAGS)}."
                )
        if unknown := sorted(lake.settings.access.keys() - self.roles.keys()):
            raise ConfigError(
                f"The setting access names {', '.join(unknown)}, which {_ROLES.name} lacks. Known: "
                f"{', '.join(self.roles)}. Correct LAKEHOUSE_ACCESS, or add the role."
            )
        self.document: Document = {kind: {} for kind in KINDS}
        self.columns: dict[str, list[str]] = {}
        self.unread: dict[str, str] = {}
        self._values: dict[str, set[str]] = {
            "layer": set(LAYERS), "domain": set(), "sensitivity": {INTERNAL, PERSONAL}, "pii": {"true", "false"},
            "rows": {"all", "filtered"},
        }  # fmt: skip
        for layer in LAYERS:
            schema = lake.schema_name(layer)
            self.document["databases"][schema] = {"database": schema, "tags": self._tagged({"layer": layer})}
        entries = Entries(lake)
        for name in entries.names():
            try:
                self.columns[name] = [column.lower() for column in entries.types(name)]
            except OpsError as exc:  # one broken view does not keep a leaver's grants
                self.unread[name] = str(exc)
            else:
                self._table(name, entries)
        if not self.columns:
            raise OpsError(f"The lake in {lake.settings.place} has no tables, so there is nothing to grant yet.")
        for name in self.roles:
            for principal in lake.settings.access.get(name, ()):
                self._grant(name, principal)
        self.document["tags"] = {
            self.prefix + tag: {"key": self.prefix + tag, "values": sorted(values)}
            for tag, values in self._values.items()
            if values
        }

    def _table(self, name: str, entries: Entries) -> None:
        """Tags of a table or view and of its columns, and the filters on it."""
        database, _, table = name.partition(".")
        place, marks, model = {"database": database, "table": table}, entries.marks(name), entries.models.get(name)
        columns = {
            column.lower(): mark for column, mark in marks.columns.items() if column.lower() in self.columns[name]
        }
        filters = _filters(model, columns) if model else {}
        if model and filters:
            judged = {c: {"sensitivity": marks.sensitivity, **columns.get(c, {})} for c in self.columns[name]}
            self._filter(place, model, judged, filters)
        of_table = {"sensitivity": marks.sensitivity, "rows": "filtered" if filters else "all"}
        self.document["tables"][name] = {
            **place, "tags": self._tagged({**of_table, **({"domain": marks.domain} if marks.domain else {})})
        }  # fmt: skip
        alike: dict[str, dict[str, Any]] = {}
        for column, mark in columns.items():
            said = f"{name} {' '.join(f'{tag}={value}' for tag, value in sorted(mark.items()))}"
            alike.setdefault(said, {**place, "columns": [], "tags": self._tagged(mark)})["columns"].append(column)
        for item in alike.values():
            item["columns"].sort()
        self.document["columns"].update(alike)

    def _filter(
        self, place: Mapping[str, str], model: Model, columns: Mapping[str, Mapping[str, str]],
        filters: Mapping[str, Filter],
    ) -> None:  # fmt: skip
        """The part of a table that each role of its `access_filters` gets."""
        if model.is_view:
            raise ConfigError(f"{model.path}: access_filters of {model.name}: a view has no filter. Take them out.")
        for name, part in filters.items():
            role = self.roles.get(name)
            if (
                role is None
                or "SELECT" not in role.on_tables
                or "filtered" in role.where.get("rows", ("filtered",))
                or model.layer not in role.where.get("layer", LAYERS)
            ):
                why = "is not in roles.yml" if role is None else "may read filtered tables as a whole, or none there"
                raise ConfigError(
                    f"{model.path}: access_filters of {model.name} names {name}, and that role {why}. A filter holds "
                    "for a role that may SELECT in that layer and whose `where` has `rows: [all]`."
                )
            asked = {tag: values for tag, values in role.where.items() if tag in ("pii", "sensitivity")}
            hidden = {c for c, mark in columns.items() if any(mark.get(tag) not in asked[tag] for tag in asked)}
            key = f"{self.prefix}{name}"
            self.document["filters"][f"{place['database']}.{place['table']} {name}"] = {
                **place, "name": key, "rows": part.rows, "without": sorted(hidden | {c.lower() for c in part.without}),
            }  # fmt: skip
            for principal in self.lake.settings.access.get(name, ()):
                self.document["filter_grants"][f"{place['database']}.{place['table']} {name} {principal}"] = {
                    **place, "name": key, "principal": principal, "permissions": ["SELECT"],
                }  # fmt: skip

    def _grant(self, role: str, principal: str) -> None:
        """What a role's principal may do: on databases by their layer, on tables and columns by all tags."""
        given = self.roles[role]
        for tag, values in given.where.items():
            self._values[tag].update(values)
        layers = {"layer": given.where.get("layer", LAYERS)}
        for kind, permissions, where in (
            ("DATABASE", given.on_databases, layers),
            ("TABLE", given.on_tables, {**layers, **given.where}),
        ):
            expression = {self.prefix + tag: sorted(values) for tag, values in sorted(where.items())}
            self.document["grants"][grant_name(principal, kind, expression)] = {
                "principal": principal, "type": kind, "where": expression, "permissions": sorted(permissions),
            }  # fmt: skip

    def _tagged(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Tags under the environment's keys; Lake Formation keeps keys and values in lower case."""
        for tag, value in tags.items():
            self._values[tag].add(value.lower())
        return {self.prefix + tag: value.lower() for tag, value in sorted(tags.items())}


def exported(lake: Lake) -> Document:
    """The whole document.

    Raises:
        OpsError: as `Access`, or a table or view cannot be read: Terraform would take its tags away.
    """
    access = Access(lake)
    if access.unread:
        told = "; ".join(f"{name}: {why}" for name, why in sorted(access.unread.items()))
        raise OpsError(f"Not everything in the lake can be read, so nothing was exported. {told}")
    return access.document


def own_prefix(lake: Lake) -> str:
    """What the environment's keys, and the names of its filters, begin with; a dot is in no part of it."""
    return ".".join(part for part in ("lakehouse", lake.settings.target, lake.settings.schema_prefix) if part) + "."


def grant_name(principal: str, kind: str, where: Mapping[str, list[str]]) -> str:
    """Name of a grant by tags: what makes it another one."""
    return " ".join([principal, kind.lower(), *(f"{tag}={'|'.join(values)}" for tag, values in sorted(where.items()))])


def _filters(model: Model, columns: Mapping[str, Any]) -> dict[str, Filter]:
    """`access_filters` of a model, by role.

    Raises:
        ConfigError: they are not of that form, or name columns that the model's YAML lacks.
    """
    given = model.meta.get("access_filters") or {}
    try:
        found = {str(role): Filter(**part) for role, part in given.items()}
        for part in found.values():
            condition = sqlglot.parse_one(part.rows or "true", dialect="trino")
            named = {column.name.lower() for column in condition.find_all(exp.Column)} | {
                c.lower() for c in part.without
            }
            if unknown := sorted(named - columns.keys()):
                raise ConfigError(f"{model.path}: access_filters of {model.name} names columns it lacks: {unknown}.")
    except (AttributeError, TypeError, ValidationError, sqlglot.ParseError) as exc:
        raise ConfigError(
            f"{model.path}: access_filters of {model.name} must be roles with `rows`, a condition, and `without`, a "
            "list of columns: {analyst: {rows: \"country = 'DE'\", without: [note]}}."
        ) from exc
    return found
