"""Released versions of contracts, and what a contract in work may change since the last of them.

A release is a copy of the contract's file, `released/<source>/<version>.yml`, which is never edited: it says what
readers of the source rely on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from python_ops.lake.contracts import FOLDER, Contract, parse
from python_ops.lake.contracts.compatibility import Change, Level, changes, next_version, raised, version_order
from python_ops.lake.errors import ContractError
from python_ops.lake.files import write_whole


@dataclass(frozen=True)
class ReleaseCheck:
    """How a contract differs from its last release.

    Attributes:
        version: In the contract; None when there is none any more, or it is not valid.
        released: Last released version; None when there is none.
        changes: Since then.
        faults: Why the contract is refused; empty if it is good.
    """

    source: str
    version: str | None
    released: str | None
    changes: tuple[Change, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether the contract is good and its version is not released yet."""
        return not self.faults and self.version != self.released


def registered(folder: Path = FOLDER) -> list[str]:
    """Sources of a registry that have a contract or a release, sorted."""
    known = {path.stem for path in folder.glob("*.yml")}
    return sorted(known | {path.name for path in (folder / "released").glob("*") if path.is_dir()})


def versions(source: str, folder: Path = FOLDER) -> list[str]:
    """Released versions, the oldest first.

    Raises:
        ContractError: a file there is not named like a version.
    """
    names = [path.stem for path in (folder / "released" / source).glob("*.yml")]
    if strange := [name for name in names if not re.fullmatch(r"[0-9]+[.][0-9]+[.][0-9]+", name)]:
        where = folder / "released" / source / f"{strange[0]}.yml"
        raise ContractError(f"{where} is not named <version>.yml, such as 1.0.0.yml. Move it away.")
    return sorted(names, key=version_order)


def released(source: str, version: str, folder: Path = FOLDER) -> Contract:
    """A released contract.

    Raises:
        ContractError: there is none, or its file was spoilt.
    """
    path = folder / "released" / source / f"{version}.yml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        known = ", ".join(versions(source, folder)) or "none"
        raise ContractError(f"Version {version} of {source} is not released. Released: {known}.") from exc
    contract = parse(text, path.with_name(f"{source}.yml"))
    if contract.version != version:
        raise ContractError(f"{path} holds version {contract.version}. A release is not edited: restore it from git.")
    return contract


def check(source: str, folder: Path = FOLDER) -> ReleaseCheck:
    """Compares a contract with its last release. What is wrong is in the verdict, not raised."""
    last: str | None = None
    try:
        last = next(reversed(versions(source, folder)), None)
        before = released(source, last, folder) if last else None
        contract = parse((folder / f"{source}.yml").read_text(encoding="utf-8"), folder / f"{source}.yml")
    except FileNotFoundError:
        fault = (
            f"released as {last}, and {source}.yml is gone. Put it back; to retire the source, delete "
            f"released/{source} too"
        )
        return ReleaseCheck(source, None, last, faults=(fault,))
    except ContractError as exc:
        return ReleaseCheck(source, None, last, faults=(str(exc),))
    if before is None:
        return ReleaseCheck(source, contract.version, None)
    found = tuple(changes(before, contract))
    return ReleaseCheck(source, contract.version, last, found, tuple(_faults(before, contract, found)))


def release(source: str, folder: Path = FOLDER) -> Path | None:
    """Keeps the contract as it is under its version.

    Returns:
        The new file; None when this version is released already.

    Raises:
        ContractError: the contract is refused by `check`.
    """
    verdict = check(source, folder)
    if verdict.faults:
        raise ContractError(f"{source} is not released: {'; '.join(verdict.faults)}.")
    if not verdict.waits:
        return None
    path = folder / "released" / source / f"{verdict.version}.yml"
    return write_whole(path, (folder / f"{source}.yml").read_bytes())


def _faults(before: Contract, contract: Contract, found: tuple[Change, ...]) -> list[str]:
    needed = max((change.level for change in found), default=Level.NONE)
    got = raised(before.version, contract.version)
    if needed is Level.NONE:
        if version_order(contract.version) < version_order(before.version):
            return [f"version {contract.version} is lower than {before.version}, which is released"]
        return []
    if got >= needed:
        return []
    heaviest = "; ".join(f"{change.where}: {change.text}" for change in found if change.level is needed)
    return [
        f"version {contract.version} is no {needed.name.lower()} version after {before.version}, and this change needs "
        f"one: {heaviest}. Take it back, or raise the version to {next_version(before.version, needed)}"
    ]
