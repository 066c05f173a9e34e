"""The commands that the pages name: those of fenced blocks and those in running text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from python_ops.lake.config import PROJECT_ROOT

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "packages/*/*.md", "infra/**/*.md", ".github/**/*.md")
    for path in PROJECT_ROOT.glob(pattern)
    if path.name not in ("CHANGELOG.md", "decisions.md")  # they tell of commands that were
)
_FENCE = re.compile(r"^ *```(\w*).*\n((?:.*\n)*?) *```$", re.MULTILINE)
_SUBSTITUTED = re.compile(r"\$\((.*?)\)")
_TOOLS = ("lakeops", "dbt", "make")


@dataclass(frozen=True)
class Named:
    """A command that a page names.

    Attributes:
        page: Relative to the project.
        words: Program without its folder, and arguments.
        whole: Of a fenced block, to be typed as it stands; text may name a command without its arguments.
    """

    page: str
    words: tuple[str, ...]
    whole: bool


def commands() -> list[Named]:
    """Every command of lakeops, dbt and make, by page."""
    found = dict.fromkeys(
        Named(str(path.relative_to(PROJECT_ROOT)), words, whole)
        for path in PAGES
        for line, whole in _lines(path.read_text(encoding="utf-8"))
        for words in _split(line)
    )
    return list(found)


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    for language, block in _FENCE.findall(text):
        if language in ("", "sh", "shell"):
            yield from ((line.strip(), True) for line in block.replace("\\\n", " ").splitlines())
    for code in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)):
        filled = code.replace("<n>", "1").replace(" [SOURCE…]", "").replace(" …", "").replace(" <command>", "")
        yield re.sub(r"<(\w+)>", r"\1", filled), False


def _split(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line, without redirections, assignments, comments and what a shell puts in their place."""
    if not any(tool in line for tool in _TOOLS):
        return
    for inner in _SUBSTITUTED.findall(line):
        yield from _split(inner)
    reader = shlex.shlex(_SUBSTITUTED.sub("{}", line), posix=True, punctuation_chars="|;&<>")
    reader.whitespace_split = True
    try:
        words = list(reader)
    except ValueError:  # a line of output, or of a text over several lines
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set("|;&"):
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                command.pop(0)
            if command and (tool := command[0].rsplit("/", 1)[-1]) in _TOOLS:
                yield (tool, *_without_redirections(command[1:]))
            command = []
        else:
            command.append(word)


def _without_redirections(words: list[str]) -> Iterator[str]:
    skip = False
    for word in words:
        if not skip and not set(word) <= set("<>"):
            yield word
        skip = set(word) <= set("<>")
