"""docs/guides/consumption.md as its readers use it: its three questions, and the commands that ask them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import fakesnow
import psycopg
from postgres_server import postgres_server
from redshift_front import SHIMS, redshift_front
from servers import Server, secret_of

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.secrets import Secrets
from python_ops.lake.secrets.providers import EnvironmentProvider

GUIDE = (PROJECT_ROOT / "docs" / "guides" / "consumption.md").read_text(encoding="utf-8")
Rows = list[list[Any]]


def questions() -> dict[str, tuple[str, Rows]]:
    """The SQL and the answer of each question, by its heading."""
    found = {}
    for title, text in _sections("## Three questions").items():
        (sql,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
        table = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
        found[title] = (sql, plain(table[2:]))
    return found


def places() -> dict[str, str]:
    """What the guide says of each place to ask, by its heading."""
    return _sections("## Where to ask")


def shell(text: str) -> list[str]:
    """The lines of the fenced shell blocks of a text."""
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def snippet(text: str) -> str:
    """The one block of Python of a text."""
    (found,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(found)


def plain(rows: Sequence[Sequence[Any]]) -> Rows:
    """Rows as they can be compared: numbers by value, whatever type an engine gave them, all else as text."""
    return [[_plain(str(value).strip()) for value in row] for row in rows]


def run(line: str, folder: Path, given: Mapping[str, str]) -> str:
    """Runs a line as a reader types it; lakeops is that of the tests."""
    typed = line.replace(".venv/bin/lakeops", f"{sys.executable} -m python_ops")
    told = {"env": {**os.environ, **given}, "cwd": folder, "capture_output": True, "text": True}
    done = subprocess.run(["/bin/sh", "-c", typed], **told)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return str(done.stdout)


@contextmanager
def warehouses() -> Iterator[tuple[Secrets, dict[str, str]]]:
    """PostgreSQL, Redshift's driver on it, and fakesnow: secrets to publish by, and the variables of the guide."""
    with postgres_server() as dsn:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("create database dev")
        with psycopg.connect(dsn, dbname="dev") as database:
            database.execute(SHIMS)
        own = secret_of(dsn, sslmode="disable")
        with redshift_front(own["port"]) as port, fakesnow.patch():
            redshift = {**secret_of(dsn, ssl=False), "port": port, "dbname": "dev"}
            snowflake = dict.fromkeys(("account", "user", "password", "database", "warehouse", "role"), "lake")
            servers = [Server("postgres", own), Server("redshift", redshift), Server("snowflake", snowflake)]
            told = {f"LAKEHOUSE_SECRET_{server.name.upper()}": json.dumps(server.secret) for server in servers}
            told["LAKEHOUSE_SECRET_PUBLISH_PII_KEY"] = "k" * 32
            yield Secrets([EnvironmentProvider(told)]), {
                "PGHOST": own["host"], "PGPORT": str(own["port"]), "PGDATABASE": own["dbname"], "PGUSER": own["user"],
                "PGPASSWORD": own["password"], "REDSHIFT_SSL": "off", "REDSHIFT_DATABASE": "dev",
                **{f"REDSHIFT_{name.upper()}": str(redshift[name]) for name in ("host", "port", "user", "password")},
                **{f"SNOWFLAKE_{name.upper()}": value for name, value in snowflake.items() if name != "role"},
            }  # fmt: skip


def _sections(heading: str) -> dict[str, str]:
    """Texts below a heading, by the heading of each."""
    text = GUIDE.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    return dict(part.split("\n", 1) for part in text.split("\n### ")[1:])


def _plain(text: str) -> Any:
    try:
        return Decimal(text)
    except InvalidOperation:
        return text
