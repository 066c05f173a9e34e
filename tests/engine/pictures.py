"""Pictures for docs/concepts: the intervals of the scenarios, as the engine gives them on DuckDB after each batch.

`make reference` writes them, and a test compares. The path of a change is drawn here too; its words are this file's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from cdc_duck import Duck
from cdc_scenarios import COLUMNS, SCENARIOS, Scenario, configuration, numbered, versions

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
_LEFT, _WIDTH, _ROW = 132, 680, 34
_COLOURS = {"A": "#3b6fb6", "B": "#2f8f6b", "C": "#b5651d", "ACTIVE": "#3b6fb6", "SUSPENDED": "#b5651d"}
_INK, _PALE, _LATE = "#1f2933", "#5d6b7a", "#c0392b"

# Layer, what it holds, and what writes it; the second line of boxes lies below the first.
_PATH = (
    ("source", "a row changes", "a database, a file, a topic"),
    ("landing/shop_orders/", "the event as delivered", "Debezium, DMS, an extract"),
    ("bronze.shop_orders", "typed, only appended", "lakeops ingest run"),
    ("slv_shop_orders__cdc", "all events, in order", "dbt build: one MERGE"),
    ("slv_shop_orders", "the row as it stands", "a view"),
    ("gold.fct_orders", "what others read", "dbt build: what changed"),
    ("gold.fct_orders", "in each warehouse", "lakeops publish run"),
)


def pictures() -> dict[str, str]:
    """The text of each picture, by its file's name."""
    found = {"path.svg": path()}
    for name, scenario in SCENARIOS.items():
        number, title = name.split(" ", 1)
        if int(number[1:]) <= 9:
            file = f"{number.lower()}{'b' if f'{number.lower()}.svg' in found else ''}.svg"
            found[file] = intervals(f"{number}: {title}", scenario)
    return found


def intervals(title: str, scenario: Scenario) -> str:
    """A scenario's batches, each with its events and the versions after it."""
    lab = Duck()
    lab.bronze("t", COLUMNS)
    select, config = configuration(scenario.group, "history")
    lab.model("history", "t", select, **config)
    hours = [row[4] for rows in scenario.batches for row in rows]
    scale = _Scale(min(hours) - 2, max(hours) + max(3, (max(hours) - min(hours)) // 3))
    parts, told, y, seen = list(_axis(scale)), [title], 62, -1
    for batch, rows in enumerate(numbered(list(scenario.batches)), 1):
        lab.deliver("t", rows)
        lab.build()
        (shown,) = versions(lab, "history").values() or [[]]
        parts += [_text(12, y + 21, f"batch {batch} brings"), *_events(scale, rows, y, seen)]
        parts += [_text(12, y + _ROW + 21, "the table shows"), *_bars(scale, shown, y + _ROW)]
        told.append(f"after batch {batch}: " + ", ".join(f"{a} from {start} to {_end(end)}" for a, start, end in shown))
        y, seen = y + 2 * _ROW + 14, max(seen, *(row[4] for row in rows))
    return _svg(". ".join(told), y + 6, [_text(12, 24, title, 15, weight="bold"), *parts])


def path() -> str:
    """The layers that a change passes, and what takes it on."""
    parts, places = [_text(12, 24, "The path of a change", 15, weight="bold")], [(12 + 168 * i, 44) for i in range(4)]
    places += [(516 - 168 * i, 164) for i in range(3)]
    for i, ((x, y), (name, holds, by)) in enumerate(zip(places, _PATH, strict=True)):
        parts += [
            _box(x, y, "#3b6fb6"),
            _text(x + 10, y + 24, name, 11, weight="bold"), _text(x + 10, y + 45, holds, 10),
            _text(x + 10, y + 68, by, 10, _PALE if i else _INK),
        ]  # fmt: skip
    arrows = [(164 + 168 * i, 86, 180 + 168 * i, 86) for i in range(3)] + [(590, 128, 590, 164)]
    arrows += [(516 - 168 * i, 206, 500 - 168 * i, 206) for i in range(2)]
    parts += [_arrow(*arrow, _INK) for arrow in arrows]
    parts += [
        _box(12, 164, _LATE),
        _text(22, 188, "dlq.shop_orders", 11, weight="bold"), _text(22, 209, "what does not fit", 10),
        _text(22, 232, "and lakeops dlq replay", 10, _PALE),
        f'<path d="M 400 128 L 400 148 L 86 148 L 86 158" fill="none" stroke="{_LATE}" stroke-dasharray="4 3"/>',
        _arrow(86, 156, 86, 164, _LATE),
    ]  # fmt: skip
    return _svg("The path of a change: " + " → ".join(name for name, _, _ in _PATH), 262, parts)


class _Scale(NamedTuple):
    """The hours that are shown."""

    first: int
    last: int

    def x(self, hour: int) -> int:
        return _LEFT + (hour - self.first) * (_WIDTH - _LEFT - 24) // (self.last - self.first)


def _axis(scale: _Scale) -> Iterator[str]:
    step = 5 if scale.last - scale.first > 12 else 1
    for hour in range(-(-scale.first // step) * step, scale.last, step):
        x = scale.x(hour)
        yield f'<line x1="{x}" y1="52" x2="{x}" y2="100%" stroke="#dfe5ec"/>'
        yield _text(x, 46, f"{hour} h", 11, _PALE, "middle")


def _events(scale: _Scale, rows: Sequence[tuple[Any, ...]], y: int, seen: int) -> Iterator[str]:
    """What a batch brings: a dot for a change, a cross for a delete; red is late. Equal events lie side by side."""
    for i, row in enumerate(rows):
        at, is_late = row[4], row[4] <= seen
        again = sum(other[4] == at for other in rows[:i])
        x, colour = scale.x(at) + 34 * again, _LATE if is_late else _INK
        if row[3] == "d":
            yield _text(x - 5, y + 21, "✕ delete", 12, colour)
        else:
            yield f'<circle cx="{x}" cy="{y + 17}" r="4" fill="{colour}"/>'
            yield _text(x + 8, y + 21, row[1], 12, colour)


def _bars(scale: _Scale, shown: Sequence[tuple[Any, ...]], y: int) -> Iterator[str]:
    """The versions: from the time when each begins to the time when it ends; an arrow where it has no end."""
    if not shown:
        yield _text(_LEFT, y + 21, "nothing", 12, _PALE)
    for value, start, end in shown:
        left, right = scale.x(start), scale.x(scale.last if end is None else end)
        colour = _COLOURS[value]
        yield f'<rect x="{left}" y="{y + 5}" width="{right - left - 2}" height="23" rx="3" fill="{colour}"/>'
        if end is None:
            yield f'<path d="M {right - 2} {y + 5} l 12 11.5 l -12 11.5 z" fill="{colour}"/>'
        yield _text(
            (left + right) // 2, y + 21, value, min(12, (right - left) / len(value)), "#ffffff", "middle", "bold"
        )


def _end(hour: int | None) -> str:
    return "now" if hour is None else str(hour)


def _text(
    x: float, y: float, text: str, size: float = 12, colour: str = _INK, anchor: str = "start", weight: str = "normal"
) -> str:
    style = f'font-size="{size:g}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


def _box(x: int, y: int, colour: str) -> str:
    size = f'width="152" height="84" rx="8" fill="#ffffff" stroke="{colour}" stroke-width="1.5"'
    return f'<rect x="{x}" y="{y}" {size}/>'


def _arrow(x1: int, y1: int, x2: int, y2: int, colour: str) -> str:
    dx, dy = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
    head = (
        f"M {x2} {y2} L {x2 - 7 * dx - 4 * dy} {y2 - 7 * dy - 4 * dx} L {x2 - 7 * dx + 4 * dy} {y2 - 7 * dy + 4 * dx} z"
    )
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}"/><path d="{head}" fill="{colour}"/>'


def _svg(told: str, height: int, parts: Sequence[str]) -> str:
    """A picture on a ground of its own, so that it can be read on a dark page; its title says what it shows."""
    ground = '<rect width="100%" height="100%" rx="10" fill="#f7f9fb" stroke="#dfe5ec"/>'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" font-family="sans-serif">'
    )
    return "\n".join([head, f"<title>{escape(told)}</title>", ground, *parts, "</svg>"]) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
