"""A laboratory per module, and scenarios that share their dbt runs in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from cdc_lab import SMALL, Lab, play

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def lab(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A laboratory of the module."""
    profiles = getattr(request.module, "PROFILES", SMALL)
    made = Lab(spark, tmp_path_factory.mktemp("lab"), request.module.__name__.removeprefix("test_"), profiles)
    yield made
    spark.sql(f"drop schema {made.schema} cascade")


@pytest.fixture(scope="module")
def ended(lab: Lab, request: pytest.FixtureRequest) -> dict[str, Exception | None]:
    """What ended each of the module's SCENARIOS that pytest has selected, by its name: None, or the exception."""
    items = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    selected = {call.params["name"] for call in items if call and "name" in call.params}
    return play(lab, {name: steps for name, steps in request.module.SCENARIOS.items() if name in selected})
