"""Settings: the environment's file, variables over it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from python_ops.lake import config
from python_ops.lake.config import environments, load_settings
from python_ops.lake.errors import ConfigError


def test_every_environment_can_be_loaded() -> None:
    assert set(environments()) == {"local", "ci", "dev", "prod"}
    assert {load_settings(name).target for name in environments()} == set(environments())
    assert load_settings("prod").secrets == "aws"


def test_a_variable_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_SECRETS", "file")
    monkeypatch.setenv("LAKEHOUSE_ALERTS", '["console"]')
    settings = load_settings("prod")
    assert (settings.secrets, settings.alerts, settings.state_store) == ("file", ("console",), "dynamodb")


def test_an_unknown_environment_and_an_unknown_setting_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no environment 'nowhere'\. Known: ci, dev, local, prod"):
        load_settings("nowhere")
    monkeypatch.setattr(config, "FOLDER", tmp_path)
    (tmp_path / "odd.yml").write_text("colour: red\n")
    with pytest.raises(ConfigError, match=r"odd.yml sets colour. Known: access, alerts,"):
        load_settings("odd")


def test_a_wrong_value_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_STATE_STORE", "paper")
    with pytest.raises(ConfigError, match="LAKEHOUSE_STATE_STORE: Input should be 'file' or 'dynamodb'"):
        load_settings("local")
    monkeypatch.setenv("LAKEHOUSE_PUBLISH", "postgres")
    with pytest.raises(ConfigError, match=r'LAKEHOUSE_PUBLISH must be JSON; a list is such as \["duckdb"\]'):
        load_settings("local")
