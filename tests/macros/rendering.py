"""Renders single macros as dbt would, without a project, an adapter or Spark."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dbt_common.clients.jinja import MacroReturn, get_environment

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "packages" / "delta_cdc"


class CompilationError(Exception):
    """What `exceptions.raise_compiler_error` raises here."""


WARNINGS: list[str] = []  # what `exceptions.warn` has said


class _Exceptions:
    @staticmethod
    def raise_compiler_error(message: str) -> None:
        raise CompilationError(message)

    @staticmethod
    def warn(message: str) -> None:
        WARNINGS.append(message)


class _Namespace:
    """The package's macros, as they stand in a context when they are called."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = context

    def __getitem__(self, name: str) -> Any:
        return self._context[name]


def _return(value: Any) -> None:
    raise MacroReturn(value)


def load(
    *folders: str, context: Mapping[str, Any] | None = None, edit: Callable[[str, str], str] | None = None
) -> dict[str, Callable[..., Any]]:
    """Every macro of these folders of packages/delta_cdc/macros, by name; among themselves they say `delta_cdc.<name>`.

    Args:
        context: What else the macros may call.
        edit: Takes a file's name and text, and gives the text to load instead.
    """
    context = {"return": _return, "exceptions": _Exceptions(), "modules": {"re": re}, "config": {}, **(context or {})}
    context["delta_cdc"] = _Namespace(context)
    for folder in folders:
        for path in sorted((PACKAGE / "macros" / folder).rglob("*.sql")):
            text = edit(path.name, path.read_text()) if edit else path.read_text()
            template = _compiled(text)
            for name in re.findall(r"{%-?\s*macro\s+(\w+)", text):
                context[name] = _caller(template, name, context)
    return context


@cache
def _compiled(text: str) -> Any:
    return get_environment(None).from_string(text)


def _caller(template: Any, name: str, context: dict[str, Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return getattr(template.make_module(context), f"dbt_macro__{name}")(*arguments, **named)
        except MacroReturn as returned:
            return returned.value

    return call


def squeeze(sql: str) -> str:
    """SQL with every run of blanks as one."""
    return " ".join(sql.split())
