"""Great Expectations: a suite made from rules, its result, and the Data Docs pages.

Results hold counts and shares, never values of rows: no list of unexpected values is asked for, and distributions are
watched on columns that are no personal data.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from python_ops.lake.errors import OpsError, first_line, missing_extra
from python_ops.watch.quality.pages import make_own, prune
from python_ops.watch.quality.rules import AGE, Rule
from python_ops.watch.quality.verdicts import Finding

DOCS = "docs"
RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": 0, "include_unexpected_rows": False}


def validate(
    folder: Path, source: str, batch: int, frame: Any, rules: Sequence[Rule], engine: str
) -> tuple[tuple[Finding, ...], Path]:
    """Judges a frame and renews its pages.

    Args:
        folder: Where Great Expectations keeps its files.
        source: Name; its suite is called so.
        batch: Its number.
        frame: A pandas frame or a Spark frame.
        rules: What is expected.
        engine: `pandas` or `spark`.

    Returns:
        What does not hold, and the page.

    Raises:
        ConfigError: Great Expectations is not installed.
        OpsError: it failed.
    """
    with _quietly():
        gx = _import()
        try:
            return _validate(gx, folder, source, batch, frame, rules, engine)
        except (gx.exceptions.GreatExpectationsError, ValueError, TypeError, KeyError, OSError) as exc:
            reason = first_line(exc)
            raise OpsError(
                f"{source}, batch {batch}: Great Expectations failed ({reason}). Its files are in {folder}; they may "
                "be deleted, the next report makes them anew."
            ) from exc


def _validate(
    gx: Any, folder: Path, source: str, batch: int, frame: Any, rules: Sequence[Rule], engine: str
) -> tuple[tuple[Finding, ...], Path]:
    context = _context(gx, folder)
    make = context.data_sources
    data = make.add_or_update_pandas(engine) if engine == "pandas" else make.add_or_update_spark(engine)
    suite = context.suites.add_or_update(
        gx.ExpectationSuite(name=source, expectations=[_expectation(rule, number) for number, rule in enumerate(rules)])
    )
    whole = data.add_dataframe_asset(source).add_batch_definition_whole_dataframe("batch")
    definition = gx.ValidationDefinition(name=f"{source}_{engine}", data=whole, suite=suite)
    run = gx.RunIdentifier(run_name=f"batch {batch:06d}")
    outcome = context.validation_definitions.add_or_update(definition).run(
        batch_parameters={"dataframe": frame}, result_format=RESULT_FORMAT, run_id=run
    )
    _renew_pages(context, folder, source, run, outcome)
    return tuple(_findings(outcome, rules)), _page(folder, source, batch)


def _renew_pages(context: Any, folder: Path, source: str, run: Any, outcome: Any) -> None:
    """The page of the run and of its suite, and the index; pages of other batches stay as they are."""
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    for kept in (folder / "gx" / "uncommitted" / "validations" / source, folder / DOCS / "validations" / source):
        prune(kept)
    suite = ExpectationSuiteIdentifier(source)
    result = ValidationResultIdentifier(suite, run, outcome.batch_id)
    context.build_data_docs(site_names=[DOCS], resource_identifiers=[suite, result])
    make_own((folder / DOCS).rglob("*.html"))


def _import() -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    try:
        import great_expectations
    except ImportError as exc:
        raise missing_extra("Great Expectations", "quality") from exc
    return great_expectations


def _context(gx: Any, folder: Path) -> Any:
    context = gx.get_context(mode="file", project_root_dir=folder)
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder / DOCS)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    sites = context.variables.data_docs_sites
    if sites.keys() != {DOCS}:
        for name in list(sites):
            context.delete_data_docs_site(name)
        context.add_data_docs_site(site_name=DOCS, site_config=site)
    elif sites[DOCS] != site:
        context.update_data_docs_site(site_name=DOCS, site_config=site)
    return context


def _expectation(rule: Rule, number: int) -> Any:
    import great_expectations.expectations as kinds
    from great_expectations.expectations.row_conditions import Column

    among = {"row_condition": Column(rule.among) == 1} if rule.among else {}
    return getattr(kinds, rule.kind)(**rule.arguments, **among, description=rule.says, meta={"rule": number})


def _findings(outcome: Any, rules: Sequence[Rule]) -> Iterator[Finding]:
    for result in sorted(outcome.results, key=lambda result: int(result.expectation_config.meta["rule"])):
        if not result.success:
            rule = rules[int(result.expectation_config.meta["rule"])]
            yield Finding(rule.says, _found(rule, result))


def _found(rule: Rule, result: Any) -> str:
    if (result.exception_info or {}).get("raised_exception"):
        return "could not be judged"
    given = result.result
    if "unexpected_count" in given:
        return f"{given['unexpected_count']} of {given['element_count']} rows"
    seen = given.get("observed_value")
    if rule.kind == "ExpectColumnProportionOfNonNullValuesToBeBetween" and seen is not None:
        return f"{1 - float(seen):.1%} are NULL"
    if rule.kind == "ExpectTableColumnsToMatchSet":
        missing = given.get("details", {}).get("mismatched", {}).get("missing", [])
        return f"missing: {', '.join(missing)}"
    unit = " minutes" if rule.arguments.get("column") == AGE else ""
    return (f"{seen:.4g}" if isinstance(seen, float) else str(seen)) + unit


def _page(folder: Path, source: str, batch: int) -> Path:
    """The newest page of the batch; the index when there is none."""
    pages = (folder / DOCS / "validations" / source / f"batch {batch:06d}").rglob("*.html")
    return max(pages, key=lambda page: page.parent.name, default=folder / DOCS / "index.html")


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences Great Expectations, which warns of its own dependencies and logs what it does."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
