"""Where a secret's text comes from. Each provider answers with the text, or None where it has no such secret."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from python_ops.lake.aws import client, explained
from python_ops.lake.errors import ConfigError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

CURRENT, PREVIOUS = "AWSCURRENT", "AWSPREVIOUS"


class Provider(Protocol):
    """A place for secrets."""

    def get(self, name: str, stage: str = CURRENT) -> str | None:
        """The text of a secret, or None. `stage` is the version's stage; places without versions know CURRENT alone."""

    def where(self, name: str) -> str:
        """Where it looks, for people: names and paths, never a value."""


class EnvironmentProvider:
    """Variables `LAKEHOUSE_SECRET_<NAME>`."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.environment = environment

    def get(self, name: str, stage: str = CURRENT) -> str | None:
        return self.environment.get(_variable(name)) if stage == CURRENT else None

    def where(self, name: str) -> str:
        return f"the variable {_variable(name)}"


class FileProvider:
    """A JSON object of names and texts (or objects) that only its owner may read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str, stage: str = CURRENT) -> str | None:
        """The secret of this name in the file.

        Raises:
            ConfigError: others may read the file, or it is not a JSON object.
        """
        if stage != CURRENT or not self.path.exists():
            return None
        status = self.path.stat()
        if stat.S_IMODE(status.st_mode) != 0o600 or status.st_uid != os.getuid():
            raise ConfigError(
                f"{self.path} holds secrets and has mode {stat.S_IMODE(status.st_mode):04o}; it must belong to this "
                f"user and be private. Nothing was read. `chmod 600 {self.path}`."
            )
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            value = found.get(name)
        except (ValueError, AttributeError):
            raise ConfigError(
                f"{self.path} is not a JSON object of names and texts."
            ) from None  # the cause may quote it
        return value if value is None or isinstance(value, str) else json.dumps(value)

    def where(self, name: str) -> str:
        return f"{name!r} in {self.path} (mode 0600)"


class AwsProvider:
    """AWS Secrets Manager.

    Args:
        prefix: Before each name.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def get(self, name: str, stage: str = CURRENT) -> str | None:
        """The secret of this name in AWS Secrets Manager.

        Raises:
            OpsError: Secrets Manager did not answer, or refuses this role.
        """
        with explained("AWS Secrets Manager", self.prefix + name, "This role needs secretsmanager:GetSecretValue."):
            try:
                return self.client.get_secret_value(SecretId=self.prefix + name, VersionStage=stage)["SecretString"]
            except self.client.exceptions.ResourceNotFoundException:
                return None

    def where(self, name: str) -> str:
        return f"{self.prefix + name!r} in AWS Secrets Manager"

    @cached_property
    def client(self) -> SecretsManagerClient:
        """A client with bounded time and retries."""
        made: SecretsManagerClient = client("secretsmanager")
        return made


def _variable(name: str) -> str:
    return f"LAKEHOUSE_SECRET_{name.upper()}"
