"""The error tree. Each class carries the exit code that a command ends with.

OpsError            1  something failed; the message says what, on what, and the next step
├── ConfigError     2  usage or configuration
│   └── ContractError  a data contract is missing or not valid
├── SlaBreached     3  a service level does not hold
├── BusyError       4  another run holds what this one needs
└── Interrupted   130  Ctrl-C, or SIGTERM (143): stopped at a safe point
"""

from __future__ import annotations

from collections.abc import Sequence


class OpsError(Exception):
    """A failure with a message for the operator: what failed, on what, the next step."""

    exit_code = 1


class ConfigError(OpsError):
    """Wrong usage or configuration."""

    exit_code = 2


class ContractError(ConfigError):
    """A data contract is missing or not valid."""


class SlaBreached(OpsError):
    """A service level does not hold."""

    exit_code = 3


class BusyError(OpsError):
    """Another run holds what this one needs."""

    exit_code = 4


class Interrupted(OpsError):
    """Somebody asked the run to stop; what was committed is kept."""

    exit_code = 130

    def __init__(self, message: str, cause: BaseException) -> None:
        super().__init__(message)
        if isinstance(cause, Terminated):
            self.exit_code = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken as Ctrl-C is."""


def together(failures: Sequence[OpsError], message: str) -> OpsError:
    """One error for what failed side by side: a configuration error, or busy, where all are that."""
    codes = {failure.exit_code for failure in failures}
    kinds: dict[int, type[OpsError]] = {kind.exit_code: kind for kind in (ConfigError, BusyError)}
    return (kinds.get(codes.pop(), OpsError) if len(codes) == 1 else OpsError)(message)


def first_line(error: object, most: int = 300) -> str:
    """The first line of what a library says, which may print a stack trace or values below it.

    Args:
        error: An exception or its text; the name of its class where it says nothing.
        most: Characters.
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def missing_extra(package: str, extra: str) -> ConfigError:
    """The error of a package that only an optional extra installs."""
    return ConfigError(
        f"{package} is not installed: `make setup` installs every extra, `.venv/bin/pip install -e '.[{extra}]'` this "
        "one."
    )
