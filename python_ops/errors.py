"""The error tree. Each class carries the exit code that the command line ends with.

OpsError                1  something failed; the message says what, on what, and the next step
├── ConfigError         2  usage or configuration
├── SlaBreach           3  a service level was missed
├── BusyError           4  another run holds the lake
├── ContractError       2  a data contract file is not valid
└── IngestError         1  a batch could not be ingested; nothing of it is visible
"""

from __future__ import annotations


class OpsError(Exception):
    """A failure with a message for the operator: what failed, on what, the next step."""

    exit_code = 1


class ConfigError(OpsError):
    """Wrong usage or configuration."""

    exit_code = 2


class SlaBreach(OpsError):
    """A service level was missed."""

    exit_code = 3


class BusyError(OpsError):
    """Another run holds what this one needs."""

    exit_code = 4


class ContractError(OpsError):
    """A data contract file is not valid."""

    exit_code = 2


class IngestError(OpsError):
    """A batch could not be ingested; nothing of it is visible."""
