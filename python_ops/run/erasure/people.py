"""The people that an erasure is about, and how one of them is found in a record as it was delivered."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from python_ops.jobs.ingest.reading import field_pattern
from python_ops.lake.contracts import Column, Contract, Contracts
from python_ops.lake.erasure import Hashing, Subject
from python_ops.lake.errors import ConfigError

GONE = ""
"""What is left of a record that is removed: its line stays, empty, so that the lines after it keep their numbers."""


def kinds(contracts: Contracts) -> dict[str, list[tuple[Contract, Column]]]:
    """The columns that identify people, by kind of subject."""
    found: dict[str, list[tuple[Contract, Column]]] = {}
    for contract in map(contracts.load, contracts.sources):
        for column in contract.columns:
            if column.subject:
                found.setdefault(column.subject, []).append((contract, column))
    return found


def parsed(contracts: Contracts, given: Sequence[str], file: Path | None = None) -> list[Subject]:
    """Subjects from `kind=value`, each once; `file` has one a line. A message names a place, never a value.

    Raises:
        ConfigError: one is not of this form, nobody is named, or no contract has the kind.
    """
    known = kinds(contracts)
    texts = [(f"--subject {number}", text) for number, text in enumerate(given, 1)]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{file} cannot be read as a text in UTF-8 ({type(exc).__name__}).") from exc
        texts += [(f"{file}, line {n}", line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
    found = []
    for place, text in texts:
        kind, separator, value = text.partition("=")
        if not separator or not value:
            raise ConfigError(f"{place}: expected a kind and a value, as contact_id=…; got another text.")
        if kind not in known:
            raise ConfigError(
                f"{place}: no contract has a column with `subject: {kind}`. "
                f"Kinds: {', '.join(sorted(known)) or 'none'}."
            )
        found.append(Subject(kind, value))
    if not found:
        raise ConfigError("Nobody is named. Give --subject contact_id=… or --subjects FILE.")
    return list(dict.fromkeys(found))


@dataclass
class Seeker:
    """Finds people in the records of one source, and says what becomes of each record.

    Attributes:
        erased: Hashes by kind of whoever was erased before: they are found too, without being named.
        found: Records by subject.
    """

    contract: Contract
    people: Sequence[Subject]
    hashing: Hashing
    erased: Mapping[str, frozenset[str]] = field(default_factory=dict)
    found: Counter[Subject] = field(default_factory=Counter)

    @cached_property
    def columns(self) -> list[Column]:
        """Columns that identify people of these kinds."""
        asked = {person.kind for person in self.people} | self.erased.keys()
        return [column for column in self.contract.columns if column.subject in asked]

    @cached_property
    def _members(self) -> dict[str, list[Column]]:
        named: dict[str, list[Column]] = {}
        for column in self.columns:
            for name in {column.name.lower(), column.given_name.lower()}:
                named.setdefault(name, []).append(column)
        return named

    @cached_property
    def _known(self) -> Mapping[tuple[str | None, str], Subject]:
        return {(person.kind, person.value): person for person in self.people}

    @cached_property
    def _words(self) -> re.Pattern[str]:
        values = "|".join(re.escape(person.value) for person in self.people)
        return re.compile(rf"(?<![\w-])(?:{values})(?![\w-])")

    def hits(self, name: str, value: Any) -> list[tuple[Column, Subject]]:
        """Who a member of an object, or a field, is about."""
        if isinstance(value, dict | list | tuple | None):
            return []
        columns = self._members.get(name.lower(), ())
        return [(column, found) for column in columns if (found := self._who(str(column.subject), str(value)))]

    def _who(self, kind: str, value: str) -> Subject | None:
        named = self._known.get((kind, value))
        if named is None and (digests := self.erased.get(kind)):
            other = Subject(kind, value)
            return other if self.hashing.digest(other) in digests else None
        return named

    def json_line(self, text: str) -> str:
        """A line of JSON as it is to be: unchanged, with its column keyed anew, or gone.

        An object is about a person where it has the column as a member, and is where ingestion takes a row from: the
        record, its key, an image of the row, what they are wrapped in. Another nested object is somebody else's word.
        What is no JSON is in the dead-letter queue; it is removed where a value stands in it as a word.
        """
        try:
            pairs = _parsed(text.lstrip("\ufeff"))
        except (ValueError, RecursionError):
            return self._garbled(text)
        hits = [hit for name, value in _row_members(pairs) for hit in self.hits(name, value)]
        if not hits:
            return text
        self.found.update({subject for _, subject in hits})
        if any(column.on_erasure == "remove" for column, _ in hits):
            return GONE
        for column, subject in hits:
            text = self._keyed_anew(text, column, subject)
        return text

    def csv_record(self, text: str, layout: Sequence[str], delimiter: str) -> str:
        """The same of a record of a csv file, which may have several lines."""
        fields = csv_fields(text, delimiter)
        if fields is None or len(fields) != len(layout):
            return self._garbled(text)
        hits = [(n, *hit) for n, name in enumerate(layout) for hit in self.hits(name, fields[n])]
        if not hits:
            return text
        self.found.update({subject for _, _, subject in hits})
        if any(column.on_erasure == "remove" for _, column, _ in hits):
            return GONE
        spans = [found.span(1) for found in re.finditer(f"(?:^|[{delimiter[0]}])({field_pattern(delimiter)})", text)]
        if len(spans) != len(layout):  # a quote inside of a field; the caller notices if the value stays
            return text
        for number, _, subject in sorted(hits, key=lambda hit: -hit[0]):
            start, end = spans[number]
            field = text[start:end]
            text = text[:start] + field.replace(field.strip(" \r"), self.hashing.pseudonym(subject), 1) + text[end:]
        return text

    def _garbled(self, text: str) -> str:
        said = set(self._words.findall(text)) if self.people else set()
        self.found.update(person for person in self.people if person.value in said)
        return GONE if said else text

    def _keyed_anew(self, text: str, column: Column, subject: Subject) -> str:
        names = "|".join(re.escape(name) for name in {column.name, column.given_name})
        member = re.compile(rf'("(?:{names})"\s*:\s*)("(?:[^"\\]|\\.)*"|-?[0-9]+)', re.IGNORECASE)
        anew = json.dumps(self.hashing.pseudonym(subject))
        return member.sub(lambda m: m[1] + (anew if str(json.loads(m[2])) == subject.value else m[2]), text)


def csv_fields(text: str, delimiter: str) -> list[str] | None:
    """Fields of one csv record, which may have several lines; None where it is none, or more than one."""
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n|$)", text)[:-1] or [text]
    try:
        records = list(csv.reader(lines, delimiter=delimiter[0], skipinitialspace=bool(delimiter[1:])))
    except csv.Error:
        return None
    if len(records) != 1:
        return None
    return [field.strip(" ") for field in records[0]] if delimiter[1:] else records[0]


# Where ingestion takes a row from, beside the record itself: Debezium's key and images, and what they are wrapped in.
_AROUND_ROWS = {"key", "value", "data", "payload", "before", "after"}


def _parsed(text: str) -> Any:
    """A JSON value; an object is a tuple of its members, so one that stands twice is seen twice."""
    return json.loads(text, object_pairs_hook=tuple, parse_float=str)


def _row_members(value: Any) -> Iterator[tuple[str, Any]]:
    """The members of a record and of the rows in it."""
    for name, inner in value if isinstance(value, tuple) else ():
        yield name, inner
        if name in _AROUND_ROWS:
            if isinstance(inner, str) and inner.startswith("{"):  # a document of MongoDB
                with suppress(ValueError, RecursionError):
                    inner = _parsed(inner)
            yield from _row_members(inner)
