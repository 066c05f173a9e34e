"""Where a benchmark's figures go, and what each says of the machine that it ran on."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

from python_ops.lake.config import PROJECT_ROOT


def machine() -> dict[str, Any]:
    """When and where: the time, the cores, and the load average of the last minute."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def save(name: str, figures: dict[str, Any], **raw: Any) -> None:
    """Prints the figures, and writes them with the raw ones to bench/results/<name>.json."""
    print(json.dumps(figures, indent=1))
    path = PROJECT_ROOT / "bench" / "results" / f"{name}.json"
    path.write_text(json.dumps(figures | raw, indent=1) + "\n", encoding="utf-8")
