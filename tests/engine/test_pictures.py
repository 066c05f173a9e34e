"""The pictures of docs/concepts are what the engine gives now."""

from __future__ import annotations

import re

import pictures
from cdc_scenarios import SCENARIOS


def test_the_pictures_show_what_the_engine_gives() -> None:
    made = pictures.pictures()
    stale = [name for name, text in made.items() if (pictures.FOLDER / name).read_text(encoding="utf-8") != text]
    assert stale == [], "`make reference` draws them anew"
    assert {path.name for path in pictures.FOLDER.iterdir()} == set(made)


def test_a_picture_draws_each_version_from_its_beginning_to_its_end() -> None:
    """S4 in full: two bars after the late event, side by side, up to the delete; and in S1 the last one is open."""
    drawn = (pictures.FOLDER / "s4.svg").read_text(encoding="utf-8")
    bars = [tuple(map(int, bar)) for bar in re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="23"', drawn)]
    (whole, _, long), (first, below, short), (second, same, rest) = bars
    assert whole == first and below == same and first + short + 2 == second and second + rest == whole + long
    assert "after batch 2: ACTIVE from 17 to 18, SUSPENDED from 18 to 20" in drawn and " l 12 11.5" not in drawn
    assert (pictures.FOLDER / "s1.svg").read_text(encoding="utf-8").count(" l 12 11.5") == 1
    assert SCENARIOS["S4 a late event before a delete"].versions["S4"][-1] == ("SUSPENDED", 18, 20)
