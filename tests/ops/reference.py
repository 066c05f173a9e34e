"""The reference pages of docs/, made from the code: `make reference` writes them, and a test compares.

Commands and options come from the command line, exit codes from the error tree, settings from `Settings`, files from
the dataclasses that write them and the contract's JSON schema. Which page tells of a command is found in the pages.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any

import documented
import typer
import yaml
from pydantic_core import PydanticUndefined

from python_ops.cli.app import app
from python_ops.jobs.recovery.manifest import Snapshot, StoredFile, StoredTable
from python_ops.lake import contracts, errors
from python_ops.lake.config import FOLDER, PROJECT_ROOT, Settings, environments
from python_ops.lake.ledger import Batch, BatchState
from python_ops.lake.metrics import Metric
from python_ops.lake.run_record import last_run

DOCS = PROJECT_ROOT / "docs"
_MADE = "*This page is made from the code by `make reference`. Change it there.*"

# Variables that are not settings: who reads each is checked by tests/ops/test_docs.py.
VARIABLES = {
    "LAKEHOUSE_CORES": ("Spark's cores", "`*`"),
    "LAKEHOUSE_DRIVER_MEMORY": ("Spark's heap", "`3g`"),
    "SPARK_REMOTE": ("address of the Spark Connect server, for `dev` and `prod`", "none"),
    "LAKEHOUSE_CONNECT_ADDRESS": ("address that `infra/spark_connect.sh` listens on", "`127.0.0.1`"),
    "LAKEHOUSE_DRIVER_HOST": ("name or address at which a cluster's executors call that server", "this machine's name"),
    "LAKEHOUSE_PROJECT": ("folder of the checkout, for the Airflow DAGs", "none"),
    "LAKEHOUSE_ENV": ("environment of every command of the DAGs", "`prod`"),
    "LAKEHOUSE_RUNNER": ("what runs the DAGs' commands", "`.venv/bin/lakeops`"),
    "LAKEHOUSE_DEBUG": ("stack trace of a failed command", "off"),
    "DBT_LOG_LEVEL_FILE": ("dbt's own: `info` keeps SQL, and the keys in it, out of `dbt.log`", "`debug`"),
}
_COMMON = ("--env", "--json", "--help")


def pages() -> dict[Path, str]:
    """The text of each page, by its path."""
    return {
        DOCS / "commands.md": "\n".join(_commands()) + "\n",
        DOCS / "settings.md": "\n".join(_settings()) + "\n",
        DOCS / "files.md": "\n".join(_files()) + "\n",
    }


def _commands() -> Iterator[str]:
    every = dict(_leaves(typer.main.get_command(app), "lakeops"))
    yield from ("# Commands", "", _MADE, "")
    yield (
        "Every command has `--help` with an example. `--env` chooses the environment ("
        + ", ".join(f"`{name}`" for name in environments())
        + "); `local` is the default."
    )
    yield "`--json` prints one JSON document instead of text. `lakeops --version` prints the version. Words are in the"
    yield from ("[glossary](glossary.md).", "", "| command | what it does |", "|---|---|")
    yield from (f"| [`{name}`](#{_anchor(name)}) | {_cell(_summary(command))} |" for name, command in every.items())
    yield from ("", "## Exit codes", "", "| code | meaning |", "|---|---|", "| 0 | done |")
    yield from (f"| {code} | {_cell(meaning)} |" for code, meaning in _exit_codes())
    told = _told()
    for name, command in every.items():
        yield from ("", f"## {name}", "", *_description(command.help), "")
        yield from ("```text", _usage(name, command), "```", "")
        rows = [row for parameter in command.params if (row := _parameter(parameter))]
        if rows:
            yield from ("| argument or option | meaning | default |", "|---|---|---|", *rows, "")
        if found := told.get(name):
            yield "Told in " + ", ".join(f"[{title}]({page})" for page, title in found) + "."


def _leaves(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items(), key=lambda item: (hasattr(item[1], "commands"), item[0])):
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _summary(command: Any) -> str:
    return str(command.help).split("\n\n", 1)[0].replace("\n", " ")


def _description(text: str) -> list[str]:
    """The docstring; its example is code."""
    told = re.sub(r"^Example: (.*)$", r"Example: `\1`", inspect.cleandoc(text), flags=re.MULTILINE)
    return [_literal(line) for line in told.splitlines()]


def _usage(name: str, command: Any) -> str:
    parts = [name]
    for parameter in command.params:
        if parameter.opts[0].startswith("-"):
            if parameter.required:
                parts.append(f"{parameter.opts[0]} {parameter.name.upper()}")
        else:
            shown = parameter.name.upper() + ("…" if parameter.nargs == -1 else "")
            parts.append(shown if parameter.required else f"[{shown}]")
    return " ".join([*parts, "[OPTIONS]"])


def _parameter(parameter: Any) -> str | None:
    if parameter.opts[0] in _COMMON:
        return None
    kind = parameter.type_descriptor.annotation
    shown = " / ".join(f"`{name}`" for name in (*parameter.opts, *(parameter.secondary_opts or ())))
    if not parameter.opts[0].startswith("-"):
        shown = f"`{parameter.name.upper()}`"
    meaning = str(parameter.help or "")
    if isinstance(kind, type) and issubclass(kind, Enum):
        meaning += " One of " + ", ".join(f"`{member.value}`" for member in kind) + "."
    given = parameter.default
    default = "required" if parameter.required else "" if given in (None, False, [], ()) else f"`{_shown(given)}`"
    return f"| {shown} | {_cell(meaning)} | {default} |"


def _exit_codes() -> Iterator[tuple[str, str]]:
    """The classes of the error tree, with what its drawing says of them."""
    lines = str(errors.__doc__).splitlines()
    for line in lines:
        if found := re.match(r"[├└─│ ]*(\w+) +(\d+) +(.+)$", line):
            kind = getattr(errors, found[1])
            assert kind.exit_code == int(found[2]), f"errors.py draws another code of {found[1]}"
            yield found[2], found[3]


def _told() -> dict[str, list[tuple[str, str]]]:
    """Pages that tell of a command, with their titles: those that have it to type, else those that name it."""
    found: dict[str, dict[bool, list[tuple[str, str]]]] = {}
    for named in documented.commands():
        page = Path(named.page)
        if page.parts[0] != "docs" or page.name in ("commands.md", "index.md") or named.words[0] != "lakeops":
            continue
        title = (PROJECT_ROOT / page).read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
        entry = (page.relative_to("docs").as_posix(), title)
        for length in (2, 3):
            listed = found.setdefault(" ".join(named.words[:length]), {}).setdefault(named.whole, [])
            if entry not in listed:
                listed.append(entry)
    return {name: by_kind.get(True) or by_kind[False] for name, by_kind in found.items()}


def _settings() -> Iterator[str]:
    yield from ("# Settings", "", _MADE, "")
    yield "An environment is a file of `python_ops/lake/config/`. The variable `LAKEHOUSE_<NAME>` overrides a setting"
    yield from ("of it ([guide](guides/environments.md)); lists and mappings are JSON.", "")
    yield from ("| setting | meaning | values | default |", "|---|---|---|---|")
    meanings = _meanings(Settings)
    for name, field in Settings.model_fields.items():
        default = "required" if field.default is PydanticUndefined else _shown(field.default)
        values = _type(field.annotation)
        yield f"| `{name}` | {_cell(meanings[name])} | {_cell(values)} | {f'`{default}`' if default else ''} |"
    yield from ("", "## What each environment sets", "")
    files = {name: yaml.safe_load((FOLDER / f"{name}.yml").read_text()) or {} for name in environments()}
    yield from ("| setting | " + " | ".join(f"`{name}`" for name in files) + " |", "|---|" + "---|" * len(files))
    for name in Settings.model_fields:
        if any(name in given for given in files.values()):
            cells = (f"`{_shown(given[name])}`" if name in given else "" for given in files.values())
            yield f"| `{name}` | " + " | ".join(cells) + " |"
    yield from ("", "## Other variables", "", "| variable | meaning | default |", "|---|---|---|")
    yield from (f"| `{name}` | {meaning} | {default} |" for name, (meaning, default) in VARIABLES.items())


def _files() -> Iterator[str]:
    yield from ("# Files", "", _MADE, "")
    yield "What a contract may say, and what the files that the lake keeps about itself hold. Tables are described in"
    yield from ("the dbt docs; [the state](guides/state.md) says which file is where.", "", "## Contracts", "")
    yield "One YAML file per source, `python_ops/lake/contracts/<source>.yml`, checked by `contract.schema.json`"
    yield from ("([guide](guides/contracts.md)).", "")
    schema = json.loads((contracts.FOLDER / "contract.schema.json").read_text(encoding="utf-8"))
    parts = {
        "columns": contracts.Column, "thresholds": contracts.Thresholds, "expectations": contracts.Expectations,
        "expectations.freshness": contracts.Freshness, "schema_version": contracts.SchemaVersion,
    }  # fmt: skip
    yield from _schema(schema, schema["$defs"], contracts.Contract)
    for path, kind in parts.items():
        part = schema
        for name in path.split("."):
            part = part["properties"][name]
        yield from ("", f"### {path}", "", _first(kind), "")
        yield from _schema(part.get("items", part), schema["$defs"], kind)
    yield from ("", "## What the lake keeps about itself", "", "All is JSON, under the home.", "")
    yield from (
        "### state/last_run.json",
        "",
        str(inspect.getdoc(last_run)).replace("The record, or None: ", "Fields: "),
    )
    states = "\n".join(f"`{state.value}`" for state in BatchState).replace("\n", ", ")
    yield from _record("state/ingest/&lt;source&gt;/batch_&lt;n&gt;.json", Batch, f"States: {states}.")
    yield from _record("state/metrics/metrics.jsonl", Metric, "One object per line.")
    yield from _record("snapshots", Snapshot, "A snapshot's own record.")
    yield from _record("tables of a snapshot", StoredTable)
    yield from _record("files of a snapshot", StoredFile)


def _schema(part: Mapping[str, Any], shared: Mapping[str, Any], kind: type) -> Iterator[str]:
    meanings = _meanings(kind)
    yield from ("| field | meaning | values | needed |", "|---|---|---|---|")
    for name, given in part["properties"].items():
        values = _values({**shared.get(str(given.get("$ref", "")).rsplit("/", 1)[-1], {}), **given})
        needed = "yes" if name in part.get("required", ()) else ""
        yield f"| `{name}` | {_cell(meanings[name])} | {_cell(values)} | {needed} |"


def _values(given: Mapping[str, Any]) -> str:
    if "enum" in given:
        return ", ".join(f"`{value}`" for value in given["enum"])
    if given.get("type") == "array":
        return "list of " + (_values(given["items"]) if "enum" in given["items"] else "values")
    limits = [f"{word} {given[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in given]
    limits += [f"above {given['exclusiveMinimum']}"] if "exclusiveMinimum" in given else []
    return " ".join([str(given.get("type", "")), *limits]).replace("object", "mapping")


def _record(title: str, kind: type, more: str = "") -> Iterator[str]:
    yield from (
        "",
        f"### {title}",
        "",
        f"{_first(kind)} {more}".strip(),
        "",
        "| field | meaning | type |",
        "|---|---|---|",
    )
    meanings = _meanings(kind)
    for field in fields(kind):
        optional = "" if field.default is MISSING and field.default_factory is MISSING else ", may be left out"
        yield f"| `{field.name}` | {_cell(meanings.get(field.name, ''))} | {_cell(str(field.type))}{optional} |"


def _first(kind: type) -> str:
    return str(inspect.getdoc(kind)).split("\n\n", 1)[0].replace("\n", " ")


def _meanings(kind: type) -> dict[str, str]:
    """What a class's docstring says of its fields."""
    text = str(inspect.getdoc(kind)).partition("Attributes:\n")[2]
    found = re.findall(r"^ {4}(\w+): ((?:.+\n?)(?: {8}.+\n?)*)", text, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def _type(annotation: Any) -> str:
    text = re.sub(
        r"typing\.|pathlib\._local\.|pathlib\.|<class '([\w.]+)'>",
        lambda found: (found[1] or "").rsplit(".", 1)[-1],
        str(annotation),
    )
    if "apping" in text or "dict" in text:
        return "mapping"
    choices = re.search(r"Literal\[([^]]+)\]", text)
    if choices:
        shown = ", ".join(f"`{value}`" for value in re.findall(r"'([^']*)'", choices[1]))
        return f"list of {shown}" if text.startswith(("tuple", "list")) else shown
    return {"str": "text", "bool": "true or false", "float": "number", "Path": "folder or bucket"}.get(
        text, "list of texts" if text.startswith("tuple") else text
    )


def _shown(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Path):
        return os.path.relpath(value, PROJECT_ROOT) if value.is_absolute() else str(value)
    if isinstance(value, Mapping | tuple | list):
        return json.dumps(value) if value else ""
    return str(value)


def _cell(text: str) -> str:
    return _literal(" ".join(text.split())).replace("|", r"\|")


def _literal(text: str) -> str:
    """A text whose `<name>` is not a tag of HTML; code is left as it is."""
    parts = text.split("`")
    return "`".join(part if code % 2 else part.replace("<", "&lt;") for code, part in enumerate(parts))


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
