"""Which engines can read a table: what its Delta log asks of a reader, and what engines say that they read.

A reader must refuse a table that has a feature it does not know (Delta Lake's PROTOCOL.md, "Table Features"), also
where no file makes use of it. So a table for Athena is written without deletion vectors from its first version on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from python_ops.lake.artifacts import Model
from python_ops.lake.deltalog import read_version
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.storage import folder_at

READERS: Mapping[str, frozenset[str]] = {
    # docs.aws.amazon.com/athena/latest/ug/delta-lake-tables.html (2026-11-29): reader version up to 3, column mapping,
    # timestamp_ntz. It says nothing of others.
    "athena": frozenset({"columnMapping", "timestampNtz"}),
    # trino.io/docs/current/connector/delta-lake.html, "Delta Lake table features" (2026-11-29)
    "trino": frozenset({
        "columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "v2Checkpoint", "vacuumProtocolCheck",
    }),
    # EMR: Spark with the Delta that this project pins
    "spark": frozenset({
        "columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "v2Checkpoint", "vacuumProtocolCheck",
        "variantType",
    }),
}  # fmt: skip
"""Features that an engine reads, by the name that a model's `readers` has."""


@dataclass(frozen=True)
class Readable:
    """Who can read a table.

    Attributes:
        table: Schema and name.
        promised: Readers that its model names.
        readers: Those that can read it.
        lacks: For each of the others, the features that it does not read.
    """

    table: str
    promised: tuple[str, ...]
    readers: tuple[str, ...]
    lacks: Mapping[str, tuple[str, ...]]

    @property
    def broken(self) -> dict[str, tuple[str, ...]]:
        """Readers that are promised and cannot read it, with what they lack."""
        return {reader: self.lacks[reader] for reader in self.promised if reader in self.lacks}


def check(lake: Lake) -> list[Readable]:
    """Who can read each table of the project's models, by name. Starts no JVM.

    Raises:
        ConfigError: a model names a reader that is not known.
        OpsError: there is no manifest, or a log cannot be read.
    """
    found = []
    for model in sorted(lake.manifest().models.values(), key=lambda each: each.stored_table):
        promised = promised_readers(model)
        if model.storage is None:
            continue
        told = read_version(folder_at(lake.table_path(model.layer, model.storage)))
        asks = features(told.protocol, told.metadata)
        lacks = {reader: tuple(sorted(asks - known)) for reader, known in READERS.items() if asks - known}
        found.append(Readable(model.stored_table, promised, tuple(r for r in READERS if r not in lacks), lacks))
    return found


def features(protocol: Mapping[str, object], metadata: Mapping[str, object]) -> frozenset[str]:
    """What a table asks of its readers. Reader version 2 has no list: it means column mapping, where a mode is set."""
    listed = protocol.get("readerFeatures")
    configuration = metadata.get("configuration")
    mode = configuration.get("delta.columnMapping.mode", "none") if isinstance(configuration, Mapping) else "none"
    found = {str(feature).removesuffix("-preview") for feature in listed} if isinstance(listed, list) else set()
    return frozenset(found | ({"columnMapping"} if mode != "none" else set()))


def promised_readers(model: Model) -> tuple[str, ...]:
    """Readers that a model's `meta` names.

    Raises:
        ConfigError: it names one that is not known.
    """
    named = model.meta.get("readers") or ()
    if not isinstance(named, list | tuple) or (unknown := sorted({str(each) for each in named} - READERS.keys())):
        raise ConfigError(
            f"{model.name}: meta.readers is a list of {', '.join(READERS)}, and it has "
            f"{named if isinstance(named, str) else ', '.join(unknown)}. Correct it beside the model."
        )
    return tuple(named)


def refuse_broken(found: list[Readable]) -> None:
    """Raises what a promised reader cannot read.

    Raises:
        OpsError: names each table, the reader, and what it lacks.
    """
    told = [
        f"{each.table}: {reader} does not read {', '.join(lacks)}"
        for each in found
        for reader, lacks in each.broken.items()
    ]
    if told:
        raise OpsError(
            f"{'; '.join(told)}. Take the reader out of the model's `readers`, or make the table without the feature "
            "(docs/guides/catalog.md#a-reader-that-cannot-read-a-table)."
        )
