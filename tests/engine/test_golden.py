"""A change of the engine's SQL is seen."""

from __future__ import annotations

import pytest
from cdc_sets import MODELS
from golden import FOLDER, recorded


@pytest.mark.parametrize("name", MODELS)
def test_the_engines_sql_is_the_one_that_was_read(name: str) -> None:
    kept = (FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    assert recorded(name) == kept, "the engine's SQL changed: run `make golden` and read the diff"


def test_no_file_is_left_of_an_option_set_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.glob("*.sql")} == set(MODELS)
