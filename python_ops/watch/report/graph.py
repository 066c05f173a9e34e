"""The lineage of the project: which table and column is made from which, and a drawing, sources on the left."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from markupsafe import Markup, escape

from python_ops.lake.artifacts import Manifest
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.watch.lineage.columns import ColumnLineage

_WIDTH, _HEIGHT, _COLUMN, _ROW = 190, 26, 240, 38


@dataclass(frozen=True)
class Node:
    """A table or view. `layer` is bronze, silver or gold; `parents` are identifiers of other nodes."""

    name: str
    layer: str
    description: str
    parents: tuple[str, ...]
    owner: str = ""


def nodes(lake: Lake, manifest: Manifest) -> dict[str, Node]:
    """All sources and models, by identifier."""
    found = {}
    for source in lake.contracts.sources:
        contract = lake.contracts.load(source)
        found[f"source.{source}"] = Node(source, "bronze", contract.description, (), contract.owner)
    for identifier, model in manifest.models.items():
        parents = tuple(
            f"source.{parent.rsplit('.', 1)[1]}" if parent.startswith("source.") else parent
            for parent in sorted(manifest.parents[identifier])
        )
        owner = manifest.owner_of(model)
        found[identifier] = Node(model.name, model.layer, model.description, parents, owner)
    return found


def columns(lake: Lake, manifest: Manifest) -> dict[str, dict[str, list[str]]]:
    """By model and column, the columns that it is made from; a model that is not compiled is left out."""
    lineage = ColumnLineage(lake, manifest)
    names = {model.table: model.name for model in manifest.models.values()}
    names |= {table: source for source, table in lineage.by_source.items()}
    found: dict[str, dict[str, list[str]]] = {}
    for model in sorted(manifest.models.values(), key=lambda model: model.name):
        with suppress(OpsError):
            found[model.name] = {
                column: [f"{names.get(table, table)}.{name}" for table, name in origins]
                for column, origins in lineage.of(model).items()
            }
    return found


def layout(nodes: Mapping[str, Node]) -> dict[str, tuple[int, int]]:
    """Column and row of each node: a node stands right of all its parents, near the middle of them."""
    columns: dict[str, int] = {}

    def column(identifier: str) -> int:
        if identifier not in columns:
            parents = [parent for parent in nodes[identifier].parents if parent in nodes]
            columns[identifier] = 1 + max((column(parent) for parent in parents), default=-1)
        return columns[identifier]

    placed: dict[str, tuple[int, int]] = {}
    for depth in range(1 + max((column(node) for node in nodes), default=0)):
        here = [node for node in nodes if columns[node] == depth]

        def middle(node: str) -> tuple[float, str]:
            rows = [placed[parent][1] for parent in nodes[node].parents if parent in placed]
            return (sum(rows) / len(rows) if rows else 0.0, nodes[node].name)

        for row, node in enumerate(sorted(here, key=middle)):
            placed[node] = (depth, row)
    return placed


def svg(nodes: Mapping[str, Node]) -> Markup:
    """The graph. Colours are the page's CSS variables; each node's description is its tooltip."""
    placed = layout(nodes)
    deepest = max((row for _, row in placed.values()), default=0)
    counts = {depth: sum(column == depth for column, _ in placed.values()) for depth, _ in placed.values()}

    def corner(node: str) -> tuple[int, int]:
        depth, row = placed[node]
        lift = (deepest + 1 - counts[depth]) * _ROW // 2  # shorter columns stand in the middle
        return depth * _COLUMN + 4, row * _ROW + lift + 4

    width = (1 + max(counts, default=0)) * _COLUMN - (_COLUMN - _WIDTH) + 8
    parts = [f'<svg class="graph" viewBox="0 0 {width} {(deepest + 1) * _ROW + 8}" width="{width}" role="img">']
    parts.append("<title>Lineage: which table is made from which</title>")
    for identifier, node in nodes.items():
        x, y = corner(identifier)
        for parent in node.parents:
            if parent in placed:
                from_x, from_y = corner(parent)
                start, end = from_x + _WIDTH, from_y + _HEIGHT // 2
                bend = (start + x) // 2
                to = y + _HEIGHT // 2
                ends = f'data-from="{escape(nodes[parent].name)}" data-to="{escape(node.name)}"'
                parts.append(f'<path class="edge" {ends} d="M{start},{end} C{bend},{end} {bend},{to} {x},{to}"/>')
    for identifier, node in nodes.items():
        x, y = corner(identifier)
        parts.append(
            f'<g class="node {escape(node.layer)}" data-name="{escape(node.name)}">'
            f"<title>{escape(node.description)}</title>"
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5"/>'
            f'<text x="{x + 8}" y="{y + 17}">{escape(node.name)}</text></g>'
        )
    return Markup("".join(parts) + "</svg>")
