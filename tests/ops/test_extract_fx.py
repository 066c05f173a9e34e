"""Extraction of the central bank's rates: the whole file each time, and only what is new or revised lands."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from extraction import lake_with, landed, mark, use
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from python_ops.jobs.extract import extract
from python_ops.jobs.extract.sources import sources
from python_ops.jobs.ingest.inspection import inspect
from python_ops.lake import landing
from python_ops.lake.config import Settings
from python_ops.lake.lake import Lake
from python_ops.lake.state.watermarks import Watermark

HEAD = "Date,USD,JPY,CYP,\n"
DAYS = ["2025-01-03,1.0299,161.99,N/A,\n", "2025-01-02,1.0321,162.3,N/A,\n"]


def zipped(text: str, name: str = "eurofxref-hist.csv") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return content.getvalue()


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    use(monkeypatch, sources()["fx_rates"])
    return lake_with(tmp_path / "lake", fx_rates={"url": (tmp_path / "rates.zip").as_uri()})


def deliver(lake: Lake, *days: str, head: str = HEAD) -> None:
    (lake.home.parent / "rates.zip").write_bytes(zipped(head + "".join(days)))


def rates(lake: Lake) -> list[tuple[str, str, str]]:
    return [(r["rate_date"], r["currency"], r["units_per_eur"]) for r in landed(lake, "fx_rates")]


def run(lake: Lake) -> int:
    (result,) = extract(lake, ["fx_rates"])
    assert result.error is None, result.error
    return result.rows


def test_only_new_and_revised_rates_land(lake: Lake) -> None:
    """Given a file of two days, When a day comes and a rate is revised, Then those alone land, in later files."""
    deliver(lake, *DAYS)
    assert run(lake) == 4 and run(lake) == 0
    assert rates(lake)[0] == ("2025-01-03", "USD", "1.0299")
    assert mark(lake, "fx_rates") == Watermark("2025-01-03T00:00:00Z", "2025-01-03|USD")
    deliver(lake, "2025-01-06,1.0426,164.16,N/A,\n", DAYS[0], "2025-01-02,1.0322,162.3,N/A,\n")
    assert run(lake) == 3
    assert rates(lake)[4:] == [
        ("2025-01-06", "USD", "1.0426"), ("2025-01-06", "JPY", "164.16"), ("2025-01-02", "USD", "1.0322"),
    ]  # fmt: skip
    deliver(lake, "2025-01-06,1.0426,164.16,N/A,\n", *DAYS)
    assert run(lake) == 1, "a revision that is taken back is a revision"
    names = landing.names(lake.landing / "fx_rates")
    assert names == sorted(names) and len(names) == 3, "the order of names is the order of delivery: the last one wins"


def test_a_header_is_the_contracts(lake: Lake) -> None:
    deliver(lake, *DAYS)
    run(lake)
    (name,) = landing.names(lake.landing / "fx_rates")
    found = inspect(lake.landing / "fx_rates", name, sources()["fx_rates"].contract)
    assert found.fault is None


def test_an_older_file_lands_nothing(lake: Lake) -> None:
    deliver(lake, *DAYS)
    run(lake)
    deliver(lake, "2025-01-02,9.9,162.3,N/A,\n")
    (result,) = extract(lake, ["fx_rates"])
    assert result.error is not None and "an older file was served" in str(result.error)
    assert len(rates(lake)) == 4


def test_a_value_that_is_no_number_lands_for_ingestion_to_reject(lake: Lake) -> None:
    deliver(lake, "2025-01-02,oops,162.3,N/A,\n")
    assert run(lake) == 2
    assert ("2025-01-02", "USD", "oops") in rates(lake)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04 broken", "is a broken zip"),
        (zipped("x")[:-20], "is a broken zip"),
        (zipped(HEAD, "readme.txt"), "should hold one csv"),
        (b"<html>not found</html>", "is not a table of rates"),
        (b"", "is not a table of rates"),
        (b"Date,USD\n03/01/2025,1\n", "line 2: no day at its beginning"),
        (b"Date,USD\n\xff\xfe,1\n", "is not a csv in UTF-8"),
    ],
)
def test_a_wrong_file_is_named_and_lands_nothing(lake: Lake, content: bytes, told: str) -> None:
    (lake.home.parent / "rates.zip").write_bytes(content)
    (result,) = extract(lake, ["fx_rates"])
    assert result.error is not None and told in str(result.error)
    assert not landing.names(lake.landing / "fx_rates") and mark(lake, "fx_rates") is None
    assert not list(lake.landing.rglob("*.tmp"))


def test_a_bomb_is_refused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("python_ops.jobs.extract.fx.TEXT_BYTES", 1000)
    deliver(lake, *(f"2025-01-{day:02},1.0,2.0,,\n" for day in range(1, 32)), head=HEAD + " " * 1000 + "\n")
    (result,) = extract(lake, ["fx_rates"])
    assert result.error is not None and "at most 1000 bytes" in str(result.error)


def test_over_http_a_file_that_is_unchanged_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer
) -> None:
    """Given a server with ETags, When nothing changed, Then it answers 304; after a reset it is asked for all again."""
    use(monkeypatch, sources()["fx_rates"])
    lake = lake_with(tmp_path / "lake", fx_rates={"url": httpserver.url_for("/hist.zip")})
    served, statuses = ["a", zipped(HEAD + "".join(DAYS))], []

    def answer(request: Request) -> Response:
        same = request.headers.get("If-None-Match") == f'"{served[0]}"'
        statuses.append(304 if same else 200)
        return Response(b"" if same else served[1], statuses[-1], headers={"ETag": f'"{served[0]}"'})

    httpserver.expect_request("/hist.zip").respond_with_handler(answer)
    assert [run(lake), run(lake)] == [4, 0]
    served[:] = ["b", served[1]]
    assert [run(lake), run(lake)] == [0, 0]
    assert statuses == [200, 304, 200, 304]
    served[:] = ["c", zipped(HEAD + "2025-01-06,1.0426,164.16,N/A,\n" + "".join(DAYS))]
    assert run(lake) == 2
    (lake.state / "extract" / "fx_rates" / "seen.bin").unlink()
    assert run(lake) == 6, "what was seen is forgotten: all of it lands again, and nothing is missed"


def test_the_bank_needs_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from python_ops.watch.credentials import needed

    assert needed(Lake(Settings(extract=("fx_rates", "snowflake_orders")))) == {
        "snowflake_orders": {"extracting snowflake_orders": "extract.snowflake"}
    }
