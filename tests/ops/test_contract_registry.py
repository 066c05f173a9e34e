"""Releases of contracts: what may change under which version number, and that the registry holds to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from python_ops.cli.app import app
from python_ops.lake.contracts import Contract, export, parse, releases, sources
from python_ops.lake.contracts.compatibility import Level, changes, next_version, raised
from python_ops.lake.errors import ContractError

BEFORE = """source: things
version: 1.4.2
description: Things of the shop.
owner: data-platform
format: jsonl
key: [thing_id]
columns:
  - {name: thing_id, type: int, required: true, description: Identifier.}
  - {name: label, type: string, required: true, description: Name shown in the shop.}
  - {name: price, type: "decimal(12,2)", description: Price.}
  - {name: sold_at, type: timestamp, description: When it was sold., earliest: "2000-01-01", accepts: [no_zone]}
"""


def contract(text: str = BEFORE) -> Contract:
    return parse(text, Path("things.yml"))


CHANGES = [
    # what is edited, into what, what it must raise, how it is told
    ("", "", Level.NONE, ""),
    ("Things of the shop.", "Things that the shop sells.", Level.PATCH, "description:"),
    ("owner: data-platform", "owner: shop", Level.PATCH, "owner: 'data-platform' → 'shop'"),
    ("description: Price.", "description: Price in euro.", Level.PATCH, "column price: description"),
    ("key: [", "meta: {sla_minutes: 60}\nkey: [", Level.MINOR, "meta: {} → {'sla_minutes': 60}"),
    ("key: [", "thresholds: {max_rejected_share: 0.1}\nkey: [", Level.MINOR, "{'max_rejected_share': 0.1"),
    ("key: [", "expectations: {row_count_change: 0.5}\nkey: [", Level.MINOR, "'row_count_change': 0.5"),
    ("name: price,", "name: price, pii: true,", Level.MINOR, "column price: pii False → True"),
    ("name: price,", "name: price, lf_tags: {a: b},", Level.MINOR, "column price: lf_tags {} → {'a': 'b'}"),
    ("type: int", "type: bigint", Level.MINOR, "column thing_id: type int → bigint, widened"),
    ("decimal(12,2)", "decimal(14,4)", Level.MINOR, "column price: type decimal(12,2) → decimal(14,4), widened"),
    ("label, type: string, required: true", "label, type: string", Level.MINOR, "column label: required → optional"),
    ("columns:\n", "columns:\n  - {name: new, type: date, description: New.}\n", Level.MINOR, "added, optional date"),
    ("accepts: [no_zone]", "accepts: [no_zone, epoch_s]", Level.MINOR, "accepts no_zone → no_zone, epoch_s"),
    ("2000-01-01", "1990-01-01", Level.MINOR, "earliest '2000-01-01' → '1990-01-01'"),
    ("2000-01-01", "2010-01-01", Level.MAJOR, "earliest '2000-01-01' → '2010-01-01'"),
    (", accepts: [no_zone]", "", Level.MAJOR, "accepts no_zone → nothing more"),
    ("decimal(12,2)", "decimal(13,3)", Level.MINOR, "widened"),
    ("decimal(12,2)", "decimal(12,4)", Level.MAJOR, "column price: type decimal(12,2) → decimal(12,4), not a widening"),
    ("decimal(12,2)", "decimal(10,2)", Level.MAJOR, "not a widening"),
    ("type: timestamp", "type: date", Level.MAJOR, "column sold_at: type timestamp → date, not a widening"),
    ("type: int", "type: string", Level.MAJOR, "column thing_id: type int → string, not a widening"),
    ("price, type", "price, required: true, type", Level.MAJOR, "column price: optional → required"),
    ("name: label", "name: title", Level.MAJOR, "column label: removed (renamed to title?)"),
    ('  - {name: price, type: "decimal(12,2)", description: Price.}\n', "", Level.MAJOR, "column price: removed"),
    (
        "columns:\n",
        "columns:\n  - {name: new, type: date, required: true, description: New.}\n",
        Level.MAJOR,
        "column new: added, required date",
    ),
    ("key: [thing_id]", "key: [thing_id, label]", Level.MAJOR, "key: thing_id → thing_id, label"),
    ("format: jsonl", "format: avro", Level.MAJOR, "format: 'jsonl' → 'avro'"),
    ("key: [", "complete: true\nkey: [", Level.MAJOR, "complete: False → True"),
    ("key: [", "schema: public\nkey: [", Level.MINOR, "schema: None → 'public'"),
]


@pytest.mark.parametrize(("old", "new", "level", "told"), CHANGES)
def test_each_change_raises_its_part_of_the_version(old: str, new: str, level: Level, told: str) -> None:
    found = changes(contract(), contract(BEFORE.replace(old, new, 1)))

    assert max((change.level for change in found), default=Level.NONE) == level
    assert told in "; ".join(f"{change.where}: {change.text}" for change in found)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry in which one contract was released."""
    (tmp_path / "things.yml").write_text(BEFORE)
    assert releases.release("things", tmp_path)
    return tmp_path


def edit(registry: Path, old: str, new: str, version: str) -> releases.ReleaseCheck:
    path = registry / "things.yml"
    text = path.read_text().replace(old, new, 1) if old else path.read_text()
    path.write_text(text.replace("1.4.2", version))
    return releases.check("things", registry)


@pytest.mark.parametrize(("old", "new", "level", "told"), [case for case in CHANGES if case[2]])
def test_a_change_is_refused_until_its_part_is_raised(
    registry: Path, old: str, new: str, level: Level, told: str
) -> None:
    numbers = {Level.NONE: "1.4.2", Level.PATCH: "1.4.3", Level.MINOR: "1.5.0", Level.MAJOR: "2.0.0"}
    for part, number in numbers.items():
        (registry / "things.yml").write_text(BEFORE.replace(old, new, 1).replace("1.4.2", number))
        verdict = releases.check("things", registry)
        assert bool(verdict.faults) == (part < level), verdict
        if verdict.faults:
            assert told in verdict.faults[0] and f"raise the version to {numbers[level]}" in verdict.faults[0]
            with pytest.raises(ContractError, match="things is not released: version"):
                releases.release("things", registry)
        else:
            assert verdict.waits


def test_a_release_is_the_file_as_it_was_and_is_made_once(registry: Path) -> None:
    assert (registry / "released/things/1.4.2.yml").read_bytes() == (registry / "things.yml").read_bytes()
    assert releases.release("things", registry) is None
    edit(registry, "label, type: string, required: true", "label, type: string", "1.10.0")
    edit(registry, "", "", "1.10.0")
    assert releases.release("things", registry) == registry / "released/things/1.10.0.yml"
    assert releases.versions("things", registry) == ["1.4.2", "1.10.0"]  # by number, not by text
    assert not list(registry.rglob("*.tmp"))


def test_versions_are_numbers() -> None:
    assert raised("1.4.2", "1.4.10") is Level.PATCH
    assert raised("1.4.2", "2.0.0") is Level.MAJOR
    assert raised("1.4.2", "1.4.2") is raised("1.4.2", "1.3.9") is Level.NONE
    assert next_version("1.4.2", Level.MINOR) == "1.5.0"


def test_what_happens_to_the_files_of_the_registry_is_noticed(registry: Path) -> None:
    kept = registry / "released/things/1.4.2.yml"
    text = kept.read_text()
    kept.write_text(text.replace("1.4.2", "1.4.1"))
    assert "A release is not edited: restore it from git" in releases.check("things", registry).faults[0]
    kept.write_text(text)
    (registry / "released/things/latest.yml").write_text(text)
    assert "is not named <version>.yml" in releases.check("things", registry).faults[0]
    (registry / "released/things/latest.yml").unlink()
    lower = edit(registry, "version: 1.4.2", "version: 1.4.0", "1.4.0")
    assert lower.faults == ("version 1.4.0 is lower than 1.4.2, which is released",)
    (registry / "things.yml").unlink()
    assert releases.registered(registry) == ["things"]
    assert "things.yml is gone" in releases.check("things", registry).faults[0]


def test_every_contract_of_the_project_is_released_and_dbt_reads_what_they_say() -> None:
    verdicts = [releases.check(source) for source in releases.registered()]

    assert [verdict.source for verdict in verdicts] == list(sources())
    assert [verdict.faults for verdict in verdicts if verdict.faults] == []
    assert [f"{v.source} {v.version}: lakeops contracts release" for v in verdicts if v.waits] == []
    assert export.is_current(), f"{export.COMMAND} writes {export.SOURCES_FILE.name}"


@pytest.fixture
def lakeops(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def run(*arguments: str) -> str:
        app([*arguments], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_the_commands_say_what_they_found(lakeops, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert lakeops("contracts", "check").count(" good\n") == len(sources())
    checked = json.loads(lakeops("contracts", "check", "crm_contacts", "--json"))
    assert checked["dbt_sources_current"] is True
    assert [found["source"] for found in checked["contracts"]] == ["crm_contacts"]
    assert "nothing changed" in lakeops("contracts", "diff", "crm_contacts")
    assert json.loads(lakeops("contracts", "diff", "crm_contacts", "--json"))["changes"] == []
    assert "was released before" in lakeops("contracts", "release", "crm_contacts")
    written = lakeops("contracts", "export", "fx_rates", "--to", str(tmp_path)).split()
    assert [Path(name).name for name in written] == ["fx_rates.schema.json", "fx_rates.avsc"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("check", "nope"), "Unknown source nope. Known sources: crm_accounts"),
        (("diff", "nope"), "no contract for source 'nope'"),
        (("diff", "crm_contacts", "--from", "9.9.9"), "Version 9.9.9 of crm_contacts is not released. Released: 1.0.0"),
        (("export", "fx_rates", "--dbt"), "--dbt writes one file for all sources"),
        (("infer", "nothing.csv", "--source", "a_b"), "cannot be read as a sample"),
        (("infer", "nothing.csv", "--source", "A-B"), "is not a name of a source"),
    ],
)
def test_wrong_usage_says_what_is_known(lakeops, arguments: tuple[str, ...], told: str) -> None:  # type: ignore[no-untyped-def]
    from python_ops.lake.errors import ConfigError

    with pytest.raises(ConfigError) as error:
        lakeops("contracts", *arguments)
    assert told in str(error.value) and error.value.exit_code == 2
