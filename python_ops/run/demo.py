"""The demo: the bundled batches through the daily job, the change days deliberately not in order."""

from __future__ import annotations

from pathlib import Path

from python_ops.lake.config import PROJECT_ROOT
from python_ops.lake.errors import ConfigError
from python_ops.lake.files import write_whole
from python_ops.lake.lake import Lake
from python_ops.run.daily import Job, Report
from python_ops.run.pending import remember

BUNDLED = PROJECT_ROOT / "seeds" / "landing"
SHUFFLED = (3, 1, 4, 2)


def deliver(lake: Lake, batch: int) -> int:
    """Copies one bundled batch of every source to the landing folder, unless it is there.

    Returns:
        Files copied.
    """
    copied = 0
    for folder in sorted(path for path in BUNDLED.iterdir() if path.is_dir()):
        for file in folder.glob(f"batch_{batch}.*"):
            target = lake.landing / folder.name / file.name
            if not target.exists():
                write_whole(target, file.read_bytes())
                copied += 1
    return copied


def allow(lake: Lake) -> None:
    """Raises ConfigError when the environment is not one for invented data."""
    if not lake.settings.demo:
        raise ConfigError(
            f"The demo delivers invented data, and environment {lake.settings.target} does not say `demo: true`. "
            "Nothing was delivered. `lakeops demo` alone runs it in the environment `local`."
        )


def demo(lake: Lake, report: Report, every_batch: bool = False) -> tuple[Job, Path]:
    """Batch 0 and a build; then the four change days, not in order, and a build; publish; the docs site.

    Args:
        report: As in `python_ops.run.daily.Job`.
        every_batch: Build and publish after each change day, rather than once after all.

    Returns:
        The job, and the path of the docs site.

    Raises:
        ConfigError: the environment is not one for invented data.
        OpsError: a step failed.
    """
    allow(lake)
    job = Job(lake, report, "demo")
    for place, batch in enumerate((0, *SHUFFLED)):
        report("delivery", (batch, deliver(lake, batch)))
        job.ingest()
        if every_batch or batch == 0 or place == len(SHUFFLED):
            job.build()
    job.publish()
    remember(lake)
    return job, job.docs()
