"""What dbt's and Spark's messages mean for who wrote the model: where, what, and the next step.

mistakes.yml has the messages of dbt-core 1.11 and Spark 4.1; tests/fixtures/mistakes has one of each as they say it,
which tests/e2e/test_messages.py holds against the installed versions. The macros of packages/delta_cdc say expected,
got and fix themselves.
"""

from __future__ import annotations

import re
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import yaml

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.errors import listed

_LONGEST = 2000  # of a line; longer ones are SQL or lists of keys, and patterns would take seconds for them

# What the macros of packages/delta_cdc say, also through Spark's raise_error.
_OURS = re.compile(r"(?ms)(?:^\s*|\[\w+\] )([^\[\n]*?expected .*?Fix: .*?)(?= SQLSTATE|\n\s*> in macro|\Z)")


@cache
def _mistakes() -> list[dict[str, str]]:
    return list(yaml.safe_load((Path(__file__).parent / "mistakes.yml").read_text(encoding="utf-8")))


def explained(message: str, folder: Path = PROJECT_ROOT, names_only: bool = False) -> str | None:
    """What a message of dbt's means, in one line: file and line as far as they are known, what is wrong, the fix.

    Args:
        message: dbt's, with Spark's in it.
        folder: The project's, whose files are searched for the line.
        names_only: Leave out what our macros say, which may show keys of rows: for what is sent or kept.

    Returns:
        None where nothing is known of the message.
    """
    message = "\n".join(line[:_LONGEST] for line in message.split("\n"))
    of_node = re.search(r"(?:Error|Warning) in \w+ \w+ \((?P<path>[^)]+)\)\n(?P<told>.*)", message, re.DOTALL)
    path, told = (of_node["path"], of_node["told"]) if of_node else ("", message)
    if (own := _OURS.search(told)) and names_only:
        return None
    if own:
        return _at(path, None) + " ".join(own[1].split())
    for mistake in _mistakes():
        if found := re.search(mistake["sign"], told, re.DOTALL):
            words = {name: value or "" for name, value in found.groupdict().items()}
            path = _file(folder, words.get("path") or path)
            words = {name: _plain(name, value) for name, value in words.items()}
            words |= {"models": "", "sources": "", **_suggested(words.get("name", ""), folder)}
            line = int(words.get("line") or 0) or _line(folder / path, words.get("name", ""), told)
            says, fix = mistake["says"].format(**words), mistake["fix"].format(**words)
            return f"{_at(path, line)}{says}{'' if says.endswith('?') else '.'} Fix: {fix}."
    return None


def _plain(name: str, value: str) -> str:
    """A part of a message as the reader's text has it: names without quotes, a contract's table as a sentence."""
    if name == "rows":
        return _differing(value)
    if name == "near":
        return f"; did you mean {value.split(',')[0].replace('`', '')}?" if value else ""
    return " ".join(value.replace("`", "").split()) if name != "what" else value.strip()


def _differing(table: str) -> str:
    """Rows of the table in which dbt shows a contract's mismatches: column, definition, contract, reason."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.strip().splitlines()]
    rows = [row for row in rows[2:] if len(row) == 4]
    told = []
    for column, query, contract, _ in rows:
        if query and contract:
            told.append(f"{column} is {query.lower()} in the query, {contract.lower()} in the contract")
        else:
            told.append(f"{column} is only in the {'query' if query else 'contract'}")
    return listed(told)


def _suggested(name: str, folder: Path) -> dict[str, str]:
    """The nearest names of models and sources, as a clause."""
    models = [path for place in ("models", "dbt_project/models", "seeds") for path in (folder / place).rglob("*.[sc]*")]
    places = {"models": models, "sources": (folder / "python_ops/lake/contracts").glob("*.yml")}
    near = {kind: get_close_matches(name, sorted({path.stem for path in paths}), 1) for kind, paths in places.items()}
    return {kind: f"; did you mean {found[0]}?" for kind, found in near.items() if found}


def _file(folder: Path, path: str) -> str:
    """The file's path in the project; dbt says a YAML's without its model path."""
    if path and not (folder / path).exists():
        found = next(folder.glob(f"*/models/**/{path}"), None) or next(folder.glob(f"models/**/{path}"), None)
        return found.relative_to(folder).as_posix() if found else path
    return path


def _line(file: Path, name: str, told: str) -> int | None:
    """The line of a file that has the name, or what Spark shows above its `^^^`; None where that cannot be told."""
    lines: list[str] = []
    with suppress(OSError, ValueError):
        lines = file.read_text(encoding="utf-8").splitlines()
    shown = re.search(r"\n([^\n]*\S[^\n]*)\n[\s-]*\^\^\^", told)
    for number, line in enumerate(lines, start=1):
        if not name and shown and line.strip() and line.strip() == shown[1].strip():
            return number
        if name and re.search(rf"(?<!\w){re.escape(name.split('.')[-1])}(?!\w)", line.split("--")[0]):
            return number
    return None


def _at(path: str, line: int | None) -> str:
    return (f"{path}, line {line}: " if line else f"{path}: ") if path else ""
