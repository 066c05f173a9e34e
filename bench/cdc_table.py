"""Writes the table of docs/cdc.md from bench/results/cdc.json, and says what a missed goal is made of.

python bench/cdc_table.py
"""

from __future__ import annotations

import json
from typing import Any

from figures import RESULTS

from python_ops.lake.config import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "cdc.md"
BEGIN, END = "<!-- bench/cdc_table.py writes from here -->", "<!-- to here -->"
KEYS = {"local": "the newest", "uniform": "scattered", "outlier": "the newest and one far away", "": ""}


def table(cases: list[dict[str, Any]]) -> str:
    """The cases as a table, the machine that each was measured on, and the statements of the missed ones."""
    lines = [
        "| case | keys | engine | against | ratio | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        other = f"{case['other_is']}: {case['other']} s{_jobs(case.get('other_jobs'))}" if case["other_is"] else ""
        met = {True: "met", False: "missed", None: ""}[case["met"]]
        engine = f"{case['engine']} s{_jobs(case['engine_jobs'])}, {case['engine_statements']} statements"
        told = (_title(case), KEYS[case["locality"]], engine, other, case["ratio"] or "", case["goal"] or "", met)
        lines.append(f"| {' | '.join(str(part) for part in told)} |")
    machines = {_machine(case["machine"]) for case in cases}
    return "\n".join([*lines, "", *sorted(machines), "", *_missed(cases)]).rstrip() + "\n"


def _title(case: dict[str, Any]) -> str:
    changed = "" if case["kind"] in ("first load", "full refresh", "nothing new") else f", {case['changed']:_} changed"
    return f"{case['kind']}: {case['strategy']}, {case['rows']:_} rows{changed}".replace("_", " ")


def _jobs(count: int | None) -> str:
    return "" if count is None else f", {count} jobs"


def _machine(given: dict[str, Any]) -> str:
    versions = "".join(f", {name} {version}" for name, version in given["versions"].items())
    return f"Measured on {given['at'][:10]}: {given['cores']} cores ({given['processor']}){versions}."


def _missed(cases: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"- {_title(case)}{', ' + KEYS[case['locality']] if case['locality'] else ''}: {_spent(case['statements'])}."
        for case in cases
        if case["met"] is False and case["statements"]
    ]
    return ["Where the seconds of the missed ones go:", "", *lines] if lines else []


def _spent(statements: list[dict[str, Any]]) -> str:
    most = sorted(statements, key=lambda one: -one["seconds"])[:3]
    return ", ".join(f"`{' '.join(one['sql'].split()[:3])}` {one['seconds']} s" for one in most)


def main() -> None:
    """Writes it."""
    cases = json.loads((RESULTS / "cdc.json").read_text(encoding="utf-8"))["cases"]
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(cases)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
