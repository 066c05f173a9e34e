"""Checks before anything is published: the last dbt command is green, and it tested what changed."""

from __future__ import annotations

from collections.abc import Sequence, Set

from python_ops.lake.artifacts import Manifest, Model, RunResults
from python_ops.lake.errors import OpsError


def refuse_red(manifest: Manifest, last_run: RunResults, models: Sequence[Model]) -> None:
    """Raises OpsError when a node that the models depend on, or a test of one, is not green."""
    nodes = manifest.upstream(model.unique_id for model in models)
    if failed := last_run.failed(nodes | manifest.tests_of(nodes)):
        names = _listed([f"{result.unique_id} ({result.status})" for result in failed])
        raise OpsError(
            f"The last `dbt {last_run.command}` is not green: {names}. "
            "Nothing was published; what was served before is still served. Correct it, run `dbt build`, then publish."
        )


def refuse_untested(
    manifest: Manifest, last_run: RunResults, changed: Sequence[Model], without: Set[str] = frozenset()
) -> None:
    """Raises OpsError when a changed table has a test that the last run did not run.

    Tests that are among the nodes that the run went `without`, waiting for a source, wait with them.
    """
    missing = manifest.tests_of(model.unique_id for model in changed) - last_run.green_tests() - without
    if missing:
        raise OpsError(
            f"The last `dbt {last_run.command}` did not run {len(missing)} tests of tables that changed: "
            f"{_listed(sorted(missing))}. Nothing was published. Run `dbt test`, or `dbt build`, then publish."
        )


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
