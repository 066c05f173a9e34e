"""The engine on Spark and Delta against the independent fold. tests/engine does the same on DuckDB, with more keys."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cdc_fold import Event
from cdc_histories import deliveries, histories, later_updates
from cdc_lab import PRODUCTION, SMALL, Lab
from cdc_sets import MODELS, add_models, bronze_row, differences, expected, result, stored_twice

pytestmark = pytest.mark.spark

FIRST_BATCH = {"clean": 1, "tied": 101}  # a mark that strays from one model to another is noticed
SEED = int(os.environ.get("LAKEHOUSE_TEST_SEED", "20250303"))


class Applied:
    """All models after random deliveries and, last, one in order; one dbt run per batch."""

    def __init__(self, spark: Any, folder: Path, keys: int, batches: int, profiles: Path = SMALL) -> None:
        self.lab = Lab(spark, folder, f"properties_{keys}", profiles)
        self.batches = batches
        self.in_order: list[set[str]] = []
        add_models(self.lab, *MODELS)
        self.events: dict[str, list[Event]] = {
            "clean": histories(SEED, keys), "tied": histories(SEED + 1, keys, ties=True),
        }  # fmt: skip
        parcels = {name: deliveries(SEED, found, batches - 1) for name, found in self.events.items()}
        for name, found in self.events.items():
            parcels[name].append(later_updates(SEED, found))
            found += parcels[name][-1]
        for batch in range(batches):
            for source, first in FIRST_BATCH.items():
                self.lab.deliver(source, [bronze_row(event, first + batch) for event in parcels[source][batch]])
            self.lab.build()
            self.in_order.append({name for name in MODELS if ", in order" in self.lab.messages[name]})

    def wrong(self) -> dict[str, list[str]]:
        """What differs from the fold, and what is stored twice, per model."""
        found = {
            name: differences(result(self.lab, name), expected(self.events[MODELS[name][0]], name))
            + [f"{key} is stored twice" for key in stored_twice(self.lab, name)[:3]]
            for name in MODELS
        }
        return {name: texts for name, texts in found.items() if texts}


@pytest.fixture(scope="module")
def many(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Applied:
    return Applied(spark, tmp_path_factory.mktemp("lab"), keys=2000, batches=4, profiles=PRODUCTION)


def test_one_pass_of_every_option_set_equals_the_fold(spark: Any, tmp_path: Path) -> None:
    """On four of dbt's threads, as profiles.yml says; every commit carries its own model's mark."""
    applied = Applied(spark, tmp_path, keys=200, batches=3)
    assert applied.wrong() == {}
    assert applied.in_order == [set(), set(), set(MODELS)], "the last batch goes the short way"
    for name in MODELS:
        (last,) = spark.sql(f"describe history {applied.lab.schema}.{name}__cdc limit 1").collect()
        mark = json.loads(last["userMetadata"])["lakehouse.cdc"]["mark"]
        assert mark == f"={FIRST_BATCH[MODELS[name][0]] + 2}", name


@pytest.mark.campaign
def test_random_deliveries_equal_the_fold(many: Applied) -> None:
    assert many.wrong() == {}


@pytest.mark.campaign
def test_a_replay_of_everything_changes_nothing(many: Applied) -> None:
    lab = many.lab
    before = {name: result(lab, name) for name in MODELS}
    commits = {name: len(lab.data_commits(f"{name}__cdc")) for name in MODELS}
    for source, found in many.events.items():
        again = FIRST_BATCH[source] + many.batches
        lab.deliver(source, [bronze_row(event, again) for event in reversed(found)])
    lab.build()
    versions = {name: lab.version(f"{name}__cdc") for name in MODELS}
    assert {name: result(lab, name) for name in MODELS} == before
    assert {name: len(lab.data_commits(f"{name}__cdc")) for name in MODELS} == commits
    lab.build()
    assert {name: lab.version(f"{name}__cdc") for name in MODELS} == versions
    assert all(message.startswith("nothing new") for message in lab.messages.values()), lab.messages


@pytest.mark.campaign
def test_a_full_refresh_gives_the_same(many: Applied) -> None:
    many.lab.build(full_refresh=True)
    assert many.wrong() == {}
