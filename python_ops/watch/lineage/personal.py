"""Personal columns that nobody marked: every column that is made from a personal one says what it is itself.

A column is personal if its contract or its model's YAML has `pii: true`. A column that is made from one directly must
have that too, or `not_pii` with the reason why it tells nothing of a person ("a count"). Direct origins are enough: a
column that is marked makes those after it answer for themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from python_ops.lake.artifacts import Model
from python_ops.lake.errors import OpsError
from python_ops.lake.marks import personal_columns
from python_ops.watch.lineage.columns import ColumnLineage, Origin


@dataclass(frozen=True)
class Unmarked:
    """A column that should say whether it is personal.

    Attributes:
        column: Schema, table and column.
        path: File of its model.
        fault: What is wrong with what it says.
        origins: Personal columns that it is made from.
    """

    column: str
    path: str
    fault: str
    origins: tuple[str, ...]


def unmarked(lineage: ColumnLineage) -> list[Unmarked]:
    """Columns whose marks do not fit what they are made from, by name.

    Raises:
        OpsError: a model is not compiled, or its SQL cannot be read.
    """
    personal = {
        (table, column.name)
        for source, table in lineage.by_source.items()
        for column in lineage.contracts.load(source).columns
        if column.pii
    }
    models = lineage.manifest.models.values()
    personal |= {(model.table, name) for model in models for name in personal_columns(model)}
    found = [each for model in models for each in _of(model, lineage, personal)]
    return sorted(found, key=lambda each: each.column)


def refuse(found: list[Unmarked]) -> None:
    """Raises what is not marked as it should be.

    Raises:
        OpsError: names each column, what it is made from, and what to write.
    """
    if found:
        told = "; ".join(
            f"{each.column} ({each.path}) {each.fault}"
            + (f", and is made from {', '.join(each.origins)}" if each.origins else "")
            for each in found
        )
        raise OpsError(
            f"{len(found)} columns do not say right whether they are personal. {told}. Write `config: {{meta: {{pii: "
            "true}}` beside the column in its model's YAML, or `not_pii: <why it tells nothing of a person>`."
        )


def _of(model: Model, lineage: ColumnLineage, personal: set[Origin]) -> list[Unmarked]:
    marks = {column.name: column.meta for column in model.columns}
    found = []
    for name, made in lineage.of(model).items():
        origins = tuple(".".join(origin) for origin in made if origin in personal)
        meta = marks.get(name, {})
        reason = meta.get("not_pii")
        if fault := _fault(bool(meta.get("pii")), reason, bool(origins)):
            found.append(Unmarked(f"{model.table}.{name}", model.path, fault, origins))
    return found


def _fault(is_marked: bool, reason: object, is_derived: bool) -> str | None:
    if reason is not None and is_marked:
        return "has both pii and not_pii"
    if reason is not None and not (isinstance(reason, str) and reason.strip()):
        return "has not_pii without a reason"
    if reason is not None and not is_derived:
        return "has not_pii, and is made from no personal column"
    return "is not marked" if is_derived and not is_marked and reason is None else None
