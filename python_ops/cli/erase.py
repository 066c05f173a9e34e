"""`lakeops erase`: a person is taken out of the lake, and stays out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, Execute, lake_of, local_file, print_json, say_if_planned
from python_ops.cli.progress import Progress
from python_ops.cli.tables import print_rows
from python_ops.lake.erasure import Subject, receipts
from python_ops.lake.errors import OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.lock import exclusive
from python_ops.run.erasure import Erasure, come_back
from python_ops.run.erasure import plan as plan_erasure
from python_ops.run.erasure import run as run_erasure
from python_ops.run.erasure.people import parsed

app = typer.Typer(help="Erase people: find them everywhere, remove them, keep them out.", no_args_is_help=True)

Given = Annotated[list[str] | None, typer.Option("--subject", help="A person as kind=value, such as contact_id=…")]
File = Annotated[
    Path | None,
    typer.Option(
        "--subjects", callback=local_file, help="A file with one kind=value a line: shells keep what is typed."
    ),
]
Erased = Annotated[bool, typer.Option("--erased", help="Whoever was erased and is there again, as after a restore.")]


@app.command()
def plan(
    subject: Given = None,
    subjects: File = None,
    erased: Erased = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Show where people are, with counts, and what a run would do there. Starts no JVM.

    Example: lakeops erase plan --subjects people.txt
    """
    lake = lake_of(env)
    found = plan_erasure(lake, _people(lake, subject, subjects, erased))
    _show(found, as_json)
    _refuse_absent(found)


@app.command()
def run(
    subject: Given = None,
    subjects: File = None,
    erased: Erased = False,
    execute: Execute = False,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Erase people: rewrite landing files, remove or key anew their rows, build and publish again, and keep them out.

    Example: lakeops erase run --subjects people.txt --execute
    """
    if not execute:
        plan(subject, subjects, erased, env, as_json)
        if not as_json:
            say_if_planned(execute)
        return
    lake = lake_of(env)
    people = _people(lake, subject, subjects, erased)
    with exclusive(lake, "erase run"), Progress(quiet=as_json) as progress:
        tell = (lambda text: None) if as_json else (lambda text: typer.echo(f"erase   {text}"))
        done = run_erasure(lake, people, progress, tell)
    _show(done, as_json)


@app.command()
def status(env: Env = Environment.LOCAL, as_json: AsJson = False) -> None:
    """List the erasures: when, whether they are done, in how many places, and what is due. Names nobody.

    Example: lakeops erase status
    """
    found = receipts(lake_of(env))
    if as_json:
        print_json(found)
        return
    rows = [
        [name[:24], told["at"], told["state"], len(told.get("places", ())), len(told.get("due", ()))]
        for name, told in sorted(found.items(), key=lambda each: str(each[1]["at"]))
    ]
    print_rows(["subject", "at", "state", "places", "due"], rows)
    for due in sorted({due for told in found.values() for due in told.get("due", ())}):
        typer.echo(f"due     {due}")


def _people(lake: Lake, given: list[str] | None, file: Path | None, erased: bool) -> list[Subject]:
    if not erased:
        return parsed(lake.contracts, given or (), file)
    if given or file:
        raise typer.BadParameter("--erased names everybody who was erased before: give no subject beside it.")
    if not (people := come_back(lake)):
        raise OpsError("Nobody who was erased is there again.")
    return people


def _refuse_absent(found: Erasure) -> None:
    if found.absent:
        listed = ", ".join(map(str, found.absent))
        raise OpsError(f"Number {listed} of {found.subjects}, in the order given, is nowhere in the lake.")


def _show(found: Erasure, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_rows(["where", "records", "what is done"], [[p.name, p.records, p.act] for p in found.places])
    for title, lines in (("due", found.due), ("look", found.unreached), ("blocked", found.blocked)):
        for line in lines:
            typer.echo(f"{title:<7} {line}")
    done = "erased" if found.executed else "to erase"
    typer.echo(f"{found.subjects} people {done}, {found.again} of them not for the first time")
