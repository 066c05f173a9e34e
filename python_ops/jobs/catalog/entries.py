"""What the catalog should say of the lake: one entry per table and view, in the form of AWS Glue's `TableInput`.

Delta tables: Athena and Trino take only the location and `spark.sql.sources.provider`, and read all else from the log
(docs.aws.amazon.com/athena/latest/ug/delta-lake-tables.html; Trino's connector knows tables of Spark's by it). Views:
the Presto form, which Athena and Trino decode (HiveViewCodec of Trino): a JSON document in `ViewOriginalText`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_ops.jobs.catalog.readers import promised_readers
from python_ops.lake import delta, home
from python_ops.lake.artifacts import Manifest, Model
from python_ops.lake.buckets import on_bucket
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.marks import INTERNAL, Marks, of_contract, of_model
from python_ops.lake.views import Views

if TYPE_CHECKING:
    from python_ops.lake.view_sql import Resolved, Types

MARK = "lakehouse.environment"
"""The parameter that says whose an entry is: the name of the environment that registered it."""

_POLICY = ("sla_minutes", "retain_hours", "dr_tier", "domain", "sensitivity")  # of `meta`
PARAMETERS = frozenset({MARK, "contract_version", "grain", "key", "layer", "owner", "readers", *_POLICY})
"""Parameters that say what the project says; one that it no longer says goes."""

LAYERS = ("bronze", "silver", "gold")  # rejected records and the project's own tables are not for readers

_COMMENT, _DESCRIPTION = 255, 2048  # characters that Glue takes
_FORMATS = {
    "InputFormat": "org.apache.hadoop.mapred.SequenceFileInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
}


class Entries:
    """Makes the entries of a lake.

    Args:
        lake: The environment. Its home should be in a bucket: what lies on this machine is read by nobody else.

    Raises:
        OpsError: there is no manifest.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.manifest: Manifest = lake.manifest()
        self.views = Views(lake.artifacts)
        schemas = {lake.schema_name(layer) for layer in LAYERS}
        self.paths = {
            f"{schema}.{name}": path for schema, name, path in home.tables(lake.settings) if schema in schemas
        }
        models = self.manifest.models.values()
        self.models = {model.table: model for model in models} | {model.stored_table: model for model in models}
        self._resolved: dict[str, Resolved] = {}

    def names(self) -> Iterator[str]:
        """Tables, and the views that are models: those of a CDC model's changes are Spark's own affair."""
        yield from sorted([*self.paths, *(name for name in self.views if name in self.models)])

    def types(self, name: str) -> Types:
        """Columns of a table or view with their types.

        Raises:
            OpsError: the log cannot be read, or the view reads what is not there.
        """
        if name in self.views:
            return self._view(name).types
        return {column: type_ for column, (type_, _) in delta.columns(self._path(name)).items()}

    def entry(self, name: str) -> dict[str, Any]:
        """The entry of a table or view: Glue's `TableInput`.

        Raises:
            OpsError: its log or its text cannot be read, or Presto has no SQL for the view.
        """
        view = self.views.get(name)
        comments = view.comments if view else {c: text for c, (_, text) in delta.columns(self._path(name)).items()}
        model = self.models.get(name)
        marks = self.marks(name).columns
        columns = [
            {
                "Name": column,
                "Type": type_.replace("timestamp_ntz", "timestamp"),
                "Comment": _cut(comments[column], _COMMENT),
                "Parameters": {tag: value for tag, value in marks.get(column, {}).items() if value != "false"},
            }
            for column, type_ in self.types(name).items()
        ]
        told = self._described(name, model)
        form, parameters = self._as_view(name, columns) if view else self._as_table(name, columns)
        return {
            "Name": name.partition(".")[2],
            "Description": _cut(told.pop("description"), _DESCRIPTION),
            **({"Owner": told["owner"]} if told.get("owner") else {}),
            "Parameters": {MARK: self.lake.settings.target, **told, **parameters},
            **form,
        }

    def _view(self, name: str) -> Resolved:
        if name not in self._resolved:
            self._resolved[name] = self.views[name].resolved(self.types)
        return self._resolved[name]

    def _as_table(self, name: str, columns: list[Any]) -> tuple[dict[str, Any], dict[str, str]]:
        path = self._path(name)
        location = str(path) if on_bucket(path) else path.resolve().as_uri()
        serde = {
            "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
            "Parameters": {"path": location, "serialization.format": "1"},
        }
        form = {
            "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": {"Columns": columns, "Location": location, **_FORMATS, "SerdeInfo": serde},
        }
        return form, {"EXTERNAL": "TRUE", "spark.sql.sources.provider": "delta", "classification": "delta"}

    def _as_view(self, name: str, columns: list[Any]) -> tuple[dict[str, Any], dict[str, str]]:
        resolved = self._view(name)
        definition = {
            "originalSql": resolved.sql("trino"),
            "catalog": "awsdatacatalog",
            "schema": name.partition(".")[0],
            "columns": [{"name": name, "type": type_} for name, type_ in resolved.types_in("trino").items()],
        }
        encoded = base64.b64encode(json.dumps(definition).encode()).decode()
        form = {
            "TableType": "VIRTUAL_VIEW",
            "ViewOriginalText": f"/* Presto View: {encoded} */",
            "ViewExpandedText": "/* Presto View */",
            "StorageDescriptor": {"Columns": columns, "Location": "", "SerdeInfo": {}},
        }
        return form, {"presto_view": "true", "comment": "Presto View"}

    def _path(self, name: str) -> Path:
        if name not in self.paths:
            raise OpsError(f"{name} is not there. `dbt build` makes it.")
        return self.paths[name]

    def _described(self, name: str, model: Model | None) -> dict[str, str]:
        """What the project says of a table, as texts."""
        if model:
            told = _of_model(self.manifest, model, self._owner(model))
            if model.is_cdc and name == model.stored_table:  # every event; the model's own words are of its view
                told.pop("grain", None)
                told["description"] = delta.open_log(self._path(name)).metadata().description or ""
            return told
        source = name.partition(".")[2]
        if source not in self.manifest.source_meta:
            return {"description": "", "layer": name.partition(".")[0]}
        contract, meta = self.lake.contracts.load(source), self.manifest.source_meta[source]
        return {
            "description": contract.description, "layer": "bronze", "owner": contract.owner,
            "key": ",".join(contract.key), "grain": _grain(contract.description),
            "contract_version": contract.version, **_policy({**meta, **contract.lf_tags}),
        }  # fmt: skip

    def _owner(self, model: Model) -> str:
        """Who owns a model: its group's owner, else the owners of the sources that it is made from."""
        if model.group and model.group in self.manifest.owners:
            return self.manifest.owners[model.group]
        nodes = self.manifest.upstream([model.unique_id])
        sources = {node.rsplit(".", 1)[1] for node in nodes if node.startswith("source.")}
        known = sources & self.manifest.source_meta.keys()
        return ",".join(sorted({self.lake.contracts.load(source).owner for source in known}))

    def marks(self, name: str) -> Marks:
        """What is said of a table or view and of its columns: whether they are personal, and how sensitive."""
        if model := self.models.get(name):
            return of_model(model)
        source = name.partition(".")[2]
        known = source in self.manifest.source_meta
        return of_contract(self.lake.contracts.load(source)) if known else Marks("", INTERNAL)


def _of_model(manifest: Manifest, model: Model, owner: str) -> dict[str, str]:
    told = {
        "description": model.description, "layer": model.layer, "owner": owner, "key": ",".join(model.unique_key),
        "grain": _grain(model.description), "domain": of_model(model).domain,
        "readers": ",".join(promised_readers(model)), **_policy(model.meta),
    }  # fmt: skip
    return {name: value for name, value in told.items() if value or name == "description"}


def _policy(meta: Mapping[str, Any]) -> dict[str, str]:
    """What `meta` says of freshness, retention and tags."""
    return {name: str(meta[name]) for name in _POLICY if name in meta}


def _grain(description: str) -> str:
    """The sentence that says what a row is; descriptions end with it."""
    found = re.search(r"One row per [^.]+", description)
    return found[0] if found else ""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
