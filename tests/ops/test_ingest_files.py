"""Landing files, manifests and the lock: what ingestion decides without Spark."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from python_ops.config import Settings
from python_ops.contracts import load
from python_ops.errors import BusyError, OpsError
from python_ops.ingest import landing
from python_ops.ingest.ledger import Ledger, State
from python_ops.lock import exclusive


def test_files_are_taken_in_name_order_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", ".hidden", "_started", "c.jsonl.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder").mkdir()

    assert landing.names(tmp_path) == ["a.jsonl.gz", "b.jsonl"]
    assert landing.names(tmp_path / "missing") == []


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("whole.jsonl.gz", gzip.compress(b"{}\n"), None),
        ("members.jsonl.gz", gzip.compress(b"{}\n") + gzip.compress(b"{}\n"), None),
        ("cut.jsonl.gz", gzip.compress(b"{}\n" * 1000)[:-9], "truncated gzip"),
        ("plain.jsonl.gz", b"{}\n", "not a gzip stream"),
        ("empty.jsonl.gz", b"", None),
        ("empty.jsonl", b"", None),
    ],
)
def test_a_file_that_is_not_whole_is_seen(tmp_path: Path, name: str, content: bytes, fault: str | None) -> None:
    (tmp_path / name).write_bytes(content)

    found = landing.inspect(tmp_path, name, load("crm_accounts"))

    assert found.bytes == len(content)
    assert (found.fault or "").startswith(fault or "") and (found.fault is None) == (fault is None)


def test_a_csv_file_must_have_the_header_of_its_contract(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("\ufeffrate_date,currency,units_per_eur\r\n", encoding="utf-8")
    (tmp_path / "other.csv").write_text("currency,rate_date,source,units_per_eur\n")
    (tmp_path / "bad.csv").write_text("currency,rate_date\n")
    (tmp_path / "twice.csv").write_text("currency,rate_date,units_per_eur,currency\n")

    assert landing.inspect(tmp_path, "good.csv", load("fx_rates")).fault is None
    other = landing.inspect(tmp_path, "other.csv", load("fx_rates"))
    assert (other.fault, other.layout) == (None, ("currency", "rate_date", "source", "units_per_eur"))
    assert "header has currency, rate_date;" in str(landing.inspect(tmp_path, "bad.csv", load("fx_rates")).fault)
    assert "header has" in str(landing.inspect(tmp_path, "twice.csv", load("fx_rates")).fault)


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "crm_accounts")
    frozen = ledger.freeze(3, "1.0.0", [landing.LandingFile("a.jsonl", 5, "abc", "truncated gzip")])

    assert Ledger(tmp_path, "crm_accounts").open_batch == frozen
    ledger.set_state(frozen, State.COMMITTED, counts={"accepted": 1})
    again = Ledger(tmp_path, "crm_accounts")
    assert again.open_batch is None and again.last_number == 3 and set(again.taken()) == {"a.jsonl"}
    again.set_state(again.manifests[0], State.LOST)
    assert not Ledger(tmp_path, "crm_accounts").taken()


def test_a_garbled_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "crm_accounts").mkdir()
    (tmp_path / "crm_accounts" / "batch_000001.json").write_text('{"batch_id": 1')

    with pytest.raises(OpsError, match=r"batch_000001\.json is not a batch manifest"):
        Ledger(tmp_path, "crm_accounts")


def test_a_second_process_is_told_who_holds_the_home(tmp_path: Path) -> None:
    """Given a process that holds the lock, Then another is refused; when the holder is killed, the lock is free."""
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, time; from pathlib import Path; from python_ops.config import Settings;"
            "from python_ops.lock import exclusive\n"
            f"with exclusive(Settings(home=Path({str(tmp_path)!r})), 'run'): print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        with (
            pytest.raises(BusyError, match=rf"in use by `lakeops run` \(process {holder.pid}, since "),
            exclusive(Settings(home=tmp_path), "ingest run"),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with exclusive(Settings(home=tmp_path), "ingest run"):
        assert json.loads((tmp_path / "state" / "lock.json").read_text())["command"] == "ingest run"
