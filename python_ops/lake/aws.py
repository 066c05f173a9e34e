"""Clients of AWS, bounded in time and tries, and what their errors mean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from python_ops.lake.errors import OpsError, missing_extra

# Codes by which services say that this role, or nobody with these credentials, may do it.
_DENIED = frozenset({
    "403", "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId",
    "InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException",
})  # fmt: skip


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


@contextmanager
def explained(service: str, what: str, right: str, known: Mapping[str, OpsError] | None = None) -> Iterator[None]:
    """Says in the project's errors what a service does not do.

    Args:
        service: Whose name the message has.
        what: What is asked for.
        right: What this role must have or be, as a sentence.
        known: Errors to raise for codes that have a meaning of their own here.

    Raises:
        ConfigError: boto3 is not installed.
        OpsError: the service refuses, or does not answer.
    """
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as exc:
        raise missing_extra("boto3", "aws") from exc
    try:
        yield
    except ClientError as exc:
        code, said = exc.response["Error"]["Code"], exc.response["Error"].get("Message", "")[:200]
        if known and code in known:
            raise known[code] from exc
        why = f"({code}). {right}" if code in _DENIED else f"({code}: {said})."
        raise OpsError(f"{service} refused {what} {why}") from exc
    except BotoCoreError as exc:
        raise OpsError(
            f"{service} did not answer for {what} ({type(exc).__name__}). Look at AWS_REGION, the role or "
            "credentials and the network, then run again."
        ) from exc
