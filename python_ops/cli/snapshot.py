"""`lakeops snapshot`: copies of the lake for disaster recovery, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from python_ops.cli import AsJson, Env, Environment, Execute, lake_of, local_file, print_json, say_if_planned
from python_ops.cli.live import Live
from python_ops.cli.tables import print_rows
from python_ops.jobs.recovery.create import create as create_snapshot
from python_ops.jobs.recovery.last import record_snapshot
from python_ops.jobs.recovery.manifest import Snapshot, identifiers, load, store_of
from python_ops.jobs.recovery.prune import prune as prune_snapshots
from python_ops.jobs.recovery.restore import Move, SnapshotRestore
from python_ops.jobs.recovery.restore import restore as restore_snapshot
from python_ops.jobs.recovery.verify import CopyProgress, Verification, require
from python_ops.jobs.recovery.verify import verify as verify_snapshot
from python_ops.lake import home
from python_ops.lake.config import Settings, bucket_address, local_path
from python_ops.lake.lake import Lake
from python_ops.lake.lock import exclusive
from python_ops.lake.spark import is_connect
from python_ops.run.drill import Drill, record_drill
from python_ops.run.drill import drill as run_drill

app = typer.Typer(help="Copies of the lake for disaster recovery: make, check, restore.", no_args_is_help=True)

Identifier = Annotated[str | None, typer.Argument(help="Snapshot; by default the newest.", show_default=False)]
Tables = Annotated[list[str] | None, typer.Option("--table", help="Only this table, as layer.table; repeatable.")]

_EVERY_SECONDS = 5.0


@app.command()
def create(
    tier: Annotated[int, typer.Option("--tier", min=1, max=3, help="Tables up to this `dr_tier`.")] = 3,
    full: Annotated[bool, typer.Option("--full", help="Copy every file again, which repairs a damaged store.")] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Copy tables, ledgers and waiting files to the store. Files that the store has are not copied again.

    Example: lakeops snapshot create --env prod
    """
    lake = lake_of(env)
    with exclusive(lake, "snapshot create"), _Ticker("copied", as_json) as tick:
        made = create_snapshot(lake, tier, full, tick)
        record_snapshot(lake, made)
    if as_json:
        print_json(_summary(made))
        return
    if not lake.settings.recovery:
        typer.echo(f"note     {store_of(lake).url} is on the lake's own disk; LAKEHOUSE_RECOVERY names another place.")
    rows = [[t.name, t.version, t.rows, len(t.files), t.bytes] for t in made.tables]
    print_rows(["table", "version", "rows", "files", "bytes"], rows)
    typer.echo(
        f"snapshot {made.id}: {len(made.tables)} tables, {made.bytes} bytes; copied {made.copied_files} data files, "
        f"{made.copied_bytes} bytes, and {made.copied_log_bytes} bytes of logs and ledgers, in {made.seconds:.1f} s"
    )


@app.command("list")
def list_(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """List the snapshots of the store, oldest first, with their age.

    Example: lakeops snapshot list --json
    """
    store = store_of(lake_of(env))
    found = [load(store, name) for name in identifiers(store)]
    if as_json:
        print_json([_summary(snapshot) for snapshot in found])
        return
    if not found:
        typer.echo(f"{store.url} holds no snapshot. `lakeops snapshot create` makes one.")
        return
    rows = [[s.id, _age(s.age_seconds), len(s.tables), s.bytes, s.copied_bytes + s.copied_log_bytes] for s in found]
    print_rows(["snapshot", "age", "tables", "bytes", "copied bytes"], rows)


@app.command()
def verify(
    snapshot: Identifier = None,
    quick: Annotated[bool, typer.Option("--quick", help="Sizes and tags alone, not every byte.")] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Check that a snapshot is whole: the checksums of all files, and that its logs list exactly these files.

    Example: lakeops snapshot verify
    """
    store = store_of(lake_of(env))
    with _Ticker("checked", as_json) as tick:
        verdict = verify_snapshot(store, load(store, snapshot), thorough=not quick, on_progress=tick)
    if as_json:
        print_json(verdict)
    else:
        for fault in verdict.faults:
            typer.echo(f"damaged  {fault}")
    require(verdict, "It cannot be restored.")
    if not as_json:
        typer.echo(_verdict(verdict))


@app.command()
def restore(
    snapshot: Identifier = None,
    table: Tables = None,
    to: Annotated[str | None, typer.Option("--to", help="Another home: a folder, or s3://bucket/prefix.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also tables newer than the snapshot.")] = False,
    with_catalog: Annotated[
        bool,
        typer.Option("--catalog/--no-catalog", help="Register restored tables that Spark's catalog does not know."),
    ] = True,
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Put tables, ledgers and waiting files back. The snapshot is checked before anything changes.

    Example: lakeops snapshot restore --to restored --execute
    """
    lake = lake_of(env)
    target = _at(lake, to) if to else lake
    with ExitStack() as stack:
        stack.enter_context(exclusive(lake, "snapshot restore"))
        if target.home != lake.home:
            stack.enter_context(exclusive(target, "snapshot restore"))
        tick = stack.enter_context(_Ticker("checked or copied", as_json))
        done = restore_snapshot(lake, target, snapshot, table or (), overwrite, execute, tick)
        created = {each.table for each in done.tables if each.move is Move.CREATE}
        if execute and created and with_catalog and _has_catalog(target, to is not None):
            home.register(target.settings, target.spark, created)
    if as_json:
        print_json(done)
    else:
        _show_restore(done)


@app.command()
def drill(
    snapshot: Identifier = None,
    batch: Annotated[
        Path | None,
        typer.Option("--batch", callback=local_file, help="Folder of <source>/<file> to deliver after the restore."),
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option("--scratch", callback=local_file, help="Home to restore to; must not exist.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the scratch home.")] = False,
    build: Annotated[bool, typer.Option("--build/--no-build", help="Also `dbt build` on the restored lake.")] = True,
    select: Annotated[
        list[str] | None, typer.Option("--select", help="Build these nodes only; dbt's selection, repeatable.")
    ] = None,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Test a snapshot: restore it beside the lake, compare, take the next batch there, print RPO and RTO.

    Example: lakeops snapshot drill --batch next_batch
    """
    lake = lake_of(env)
    with exclusive(lake, "snapshot drill"):
        say = partial(typer.echo, err=as_json)
        done = run_drill(lake, snapshot, batch, scratch, keep, build, select or (), say)
        record_drill(lake, done)
    if as_json:
        print_json(done)
    else:
        _show_drill(done)


@app.command()
def prune(
    keep: Annotated[int, typer.Option("--keep", help="How many of the newest snapshots stay.")] = 14,
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Remove old snapshots, and the files that no other snapshot needs.

    Example: lakeops snapshot prune --keep 14 --execute
    """
    lake = lake_of(env)
    with exclusive(lake, "snapshot prune"):
        done = prune_snapshots(lake, keep, execute)
    if as_json:
        print_json(done)
        return
    for identifier in done.remove:
        typer.echo(f"remove   snapshot {identifier}")
    for identifier in done.drafts:
        typer.echo(f"remove   the record of the interrupted copy {identifier}")
    typer.echo(
        f"{len(done.keep)} snapshots stay; {done.files} files, {done.bytes} bytes, are then referred to by none."
    )
    say_if_planned(execute)


class _Ticker(Live):
    """How far copying or checking is: on a terminal always, elsewhere a line now and then."""

    def __init__(self, verb: str, quiet: bool) -> None:
        super().__init__(quiet)
        self.begin(verb)
        self.verb, self.quiet, self.told_at = verb, quiet, 0.0

    def __call__(self, progress: CopyProgress) -> None:
        told = f"{progress.bytes} bytes"
        self.count(progress.done, progress.files, told)
        if not self.quiet and not self.console.is_terminal and self.seconds - self.told_at >= _EVERY_SECONDS:
            self.told_at = self.seconds
            typer.echo(f"{self.verb:<7} {progress.done} of {progress.files} files, {told} ({self.seconds:.0f} s)")


def _at(lake: Lake, place: str) -> Lake:
    """The environment with another home.

    Raises:
        ConfigError: the place is an address of another kind, another environment's home, or a copy.
    """
    home_there = Path(place) if bucket_address(place) else local_path(place, "--to")
    settings = Settings(**{**lake.settings.model_dump(), "home": home_there})
    home.require(settings)
    return Lake(settings)


def _has_catalog(target: Lake, is_another_home: bool) -> bool:
    """Whether restored tables may be registered: a server's catalog is of its own home."""
    return not (is_another_home and is_connect(target.settings))


def _summary(snapshot: Snapshot) -> dict[str, Any]:
    names = ("id", "pinned_at", "completed_at", "environment", "bytes", "copied_files", "copied_bytes",
             "copied_log_bytes", "seconds", "age_seconds")  # fmt: skip
    tables = [
        {"table": t.name, "version": t.version, "rows": t.rows, "files": len(t.files), "bytes": t.bytes}
        for t in snapshot.tables
    ]
    return {name: getattr(snapshot, name) for name in names} | {"tables": tables}


def _verdict(verdict: Verification) -> str:
    how = "all checksums right" if verdict.thorough else "all sizes right"
    return f"snapshot {verdict.id} is whole: {verdict.files} files, {verdict.bytes} bytes, {how}"


def _show_restore(done: SnapshotRestore) -> None:
    typer.echo(_verdict(done.verdict))
    rows = [[t.table, t.move.value, t.version_there, t.version, t.rows, t.files, t.bytes] for t in done.tables]
    print_rows(["table", "move", "version there", "version", "rows", "files", "bytes"], rows)
    typer.echo(
        f"{done.ledgers} batch manifests, {done.landing} waiting files, {len(done.watermarks)} watermarks; "
        f"to {done.home}"
    )
    if done.lost_batches:
        typer.echo(f"taken since the snapshot, and taken again from landing: {', '.join(done.lost_batches)}")
    for table in done.tables:
        if table.newer and not done.executed:
            typer.echo(f"newer    {table.table} {table.newer}; only --overwrite replaces it")
    if done.executed:
        typer.echo(f"restored {done.snapshot} in {done.seconds:.1f} s; its data is {_age(done.age_seconds)} old.")
        if done.replaced:
            typer.echo(
                f"What was replaced is in {done.replaced}; remove it when it is not needed. Next: `lakeops run`."
            )
    say_if_planned(done.executed)


def _show_drill(done: Drill) -> None:
    print_rows(
        ["table", "rows", "compared with", "equal"],
        [[t.table, t.rows, t.source, "yes" if t.is_equal else "NO"] for t in done.tables],
    )
    for batch in done.batches:
        typer.echo(
            f"{batch.source}: batch {batch.batch_id} has {batch.found} rows in bronze, {batch.accepted} accepted"
        )
    typer.echo(f"RPO {_age(done.rpo_seconds)}: what a loss now would have cost. RTO {_age(done.rto_seconds)}.")
    if done.scratch:
        typer.echo(f"The restored lake is in {done.scratch}.")


def _age(seconds: float) -> str:
    units: list[tuple[str, Callable[[float], float]]] = [
        ("s", lambda s: s), ("min", lambda s: s / 60), ("h", lambda s: s / 3600), ("d", lambda s: s / 86400)
    ]  # fmt: skip
    place = sum(seconds >= limit for limit in (120, 7200, 172800))
    return f"{units[place][1](seconds):.0f} {units[place][0]}"
