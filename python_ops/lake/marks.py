"""What contracts and models say of their tables and columns for readers' sake: personal, how sensitive, whose domain.

The catalog's entries, Lake Formation's tags, publishing and the check of lineage read marks here and nowhere else.
"""

from __future__ import annotations

from python_ops.lake.artifacts import Model


def personal_columns(model: Model) -> tuple[str, ...]:
    """Columns of a model that its YAML marks `pii: true`, in its order."""
    return tuple(column.name for column in model.columns if column.meta.get("pii"))
