"""Formats of landing files: what is in a record, as SQL made from the contract."""

from __future__ import annotations

from python_ops.jobs.ingest.formats.dms import Dms
from python_ops.jobs.ingest.formats.format import Debezium, Format
from python_ops.lake.contracts import Contract

_FORMATS = {
    "debezium_json": Debezium("lines"),
    "csv": Format("csv"),
    "jsonl": Format("lines"),
    "parquet": Format("parquet"),
    "avro": Format("avro"),
    "dms": Dms("csv", "parquet"),
}


def format_of(contract: Contract) -> Format:
    """The contract's format."""
    return _FORMATS[contract.format]
