"""Rows for people: a table on a terminal, aligned plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under their columns' names; None is shown as `-`."""
    shown = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    console = Console()
    if console.is_terminal:
        table = Table(*columns)
        for row in shown:
            table.add_row(*(Text(cell) for cell in row))  # Text: a value is never markup
        console.print(table)
        return
    widths = [max(map(len, cells)) for cells in zip(columns, *shown, strict=True)]
    for row in [list(columns), *shown]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
