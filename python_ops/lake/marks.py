"""What contracts and models say of their tables and columns for readers' sake: personal, how sensitive, whose domain.

The catalog's entries, Lake Formation's tags, publishing and the check of lineage read marks here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from python_ops.lake.artifacts import Model
from python_ops.lake.contracts import Contract
from python_ops.lake.contracts.metadata import METADATA

INTERNAL, PERSONAL = "internal", "personal"

# Columns of ingestion and of the CDC engine, which tell of a change and not of a person. `_extra` is not among them: it
# keeps what a contract does not know, and nobody has judged that. `_cdc_filled` holds values of the model's columns.
_ENGINE = ("batch_id", "valid_from", "valid_to", "visible", "deleted", "truncate", "schema")
_OWN = {name: {"pii": "false"} for name in (
    *(column.name for column in METADATA if column.name != "_extra"), *(f"_cdc_{name}" for name in _ENGINE),
)}  # fmt: skip


@dataclass(frozen=True)
class Marks:
    """Marks of one table or view.

    Attributes:
        domain: Whose it is: `meta.domain` (of a contract `lf_tags.domain`), else the model's group, else its folder
            below the layer's.
        sensitivity: Of columns that say nothing else; `internal` where the table says nothing.
        columns: Of each column that is spoken of, `pii` (`true` or `false`), and `sensitivity` where it is another
            than the table's: what the column says, or `personal` of a personal one. A column that is missing here is
            one that nobody judged.
    """

    domain: str
    sensitivity: str
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def personal_columns(model: Model) -> tuple[str, ...]:
    """Columns of a model that its YAML marks `pii: true`, in its order."""
    return tuple(column.name for column in model.columns if column.meta.get("pii"))


def of_model(model: Model) -> Marks:
    """Marks of a model, from its YAML and its place in the project. What else the YAML lacks is not judged."""
    folder = Path(model.path).parent.name
    domain = model.meta.get("domain") or model.group or (folder if folder != model.layer else "")
    sensitivity, personal = str(model.meta.get("sensitivity", INTERNAL)), personal_columns(model)
    columns = {c.name: _column(c.name in personal, c.meta.get("sensitivity"), sensitivity) for c in model.columns}
    filled = _column(bool(personal), None, sensitivity)
    return Marks(str(domain), sensitivity, {**_OWN, "_cdc_filled": filled, **columns})


def of_contract(contract: Contract) -> Marks:
    """Marks of a source's bronze table."""
    sensitivity = contract.lf_tags.get("sensitivity", INTERNAL)
    columns = {c.name: _column(c.pii, c.lf_tags.get("sensitivity"), sensitivity) for c in contract.columns}
    return Marks(contract.lf_tags.get("domain", ""), sensitivity, {**_OWN, **columns})


def _column(is_personal: bool, said: object, of_table: str) -> dict[str, str]:
    sensitivity = str(said) if said else PERSONAL if is_personal else of_table
    return {"pii": str(is_personal).lower(), **({"sensitivity": sensitivity} if sensitivity != of_table else {})}
