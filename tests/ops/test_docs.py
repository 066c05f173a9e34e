"""Links of the pages outside of docs/, which `make docs-site` does not read: they lead to files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
    settings = {f"LAKEHOUSE_{name.upper()}" for name in re.findall(r"^    (\w+): ", read, re.M)}
    named = set(re.findall(r"^#? ?([A-Z][A-Z_]+)=", text, re.M))
    assert named > {"LAKEHOUSE_HOME", "SPARK_REMOTE"}
    assert [
        name for name in sorted(named) if name not in settings and name not in read and name != "DBT_PROFILES_DIR"
    ] == []
