"""`lakeops maintain`: what the tables' files need."""

from __future__ import annotations

from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, Execute, lake_of, print_json, say_if_planned
from python_ops.cli.live import Live
from python_ops.jobs.maintenance import TablePlan
from python_ops.jobs.maintenance import plan as plan_maintenance
from python_ops.jobs.maintenance import run as run_maintenance
from python_ops.lake.errors import together
from python_ops.lake.lock import exclusive

app = typer.Typer(help="OPTIMIZE, REORG, VACUUM and checkpoints, for the tables that need them.", no_args_is_help=True)

Tables = Annotated[list[str] | None, typer.Argument(help="Tables as schema.table; all when none is named.")]


@app.command()
def plan(tables: Tables = None, env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Show what maintenance would do, and why. Starts no JVM.

    Example: lakeops maintain plan gold.fct_orders
    """
    _show(plan_maintenance(lake_of(env), tables or ()), as_json)


@app.command()
def run(
    tables: Tables = None,
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Do what `maintain plan` shows. VACUUM removes the files that no version within the retention needs.

    Example: lakeops maintain run --execute
    """
    lake = lake_of(env)
    if not execute:
        _show(plan_maintenance(lake, tables or ()), as_json)
        if not as_json:
            say_if_planned(execute)
        return
    with exclusive(lake, "maintain run"), Live(quiet=as_json) as live:
        live.begin("maintain")

        def tell(done: TablePlan) -> None:
            live.end(done.table)
            if done.actions and not as_json:
                typer.echo(line(done))

        done = run_maintenance(lake, tables or (), tell, live.start)
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{_total(done)}, in {live.seconds:.1f} s")
    if failed := [planned.table for planned in done if planned.error]:
        message = f"Maintenance of {', '.join(failed)} failed; the other tables are done."
        raise together([planned.error for planned in done if planned.error], message)


def line(planned: TablePlan) -> str:
    """A table's plan or result, a line for each action."""
    lines = [f"{planned.table:<40} {action.act.value:<12} {action.reason}" for action in planned.actions]
    if planned.after:
        before, after = planned.before, planned.after
        lines.append(
            f"{'':<40} {'→':<12} {before.files} → {after.files} files, {before.bytes} → {after.bytes} bytes live, "
            f"{before.bytes_on_disk} → {after.bytes_on_disk} bytes on disk ({planned.seconds:.1f} s)"
        )
    if planned.error:
        lines.append(f"{'':<40} {'FAILED':<12} {planned.error}")
    return "\n".join(lines)


def _show(plans: list[TablePlan], as_json: bool) -> None:
    if as_json:
        print_json(plans)
        return
    for planned in plans:
        if planned.actions:
            typer.echo(line(planned))
    typer.echo(_total(plans))


def _total(plans: list[TablePlan]) -> str:
    due = sum(bool(planned.actions) for planned in plans)
    return (
        f"{len(plans)} tables, {due} with something to do, {sum(p.before.bytes_on_disk for p in plans)} bytes on disk"
    )
