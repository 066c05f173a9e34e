"""The bundled batches that a script derives from the recording: what the script writes, with late and repeated rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

from python_ops.lake.config import PROJECT_ROOT

LANDING = PROJECT_ROOT / "seeds" / "landing"


def test_the_script_writes_the_bundled_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, LANDING / "derive.py", tmp_path], check=True)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("batch_*")}
    bundled = {path: (LANDING / path).read_bytes() for path in made}
    assert len(made) == 15
    assert [str(path) for path in made if made[path] != bundled[path]] == []


def test_events_come_late_and_again() -> None:
    """Within a batch, and after a batch that has later ones."""
    batches = [
        [json.loads(line) for line in (LANDING / "kafka_events" / f"batch_{batch}.jsonl").read_text().split("\n")[:-1]]
        for batch in range(5)
    ]
    for before, batch in pairwise(batches):
        known = {event["event_id"] for event in before}
        assert known & {event["event_id"] for event in batch}
        assert max(Counter(event["event_id"] for event in batch).values()) == 2
        newest = max(event["occurred_at"] for event in before)
        assert any(event["occurred_at"] > newest for event in batch if event["event_id"] not in known)
        first_day = min(event["occurred_at"][:10] for event in before)
        new = [event for event in batch if event["event_id"] not in known]
        assert any(first_day <= event["occurred_at"][:10] <= newest[:10] for event in new), "an event of the day before"
