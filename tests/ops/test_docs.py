"""The pages: the commands that they name can be typed, and their links lead to files that are there.

`make docs-site` checks the links of docs/.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import documented
import pytest
import reference
import typer
import yaml
from dbt.cli.main import cli as dbt

from python_ops.cli.app import app
from python_ops.lake.config import PROJECT_ROOT

PAGES = sorted(
    [*PROJECT_ROOT.glob("*.md"), *PROJECT_ROOT.glob("packages/*/*.md"), *PROJECT_ROOT.glob(".github/**/*.md")]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_env_example_names_variables_that_are_read() -> None:
    """Each is a setting, or is read by the profile, dbt or a script."""
    text = (PROJECT_ROOT / ".env.example").read_text(encoding="utf-8")
    places = ("python_ops/lake/config/__init__.py", "python_ops/cli/__init__.py", "python_ops/lake/spark.py")
    read = "".join((PROJECT_ROOT / place).read_text(encoding="utf-8") for place in (*places, "profiles/profiles.yml"))
    assert [name for name in reference.VARIABLES if name not in everything_read() and not name.startswith("DBT_")] == []
    settings = {f"LAKEHOUSE_{name.upper()}" for name in re.findall(r"^    (\w+): ", read, re.M)}
    named = set(re.findall(r"^#? ?([A-Z][A-Z_]+)=", text, re.M))
    assert named > {"LAKEHOUSE_HOME", "SPARK_REMOTE"}
    assert [
        name for name in sorted(named) if name not in settings and name not in read and name != "DBT_PROFILES_DIR"
    ] == []


def everything_read() -> str:
    """The text of what reads variables."""
    folders = ("python_ops/**/*.py", "profiles/*.yml", "infra/**/*.py", "infra/*.sh")
    return "".join(path.read_text(encoding="utf-8") for folder in folders for path in PROJECT_ROOT.glob(folder))


def test_the_reference_is_what_the_code_gives() -> None:
    stale = [path.name for path, text in reference.pages().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "`make reference` writes them anew"


def test_the_consumption_guide_names_the_owner_of_every_group() -> None:
    guide = (PROJECT_ROOT / "docs" / "guides" / "consumption.md").read_text(encoding="utf-8")
    groups = yaml.safe_load((PROJECT_ROOT / "dbt_project/models/gold/_groups_and_exposures.yml").read_text())["groups"]
    owners = [f"{group['owner']['name']}, {group['owner']['email']}" for group in groups]
    assert owners and [owner for owner in owners if owner not in guide] == []


COMMANDS = documented.commands()
CLICK = {"lakeops": typer.main.get_command(app), "dbt": dbt}
LACKS = {"MissingParameter", "NoArgsIsHelpError", "BadOptionUsage"}  # what a name in running text leaves out
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def refused(tool: Any, words: list[str], whole: bool) -> str | None:
    """Why a command line cannot be typed; None if it can. Nothing is run. typer has click's classes as its own copy."""
    while (inner := getattr(tool, "commands", None)) and words and not words[0].startswith("-"):
        if words[0] not in inner:
            return f"no such command: {words[0]}"
        tool, words = inner[words[0]], words[1:]
    if not words and not whole:
        return None  # a name: its arguments are told elsewhere
    if inner and not whole and any(words[0] in option.opts for each in inner.values() for option in each.params):
        return None  # `dbt --vars`: an option of its commands
    try:
        tool.make_context(tool.name, words)
    except Exception as exc:
        kind = type(exc).__name__
        if kind == "Exit" or (kind in LACKS and not whole):  # `--version`; a name
            return None
        return f"{kind}: {getattr(exc, 'message', exc)}"
    return None


@pytest.mark.parametrize("page", sorted({named.page for named in COMMANDS}))
def test_every_command_that_a_page_names_is_parsed(page: str) -> None:
    """By the real command lines: a command, an option or a target that was renamed fails here."""
    wrong = []
    for named in (each for each in COMMANDS if each.page == page):
        tool, *words = named.words
        if tool == "make":
            unknown = [word for word in words if "=" not in word and word not in TARGETS]
            wrong += [(named.words, f"no such targets: {unknown}")] if unknown else []
        elif reason := refused(CLICK[tool], words, named.whole):
            wrong.append((named.words, reason))
    assert wrong == []


def test_a_stale_command_is_refused() -> None:
    """What the test above would say of a page that was not kept up."""
    assert len(COMMANDS) > 300 and sum(named.whole for named in COMMANDS) > 80
    lakeops, build = CLICK["lakeops"], CLICK["dbt"]
    assert refused(lakeops, ["maintain", "plans"], False) == "no such command: plans"
    assert "No such option" in str(refused(lakeops, ["sql", "select 1", "--as", "csv"], True))
    assert "is not" in str(refused(lakeops, ["sql", "select 1", "--format", "xml"], True))
    assert "Missing" in str(refused(lakeops, ["table", "restore"], True))
    assert refused(lakeops, ["table", "restore"], False) is None
    assert "NoArgs" in str(refused(lakeops, ["table"], True))
    assert "No such option" in str(refused(build, ["build", "--selekt", "x"], True))
    assert refused(lakeops, ["table", "restore", "gold.x", "--version", "6"], True) is None
