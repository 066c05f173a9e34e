"""The SQL of a declared metric, rendered without Spark."""

from __future__ import annotations

from typing import Any

import pytest
from rendering import ROOT, CompilationError, load


def simple(name: str, measure: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "simple", "filter": None, "type_params": {"measure": {"name": measure}}, **more}


RATIO = {"numerator": {"name": "revenue"}, "denominator": {"name": "buyers"}}
METRICS = [
    simple("revenue", "amount"),
    simple("buyers", "customers"),
    simple("large", "amount", filter={"where_filters": []}),
    {"name": "each", "type": "ratio", "filter": None, "type_params": RATIO},
    {"name": "so_far", "type": "cumulative", "filter": None, "type_params": {}},
]
SALES = {
    "node_relation": {"relation_name": "gold.t"},
    "measures": [
        {"name": "amount", "agg": "sum", "expr": None},
        {"name": "customers", "agg": "count_distinct", "expr": "case when is_paid then id end"},
    ],
}
GRAPH = {"metrics": {each["name"]: each for each in METRICS}, "semantic_models": {"sales": SALES}}
MACROS = load(str(ROOT / "macros"), context={"execute": True, "graph": GRAPH})


def test_a_metric_is_a_subquery_by_its_measure() -> None:
    revenue, buyers = (
        "(select sum(amount) from gold.t)",
        "(select count(distinct case when is_paid then id end) from gold.t)",
    )
    assert (MACROS["metric"]("revenue"), MACROS["metric"]("buyers")) == (revenue, buyers)
    assert MACROS["metric"]("each") == f"({revenue} / nullif({buyers}, 0))"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("revnue", "there is no metric revnue. Known: buyers, each, large"),
        ("large", "filtered"),
        ("so_far", "cumulative"),
    ],
)
def test_what_it_cannot_compute_is_told(name: str, told: str) -> None:
    with pytest.raises(CompilationError, match=told):
        MACROS["metric"](name)
