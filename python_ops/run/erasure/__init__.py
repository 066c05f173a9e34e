"""Erasing people: where they are, and taking them out of all of it, for good.

The order makes a run that died safe to repeat. First a record says that they are erased, and ingestion keeps them out
from then on. Then landing files, dead letters, bronze, silver and gold lose them. A build derives again what was made
from them, and publishing sends it. What only time removes is written into the record, with who does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from python_ops.jobs.extract.pull_state import PullState
from python_ops.jobs.maintenance import policies
from python_ops.lake.artifacts import Manifest
from python_ops.lake.delta import exists, query
from python_ops.lake.erasure import KIND, Hashing, Subject, hashing, keep_receipt, suppressed
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.lock import PUBLISH, leased
from python_ops.lake.spark import separate_session
from python_ops.lake.tags import tags
from python_ops.run.daily import Job, Report
from python_ops.run.erasure import others, tables
from python_ops.run.erasure.landing import erase_files
from python_ops.run.erasure.people import Seeker, kinds

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """A place that people are in.

    Attributes:
        name: A file, a table, a warehouse's table.
        records: Records, rows or lines; None where they were not counted.
        act: What a run does there.
    """

    name: str
    records: int | None
    act: str


@dataclass(frozen=True)
class Erasure:
    """What an erasure finds, or did.

    Attributes:
        subjects: How many people.
        absent: Numbers of those, from 1, who are nowhere in the lake.
        again: How many of them were erased before.
        places: Where they are.
        due: What only time removes, each with who does it.
        unreached: What is not searched or cannot be changed, each with what to do.
        blocked: Why a run would be refused.
        executed: Whether they are erased.
    """

    subjects: int
    absent: tuple[int, ...]
    again: int
    places: tuple[Place, ...]
    due: tuple[str, ...]
    unreached: tuple[str, ...]
    blocked: tuple[str, ...]
    executed: bool = False


@dataclass
class _Search:
    """What is known while places are gone through."""

    people: Sequence[Subject]
    found: Counter[Subject] = field(default_factory=Counter)
    places: list[Place] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)

    def note(self, name: str, found: Counter[Subject], act: str) -> None:
        if found:
            self.found += found
            self.places.append(Place(name, found.total(), act))


def plan(lake: Lake, people: Sequence[Subject]) -> Erasure:
    """Where people are, and what a run would do. Starts no JVM.

    Raises:
        ConfigError: the key is not set, or another one.
        OpsError: there is no manifest, or a place cannot be read.
    """
    return _seen(lake, lake.manifest(), people, hashing(lake)).planned


def run(lake: Lake, people: Sequence[Subject], report: Report, tell: Tell) -> Erasure:
    """Erases people. Call it with the environment held.

    Args:
        report: Of the build and the publishing, as in `run.daily.Job`.
        tell: Called with each step.

    Raises:
        ConfigError: the key is not set, or another one.
        OpsError: somebody is nowhere, a tag or an unfinished batch is in the way, or a step failed; the same command
            goes on where it stopped.
        BusyError: another process holds a table.
    """
    key, manifest = hashing(lake), lake.manifest()
    written = [model.stored_table for model in manifest.models.values() if model.storage]
    sources = _sources(lake, people)
    written += [f"{lake.schema_name(layer)}.{source}" for source in sources for layer in ("bronze", "dlq")]
    with leased(lake, [*written, PUBLISH], "lakeops erase run"):
        seen = _seen(lake, manifest, people, key)
        found, where, touched, values = seen.planned, seen.where, seen.touched, seen.values
        _refuse(lake, found, sources)
        at = _now()
        names = [f"{person.kind}.{key.digest(person)}" for person in people]
        receipt = {"at": at, "key_check": key.check(), "state": "begun", "tables": touched}
        before = {name: record.value for name in names if (record := lake.store.get(KIND, name))}
        for name in names:
            keep_receipt(lake, name, {**before.get(name, {}), **receipt})
        _ = [*others.texts(lake, values, execute=True)]  # while bronze still says what is to be looked for
        _erase(lake, people, key, where, sources, f"erased-{at}", tell)
        job = Job(lake, report, "erase run")
        job.build()
        job.publish()
        others.compact(lake)
        left = [*others.texts(lake, values, execute=True)]
        due = _due(lake, manifest, touched, at)
        done = Erasure(
            len(people), found.absent, found.again, found.places, tuple(due),
            (*found.unreached, *_left_in(left)), (), executed=True,
        )  # fmt: skip
        told = {"at": _now(), "state": "done", "people": len(people), "due": due, "unreached": done.unreached}
        places = [[at, place.name, place.records, place.act] for place in done.places]
        for name in names:
            keep_receipt(lake, name, {**receipt, **told, "places": [*before.get(name, {}).get("places", ()), *places]})
    return done


def come_back(lake: Lake) -> list[Subject]:
    """Who was erased and is there again: in bronze after a restore of a snapshot from before, in landing files and dead
    letters because a source delivered them again. Starts no JVM.

    Raises:
        ConfigError: the key is not set, or another one.
    """
    key, known = hashing(lake), suppressed(lake)
    found: dict[Subject, None] = {}
    for contract in map(lake.contracts.load, lake.contracts.sources):
        seeker = Seeker(contract, (), key, known)
        if seeker.columns:
            for file in erase_files(lake, seeker):
                found |= dict.fromkeys(file.found)
            seeker.found = Counter()
            _ = list(tables.letters_of(lake, seeker))
            found |= dict.fromkeys(seeker.found)
    for kind, columns in kinds(lake.contracts).items():
        for contract, column in columns if kind in known else ():
            if exists(path := lake.table_path("bronze", contract.source)):
                rows = query(path, f'select distinct cast("{column.name}" as varchar) as value from t').to_pylist()
                people = (Subject(kind, row["value"]) for row in rows if row["value"] is not None)
                found |= dict.fromkeys(person for person in people if key.digest(person) in known[kind])
    return list(found)


def _sources(lake: Lake, people: Sequence[Subject]) -> list[str]:
    """Sources with a column that identifies people of these kinds."""
    known = kinds(lake.contracts)
    return sorted({contract.source for kind in {person.kind for person in people} for contract, _ in known[kind]})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Seen(NamedTuple):
    """What was seen of people.

    Attributes:
        where: Tables to change: those that they are in; for whoever was erased before, all that have their columns.
        touched: Tables whose old files may hold them: all that have their columns, and dead letters.
        values: What tells them in texts.
    """

    planned: Erasure
    where: list[tables.Place]
    touched: list[str]
    values: list[str]


def _seen(lake: Lake, manifest: Manifest, people: Sequence[Subject], key: Hashing) -> _Seen:
    search, where = _Search(people), tables.places(lake, manifest, people)
    for contract in map(lake.contracts.load, _sources(lake, people)):
        seeker = Seeker(contract, people, key)
        for file in erase_files(lake, seeker):
            name = f"landing/{file.source}/{file.name}"
            if file.fault is not None:
                search.unreached.append(f"{name} {file.fault}: look at it, or remove it")
            search.note(name, file.found, "write again")
        seeker = Seeker(contract, people, key)
        _ = list(tables.letters_of(lake, seeker))
        search.note(f"{lake.schema_name('dlq')}.{contract.source}", seeker.found, "remove")
    holding = []
    for place in where:
        found = tables.count(place, people)
        holding += [place] if found else []
        search.note(place.table, found, "key anew" if place.is_rekeyed else "remove")
    for name, records in others.published_rows(lake, manifest, people):
        if records != 0:
            search.places.append(Place(name, records, "publish again"))
    values = others.values_of(lake, people)
    for name, lines, is_by_lines in others.texts(lake, values):
        if is_by_lines:
            search.places.append(Place(name, lines, "take out the lines"))
        else:
            search.unreached.extend(_left_in([(name, lines, False)]))
    known = suppressed(lake)
    before = [person for person in people if key.digest(person) in known.get(person.kind, ())]
    absent = [n for n, person in enumerate(people, 1) if not search.found[person] and person not in before]
    letters = [source for source in _sources(lake, people) if exists(lake.table_path("dlq", source))]
    touched = [place.table for place in where] + [f"{lake.schema_name('dlq')}.{source}" for source in letters]
    planned = Erasure(
        len(people), tuple(absent), len(before), tuple(search.places), tuple(_due(lake, manifest, touched, _now())),
        tuple(search.unreached), tuple(_tagged(lake, touched)),
    )  # fmt: skip
    return _Seen(planned, where if before else holding, touched, values)


def _tagged(lake: Lake, names: Sequence[str]) -> list[str]:
    return [
        f"tag {tag.name} keeps versions of {', '.join(sorted(held))}: `lakeops table untag {tag.name} --execute` lets "
        "them go"
        for tag in tags(lake)
        if (held := tag.tables.keys() & set(names))
    ]


def _refuse(lake: Lake, found: Erasure, sources: Sequence[str]) -> None:
    if found.absent:
        listed = ", ".join(map(str, found.absent))
        raise OpsError(
            f"Of {found.subjects} people, number {listed} (in the order given) is nowhere in the lake, and was never "
            "erased. Nothing was done. Look at the value: letter case and zeros in front count."
        )
    if found.blocked:
        raise OpsError(f"Nothing was erased: {'; '.join(found.blocked)}. Then run it again.")
    for source in sources:
        if (batch := lake.ledger(source).open_batch) is not None:
            raise OpsError(
                f"Nothing was erased: batch {batch.batch_id} of {source} was interrupted. Finish it with "
                f"`lakeops ingest run {source}`, then run it again."
            )


def _erase(
    lake: Lake, people: Sequence[Subject], key: Hashing, where: Sequence[tables.Place], sources: Sequence[str],
    mark: str, tell: Tell,
) -> None:  # fmt: skip
    session = separate_session(lake.spark)
    for source in sources:
        contract = lake.contracts.load(source)
        seeker = Seeker(contract, people, key)
        for file in erase_files(lake, seeker, execute=True):
            tell(f"landing  {source}/{file.name}: {file.fault or f'{file.found.total()} records'}")
        PullState(lake.state / "extract", source).forget()
        if letters := list(tables.letters_of(lake, seeker := Seeker(contract, people, key))):
            tables.erase_letters(session, f"{lake.schema_name('dlq')}.{source}", letters)
            tell(f"dlq      {source}: {len(letters)} dead letters")
    for place in where:
        tables.erase_rows(session, place, people, key, mark)
        tell(f"{place.layer:<8} {place.table}")
    for source in sources:
        if exists(lake.table_path("bronze", source)):
            tables.recount(lake, source)


def _left_in(found: Sequence[tuple[str, int, bool]]) -> list[str]:
    return [
        f"{name}: {lines} lines. Look at it; what dbt made there it makes anew"
        for name, lines, is_by_lines in found
        if not is_by_lines
    ]


def _due(lake: Lake, manifest: Manifest, names: Sequence[str], at: str) -> list[str]:
    """What only time removes: old files and logs of tables, snapshots, what a warehouse itself keeps."""
    due = []
    began = datetime.fromisoformat(at)
    for policy in policies(lake, manifest):
        if policy.table in names:
            day = (began + timedelta(hours=policy.retain_hours)).isoformat(timespec="seconds")
            due.append(f"{policy.table}: old files and log, from {day}, by `lakeops maintain run --execute`")
    try:
        if older := others.snapshots_before(lake, at):
            due.append(
                f"{len(older)} snapshots of disaster recovery, the last {older[-1]}: make a new one, then "
                "`lakeops snapshot prune --keep 1 --execute`"
            )
    except ConfigError as exc:
        due.append(f"snapshots: {exc}")
    due += [f"replaced/{name}: tables before a restore; remove the folder" for name in others.copies_before(lake)]
    due += [
        f"{target}: what the warehouse itself keeps of deleted rows (autovacuum, time travel, its own backups)"
        for target in lake.settings.publish
        if target != "duckdb"
    ]
    return due
