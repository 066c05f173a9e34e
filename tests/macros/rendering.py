"""Renders single macros as dbt would, without a project, an adapter or Spark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbt_common.clients.jinja import MacroReturn, get_environment

ROOT = Path(__file__).resolve().parents[2]


class CompilationError(Exception):
    """What `exceptions.raise_compiler_error` raises here."""


class _Exceptions:
    @staticmethod
    def raise_compiler_error(message: str) -> None:
        raise CompilationError(message)


def _return(value: Any) -> None:
    raise MacroReturn(value)


def load(*folders: str) -> dict[str, Callable[..., Any]]:
    """Every macro of the folders below macros/, by name."""
    context: dict[str, Any] = {"return": _return, "exceptions": _Exceptions(), "modules": {"re": re}, "config": {}}
    for folder in folders:
        for path in sorted((ROOT / "macros" / folder).glob("*.sql")):
            template = get_environment(None).from_string(path.read_text())
            for name in re.findall(r"{%-?\s*macro\s+(\w+)", path.read_text()):
                context[name] = _caller(template, name, context)
    return context


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
