"""Clients of AWS, bounded in time and tries."""

from __future__ import annotations

import os
from typing import Any

from python_ops.lake.errors import missing_extra


def boto3() -> Any:
    """The module of that name, which only an extra installs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import boto3 as sdk
    except ImportError as exc:
        raise missing_extra("boto3", "aws") from exc
    return sdk


def client(
    service: str,
    region: str | None = None,
    connect_seconds: float = 3,
    answer_seconds: float = 5,
    attempts: int = 4,
    connections: int = 10,
) -> Any:
    """A client of boto3, such as `client("s3")`, which is of type `S3Client`.

    Args:
        service: As boto3 names it.
        region: The environment's own when None or empty: that of AWS_REGION, which boto3 leaves unread, then boto3's.
        connect_seconds: Longest wait for a connection, per try.
        answer_seconds: Longest silence in an answer, per try.
        attempts: Tries in all; boto3 waits between them (retry mode `standard`).
        connections: Most that are kept open.

    Raises:
        ConfigError: boto3 is not installed.
    """
    sdk = boto3()
    from botocore.config import Config

    limits = Config(
        connect_timeout=connect_seconds,
        read_timeout=answer_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
    )
    return sdk.client(service, config=limits, region_name=region or os.environ.get("AWS_REGION") or None)
