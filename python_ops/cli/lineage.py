"""`lakeops lineage`: where columns come from, and the events of runs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from python_ops.cli import AsJson, Env, Environment, lake_of, print_json
from python_ops.lake.errors import ConfigError
from python_ops.lake.lineage.sink import waiting
from python_ops.lake.lock import exclusive
from python_ops.watch.lineage.columns import ColumnLineage, Origin
from python_ops.watch.lineage.dbt import emit as emit_events
from python_ops.watch.lineage.personal import refuse, unmarked

app = typer.Typer(help="Where columns come from, and the events of runs.", no_args_is_help=True)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A model or source, or one of its columns as NAME.COLUMN.")],
    downstream: Annotated[bool, typer.Option("--downstream", help="What is made from it instead.")] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Show what the columns of a model are made from, back to bronze. Run `dbt compile` or `dbt build` first.

    Example: lakeops lineage show rpt_daily_revenue.revenue_eur
    """
    lake = lake_of(env)
    columns = ColumnLineage(lake, lake.manifest())
    table, column = columns.find(name)
    walk = columns.downstream if downstream else columns.upstream
    found = {chosen: walk(table, chosen) for chosen in ([column] if column else columns.columns(table))}
    if not found:
        raise ConfigError(f"{name} has no columns that are known.")
    if as_json:
        print_json({c: {".".join(to): [".".join(o) for o in made] for to, made in f.items()} for c, f in found.items()})
        return
    for chosen, edges in found.items():
        if not edges[table, chosen]:
            nothing = "nothing is made from it" if downstream else "made from no column"
            typer.echo(f"{table}.{chosen}: {nothing}")
        else:
            _print((table, chosen), edges)


@app.command()
def export(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Print every column of every model with its origins, as one JSON document.

    Example: lakeops lineage export
    """
    lake = lake_of(env)
    columns = ColumnLineage(lake, lake.manifest())
    models = sorted(columns.manifest.models.values(), key=lambda model: model.table)
    print_json({m.table: {n: [".".join(o) for o in made] for n, made in columns.of(m).items()} for m in models})


@app.command()
def check(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Find columns that are made from personal ones and do not say what they are. Ends with 1 if there are any.

    Run `dbt compile` or `dbt build` first.

    Example: lakeops lineage check
    """
    lake = lake_of(env)
    found = unmarked(ColumnLineage(lake, lake.manifest()))
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("Every column that is made from a personal one says what it is.")
    refuse(found)


@app.command()
def emit(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Send the OpenLineage events of the last dbt command, such as a `dbt build` by hand. Sending twice does no harm.

    Example: lakeops lineage emit
    """
    lake = lake_of(env)
    with exclusive(lake, "lineage emit"):
        sent = emit_events(lake)
    if as_json:
        print_json({"nodes": sent})
    else:
        typer.echo(f"events of {sent} nodes sent to the {lake.settings.lineage} sink")
    if text := waiting(lake):
        typer.echo(f"warning: {text}", err=True)


def _print(root: Origin, edges: dict[Origin, tuple[Origin, ...]]) -> None:
    """A tree on a terminal, indented lines elsewhere; what was shown once is not unfolded again."""
    shown: set[Origin] = set()
    tree = Tree(Text(".".join(root)))

    def grow(branch: Tree, node: Origin, depth: int) -> None:
        for child in edges[node]:
            again = child in shown and edges[child]
            text = ".".join(child) + (" …" if again else "")
            lines.append("  " * depth + text)
            twig = branch.add(Text(text))
            if not again:
                shown.add(child)
                grow(twig, child, depth + 1)

    lines = [".".join(root)]
    grow(tree, root, 1)
    console = Console()
    if console.is_terminal:
        console.print(tree)
    else:
        typer.echo("\n".join(lines))
