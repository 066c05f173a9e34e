"""Dataclasses from the data that `dataclasses.asdict` made of them and a file kept."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
_adapters: dict[type, TypeAdapter[Any]] = {}


def made(kind: type[T], data: Any) -> T:
    """A dataclass, with those that are in it. What it does not know is left out.

    Raises:
        ValueError: the data is not of this kind; the text names each field that is missing or wrong.
    """
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    try:
        found: T = _adapters[kind].validate_python(data)
    except ValidationError as exc:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in exc.errors())
        raise ValueError("; ".join(faults)) from exc
    return found
