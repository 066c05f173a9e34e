"""The object that a command opens its environment with."""

from __future__ import annotations

from pathlib import Path

import pytest

from python_ops.lake.config import PROJECT_ROOT, Settings
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.secrets import Secrets
from python_ops.lake.state import DynamoStore, FileStore


def test_everything_lies_under_the_home_and_prefixes_do_not_share_it(tmp_path: Path) -> None:
    lake = Lake(Settings(home=tmp_path, schema_prefix="ann"))
    assert (lake.home, lake.landing) == (tmp_path, tmp_path / "landing")
    assert (lake.state, lake.artifacts) == (tmp_path / "state" / "ann", tmp_path / "target" / "ann")
    assert lake.table_path("gold", "fct_orders") == tmp_path / "warehouse" / "ann_gold.db" / "fct_orders"
    assert lake.ledger("fx_rates").folder == lake.state / "ingest" / "fx_rates"


def test_parts_are_made_once_and_only_when_asked_for(tmp_path: Path) -> None:
    """Given Spark that counts its starts, Then nothing is started or written before it is asked for, and then once."""
    started: list[str] = []
    lake = Lake(Settings(home=tmp_path / "lake"), start=lambda: started.append("spark"))
    assert isinstance(lake.store, FileStore) and lake.store is lake.store and lake.secrets is lake.secrets
    assert started == [] and not lake.home.exists()
    assert (lake.spark, lake.spark, started) == (None, None, ["spark"])
    assert isinstance(lake.with_settings(state_store="dynamodb").store, DynamoStore)


def test_a_log_that_cannot_be_read_says_why_whichever_part_is_asked_first(tmp_path: Path) -> None:
    (tmp_path / "t" / "_delta_log").mkdir(parents=True)
    (tmp_path / "t" / "_delta_log" / f"{0:020}.json").write_text("garbled\n")
    lake = Lake(Settings(home=tmp_path))
    for ask in (lambda log: log.table, lambda log: log.live_rows, lambda log: log.files):
        with pytest.raises(OpsError, match=r"The Delta log of .*t cannot be read \("):
            ask(lake.log(tmp_path / "t"))


def test_parts_that_are_given_take_the_place_of_the_environments(tmp_path: Path) -> None:
    """Given a home in a bucket, and folders of this machine, Then those count, and a workspace holds the rest."""
    secrets = Secrets([])
    lake = Lake(Settings(home=Path("s3://bucket/lake")), state=tmp_path / "state", secrets=secrets)
    changed = lake.with_settings(schema_prefix="ann")
    assert lake.with_settings(home=tmp_path).home == tmp_path, "nothing of the other home is kept"
    assert changed.state == lake.state == tmp_path / "state" and changed.secrets is lake.secrets is secrets
    assert str(lake.table_path("gold", "t")) == "s3://bucket/lake/warehouse/gold.db/t"
    assert lake.workspace == PROJECT_ROOT / "target" / "homes" / "bucket" / "lake"
    assert lake.with_settings(workspace=str(tmp_path)).workspace == tmp_path
    with pytest.raises(ConfigError, match="workspace must be on this machine"):
        _ = lake.with_settings(workspace="s3://bucket/other").workspace
