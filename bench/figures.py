"""Where a benchmark's figures go, and what each says of the machine that it ran on."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_ops.lake.config import PROJECT_ROOT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RESULTS = PROJECT_ROOT / "bench" / "results"
_NAMED = ("pyspark", "delta-spark", "dbt-core", "dbt-spark", "duckdb")


def machine() -> dict[str, Any]:
    """When, where and with what: the time, the processor, the load average of the last minute, versions."""
    named = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    found = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": named[1] if named else None,
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {name: found[name] for name in _NAMED if name in found},
    }


def jvm_seconds(spark: SparkSession) -> float:
    """Processor seconds that this process's Spark, driver and executor in one JVM, has used so far."""
    assert spark._jvm is not None
    stat = Path(f"/proc/{spark._jvm.java.lang.ProcessHandle.current().pid()}/stat").read_text(encoding="utf-8")
    return sum(map(int, stat.rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def save(name: str, figures: dict[str, Any], **raw: Any) -> None:
    """Prints the figures, and writes them with the raw ones to bench/results/<name>.json."""
    print(json.dumps(figures, indent=1))
    write(name, figures | raw)


def write(name: str, figures: dict[str, Any]) -> None:
    """Writes them to bench/results/<name>.json."""
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
