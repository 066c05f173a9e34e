"""`lakeops contracts`: the schema registry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from python_ops.cli import AsJson, Env, Environment, Sources, local_file, print_json
from python_ops.lake.contracts import export as exports
from python_ops.lake.contracts import infer as inference
from python_ops.lake.contracts import load, releases
from python_ops.lake.contracts import sources as known_sources
from python_ops.lake.contracts.compatibility import Change, changes
from python_ops.lake.errors import ConfigError, ContractError

app = typer.Typer(help="Data contracts of the sources: check, release, export.", no_args_is_help=True)


@app.command()
def check(sources: Sources = None, env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Check contracts, and what changed in them since their last release. Exit 2 when one is refused.

    Example: lakeops contracts check
    """
    verdicts = [releases.check(source) for source in _asked(sources)]
    refused = [verdict.source for verdict in verdicts if verdict.faults]
    current = bool(refused) or exports.is_current()
    if as_json:
        print_json({"contracts": [_verdict_data(v) for v in verdicts], "dbt_sources_current": current and not refused})
    else:
        for verdict in verdicts:
            typer.echo(_verdict(verdict))
    if refused:
        raise ContractError(f"{len(refused)} of {len(verdicts)} contracts are refused: {', '.join(refused)}.")
    if not current:
        raise ContractError(f"{exports.SOURCES_FILE.name} differs from the contracts. `{exports.COMMAND}` writes it.")


@app.command()
def diff(
    source: Annotated[str, typer.Argument(help="Source.")],
    old: Annotated[str, typer.Option("--from", help="A released version; the last when not given.")] = "",
    new: Annotated[str, typer.Option("--to", help="A released version; the contract as it is when not given.")] = "",
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two versions of a contract, and which part of the version that must raise.

    Example: lakeops contracts diff crm_contacts --from 1.0.0
    """
    known = releases.versions(source)
    if source not in releases.registered() or not (old or known):
        load(source)
        raise ConfigError(f"{source} is not released yet, so there is nothing to compare it with.")
    before = releases.released(source, old or known[-1])
    after = releases.released(source, new) if new else load(source)
    found = changes(before, after)
    if as_json:
        print_json({"source": source, "from": before.version, "to": after.version, "changes": _data(found)})
        return
    typer.echo(f"{source} {before.version} → {after.version}" + ("" if found else ": nothing changed"))
    for change in found:
        typer.echo(_change(change))


@app.command()
def release(sources: Sources = None, env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """Keep each new version of a contract in python_ops/lake/contracts/released/; commit the files.

    Example: lakeops contracts release crm_contacts
    """
    asked = _asked(sources)
    if refused := [verdict for source in asked if (verdict := releases.check(source)).faults]:
        raise ContractError(
            "; ".join(f"{v.source}: {', '.join(v.faults)}" for v in refused) + ". Nothing was released."
        )
    written = {source: releases.release(source) for source in asked}
    if as_json:
        print_json({source: load(source).version for source, path in written.items() if path})
        return
    for source, path in written.items():
        typer.echo(f"{source:<20} {load(source).version:<8} {'released' if path else 'was released before'}")


@app.command()
def export(
    sources: Sources = None,
    to: Annotated[Path, typer.Option("--to", callback=local_file, help="Folder for the schemas.")] = Path(
        "target/contracts"
    ),
    dbt: Annotated[bool, typer.Option("--dbt", help="Write dbt's source YAML instead, of all sources.")] = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Write a JSON Schema and an Avro schema per source, or the sources of the dbt project.

    Example: lakeops contracts export shop_orders --to schemas
    """
    if dbt and sources:
        raise ConfigError("--dbt writes one file for all sources, so name no source.")
    if dbt:
        exports.SOURCES_FILE.write_text(exports.dbt_sources(), encoding="utf-8")
        written = [exports.SOURCES_FILE]
    else:
        contracts = [load(source) for source in _asked(sources)]
        written = [path for contract in contracts for path in exports.write(contract, to)]
    if as_json:
        print_json(written)
        return
    for path in written:
        typer.echo(path)


@app.command()
def infer(
    file: Annotated[Path, typer.Argument(help="A sample: jsonl, csv, parquet, Avro or Debezium JSON; plain or gzip.")],
    source: Annotated[str, typer.Option("--source", help="Name of the source, <system>_<table>.")],
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Draft a contract from a file, for a person to finish: descriptions, owner, what is required.

    Example: lakeops contracts infer partners.csv --source erp_partners
    """
    draft = inference.draft(file, source)
    if as_json:
        print_json(draft.data)
    else:
        typer.echo(draft.text, nl=False)


def _asked(sources: list[str] | None) -> list[str]:
    known = releases.registered()
    if unknown := [source for source in sources or () if source not in known]:
        raise ConfigError(f"Unknown source {', '.join(unknown)}. Known sources: {', '.join(known_sources())}.")
    return list(dict.fromkeys(sources or known))


def _verdict(verdict: releases.ReleaseCheck) -> str:
    version = verdict.version or "-"
    if verdict.faults:
        state = "REFUSED"
    elif verdict.released is None:
        state = "good, never released"
    elif verdict.waits:
        state = f"good, not released yet (last: {verdict.released})"
    else:
        state = "good"
    lines = [f"{verdict.source:<20} {version:<8} {state}", *(_change(change) for change in verdict.changes)]
    return "\n".join([*lines, *(f"    refused: {fault}." for fault in verdict.faults)])


def _verdict_data(verdict: releases.ReleaseCheck) -> dict[str, Any]:
    return {**asdict(verdict), "changes": _data(verdict.changes), "waits": verdict.waits}


def _change(change: Change) -> str:
    return f"    {change.level.name.lower():<6} {change.where}: {change.text}"


def _data(found: Iterable[Change]) -> list[dict[str, str]]:
    return [{"level": change.level.name.lower(), "where": change.where, "text": change.text} for change in found]
