"""The text of packages/delta_cdc: what dbt would only say in another project, or never."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from dbt_common.clients.jinja import get_environment
from jinja2 import nodes
from rendering import PACKAGE, ROOT

FILES = sorted((PACKAGE / "macros").rglob("*.sql"))


def macros(path: Path) -> list[nodes.Macro]:
    return list(get_environment(None).parse(path.read_text(encoding="utf-8")).find_all(nodes.Macro))


def name(macro: nodes.Macro) -> str:
    return macro.name.removeprefix("dbt_macro__")


NAMES = {name(macro) for path in FILES for macro in macros(path)}


def calls_without_prefix(path: Path) -> list[str]:
    """Names of the package's macros that are not asked of `delta_cdc`: only this project would find them."""
    return [
        f"{path.name}, {name(macro)}: {found.name}"
        for macro in macros(path)
        for found in macro.find_all(nodes.Name)
        if found.name in NAMES and found.ctx == "load"
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_macros_call_each_other_by_the_packages_name(path: Path) -> None:
    assert calls_without_prefix(path) == []


def test_a_call_without_prefix_is_found(tmp_path: Path) -> None:
    text = (PACKAGE / "macros/cdc/7_views/cdc_changes.sql").read_text(encoding="utf-8")
    assert "delta_cdc._cdc_node(relation)" in text
    (tmp_path / "cdc_changes.sql").write_text(text.replace("delta_cdc._cdc_node(", "_cdc_node("), encoding="utf-8")
    assert calls_without_prefix(tmp_path / "cdc_changes.sql") == ["cdc_changes.sql, cdc_changes: _cdc_node"]


def test_this_projects_sql_asks_the_package_too() -> None:
    """A plain name is the project's own macro, and the shim's are the only ones of these."""
    shim = {"materialization_incremental_spark", "materialization_clone_spark", "is_incremental"}
    found = {
        f"{path.name}: {called.name}"
        for folder in ("dbt_project", "tests/contracts", "macros")
        for path in (ROOT / folder).rglob("*.sql")
        for called in get_environment(None).parse(path.read_text(encoding="utf-8")).find_all(nodes.Name)
        if called.name in NAMES - shim
    }
    assert found == set()


DESCRIBED = {
    described["name"]: described
    for path in (PACKAGE / "macros").rglob("_macros.yml")
    for described in yaml.safe_load(path.read_text(encoding="utf-8"))["macros"]
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_macros_are_short_and_described(path: Path) -> None:
    """At most 60 lines. Public ones in _macros.yml, with their arguments; helpers there, or in a comment above."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"(#}\n)?{% (macro|materialization) (\w+)(.*?){%- end\2 ", text, re.DOTALL)
    assert len(found) == len(macros(path))
    assert [called for _, _, called, body in found if body.count("\n") >= 60] == []
    assert [
        called for comment, _, called, _ in found if called.startswith("_") and not (comment or called in DESCRIBED)
    ] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_public_macros_are_described_with_their_arguments(path: Path) -> None:
    """The signatures of what dbt calls (`spark__…`, materializations) are dbt's."""
    for macro in (macro for macro in macros(path) if not name(macro).startswith("_")):
        described = DESCRIBED[name(macro)]
        assert described["description"].strip(), name(macro)
        if not name(macro).startswith(("spark__", "materialization_")):
            listed = [argument["name"] for argument in described.get("arguments", [])]
            assert listed == [argument.name for argument in macro.args], name(macro)
