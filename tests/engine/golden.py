"""The SQL that the engine sends to Spark, kept as files: a change of the engine is read as a diff of them.

`make golden` writes them. Each option set runs three times, and some once more with a truncate.
"""

from __future__ import annotations

from pathlib import Path

from cdc_duck import Duck
from cdc_fold import DELETE, TRUNCATE, UPSERT, Event
from cdc_sets import MODELS, add_models, bronze_row

FOLDER = Path(__file__).with_name("golden")
NONE = (None, None, None)
TRUNCATED, WITH_TRUNCATE = "a truncate", ("versions", "states_tied")
RUNS = {
    "first load": [
        Event("k1", 10, 10, UPSERT, ("a", "b", "c")),
        Event("k1", 30, 30, DELETE, NONE, move=1),
        Event("k3", 20, 20, UPSERT, ("a", "b", "c")),
    ],
    "a key change, and an event that comes late": [
        Event("k2", 30, 30, UPSERT, ("x", None, "c"), frozenset("b"), 1),
        Event("k1", 20, 20, UPSERT, ("a", "y", "c")),
    ],
    TRUNCATED: [Event(None, 40, 40, TRUNCATE, NONE)],
    "an event in order": [Event("k2", 50, 50, UPSERT, ("x", "y", "c"))],
}


def recorded(name: str) -> str:
    """Every statement of the runs of one option set."""
    lab = Duck()
    add_models(lab, name)
    parts = []
    for batch, (run, events) in enumerate(RUNS.items(), 1):
        if run == TRUNCATED and name not in WITH_TRUNCATE:
            continue
        lab.deliver(MODELS[name][0], [bronze_row(event, batch) for event in events])
        lab.warehouse.statements.clear()
        lab.build()
        parts.append(f"-- ===== {run} =====")
        parts += [_tidy(statement) + ";" for statement in lab.warehouse.statements]
    return "\n\n".join(parts) + "\n"


def _tidy(sql: str) -> str:
    return "\n".join(line.rstrip() for line in sql.splitlines() if line.strip())


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.sql"):
        path.unlink()
    for name in MODELS:
        (FOLDER / f"{name}.sql").write_text(recorded(name), encoding="utf-8")


if __name__ == "__main__":
    main()
