"""Snapshots in buckets: from a folder, from a bucket (S3 copies by itself), and back to either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
from deltalake import DeltaTable, write_deltalake
from recovery_lake import FilledLake, ids

from python_ops.jobs.recovery.manifest import identifiers
from python_ops.jobs.recovery.prune import prune
from python_ops.jobs.recovery.restore import restore
from python_ops.jobs.recovery.verify import verify
from python_ops.lake.config import Settings
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.storage import Checksum, MissingFile, S3Folder, folder_at

pytestmark = pytest.mark.slow

STORE = "s3://recovery/lake"


@pytest.fixture
def s3(aws: str) -> Any:
    """Buckets in two regions: where the lake is, and where snapshots go."""
    for bucket, region in (("lake", "eu-west-1"), ("recovery", "eu-central-1")):
        client = boto3.client("s3", region_name=region)
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
    return client


@pytest.fixture
def lake(tmp_path: Path, s3: Any) -> FilledLake:
    return FilledLake(tmp_path, recovery=STORE, recovery_region="eu-central-1").fill()


def remote(tmp_path: Path, name: str) -> Lake:
    """An environment whose tables are in the lake's bucket and whose state is here."""
    settings = Settings(home=Path(f"s3://lake/{name}"), recovery=STORE, recovery_region="eu-central-1")
    place = tmp_path / name
    return Lake(settings, landing=place / "landing", state=place / "state", artifacts=tmp_path / "lake" / "target")


def options(aws: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": aws, "AWS_ALLOW_HTTP": "true", "AWS_S3_ALLOW_UNSAFE_RENAME": "true"}


def test_a_folder_goes_to_a_bucket_and_comes_back(lake: FilledLake, s3: Any) -> None:
    first = lake.create()
    assert verify(lake.copies, first).faults == () == verify(lake.copies, first, thorough=False).faults
    again = lake.create()
    assert (again.copied_bytes, again.copied_log_bytes) == (0, 0)
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="recovery")["Contents"]]
    assert {key.split("/")[1] for key in keys} == {"snapshots", "files", "blobs"} and all(
        key.startswith("lake/") for key in keys
    )
    home = Lake(Settings(home=lake.home.parent / "elsewhere"))
    restore(lake, home, execute=True)
    assert ids(home.table_path("gold", "fct_orders")) == lake.ids("gold.fct_orders")
    assert prune(lake, 1, execute=True).remove == (first.id,)
    assert verify(lake.copies, again).faults == ()


def test_a_flipped_bit_in_a_bucket_is_found(lake: FilledLake, s3: Any) -> None:
    made = lake.create()
    name = made.tables[1].files[0].object
    data = bytearray(lake.copies.read(name))
    data[len(data) // 2] ^= 1
    s3.put_object(Bucket="recovery", Key=f"lake/{name}", Body=bytes(data))
    assert "etag" in verify(lake.copies, made, thorough=False).faults[0]
    with pytest.raises(OpsError, match=rf"{Path(name).name}.*sha256.*Nothing was restored"):
        restore(lake, lake, execute=True)
    s3.delete_object(Bucket="recovery", Key=f"lake/{name}")
    assert "is missing" in verify(lake.copies, made).faults[0]


def test_between_buckets_s3_copies_by_itself(
    tmp_path: Path, s3: Any, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a lake in a bucket, When it is copied to another, Then no data file passes through this machine."""
    source = remote(tmp_path, "one")
    local = FilledLake(tmp_path, recovery=STORE, recovery_region="eu-central-1").fill()
    table = DeltaTable(str(local.path("gold.fct_orders"))).to_pyarrow_table()
    place = "s3://lake/one/warehouse/gold.db/fct_orders"
    for part in (table.slice(0, 7), table.slice(7)):
        write_deltalake(place, part, mode="append", partition_by=["batch"], storage_options=options(aws))
    read: list[str] = []
    blocks = S3Folder.blocks

    def noticed(self: S3Folder, name: str) -> Any:
        read.append(name)
        return blocks(self, name)

    monkeypatch.setattr(S3Folder, "blocks", noticed)
    from python_ops.jobs.recovery.create import create

    made = create(source)
    assert [(t.name, t.version, t.rows) for t in made.tables] == [("gold.fct_orders", 1, 15)]
    assert made.copied_files == len(made.tables[0].files) > 0
    assert not [name for name in read if name.endswith(".parquet") and "_delta_log" not in name]
    assert verify(local.copies, made).faults == ()

    two = remote(tmp_path, "two")
    done = restore(source, two, execute=True)
    assert done.executed and done.replaced is None
    restored = "s3://lake/two/warehouse/gold.db/fct_orders"
    assert ids(restored, storage_options=options(aws)) == sorted(table.column("id").to_pylist())
    with pytest.raises(ConfigError, match=r"is at version 2, the snapshot at 1"):
        restore(source, two, execute=True)
    with pytest.raises(OpsError, match=r"S3 cannot swap folders\. Nothing was restored"):
        restore(source, two, overwrite=True, execute=True)


def test_a_missing_bucket_and_a_refusing_one_are_told_apart(lake: FilledLake, s3: Any) -> None:
    gone = FilledLake(lake.home.parent, recovery="s3://nowhere/x")
    with pytest.raises(ConfigError, match="There is no bucket nowhere"):
        gone.create()
    with pytest.raises(ConfigError, match=r"ftp://x is neither a path nor s3://bucket/prefix"):
        folder_at("ftp://x")
    with pytest.raises(MissingFile, match="s3://recovery/lake/files/none is missing"):
        lake.copies.read("files/none")
    assert identifiers(lake.copies) == []


def test_a_receiver_that_does_not_answer_ends_without_a_snapshot(
    lake: FilledLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OpsError, match="S3 did not answer"):
        FilledLake(lake.home.parent, recovery=STORE).create()


def test_checksums_say_how_they_differ() -> None:
    copied = Checksum(5, "aa", "t1")
    assert copied.differs(Checksum(5, "aa")) is None
    assert copied.differs(Checksum(4, "aa")) == "has 4 bytes, not 5"
    assert copied.differs(Checksum(5, "bb", "t1")) == "has other bytes (sha256) than were copied"
    assert copied.differs(Checksum(5, None, "t2")) == "is another object (etag) than was copied"
    assert Checksum(5, None, "t1").differs(Checksum(5, "aa", "t1")) is None
    assert copied.differs(Checksum(5)) is None, "a look at sizes alone"
    assert Checksum(5, None, "t1").differs(Checksum(5, "aa")) == "has no checksum that could be compared"
