"""What things cost: a YAML file that its user edits. The code has no price."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from python_ops.lake.errors import ConfigError, first_line

DEFAULT = Path(__file__).parent / "prices.yml"

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Storage(_Part):
    """Per GB (10^9 bytes) and month."""

    gb_month: Amount
    snapshots_gb_month: Amount


class Requests(_Part):
    """Per 1000 requests; writes are PUT, COPY, POST and LIST, reads are GET."""

    writes_per_1000: Amount
    reads_per_1000: Amount


class Compute(_Part):
    """Spark while a run runs; `vcpus` and `memory_gb` are the size of the job."""

    vcpu_hour: Amount
    gb_hour: Amount
    vcpus: Amount
    memory_gb: Amount

    @property
    def hour(self) -> float:
        """Of the whole job."""
        return self.vcpus * self.vcpu_hour + self.memory_gb * self.gb_hour


class WarehouseLoad(_Part):
    """A warehouse while a load runs: `units` of `unit_hour` each, for `minimum_seconds` at least."""

    unit_hour: Amount
    units: Amount
    minimum_seconds: Amount

    @property
    def hour(self) -> float:
        """Of all units."""
        return self.units * self.unit_hour


class Prices(_Part):
    """The file."""

    currency: str
    region: str
    runs_per_month: Amount
    storage: Storage
    requests: Requests
    compute: Compute
    warehouses: dict[str, WarehouseLoad]


def load(path: Path = DEFAULT) -> Prices:
    """Reads a price file.

    Raises:
        ConfigError: it is not there, is not YAML, or lacks, misnames or misspells something; the text says where.
    """
    fix = f"Compare it with {DEFAULT}, which has every price with its unit."
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ConfigError(f"There is no price file {path}. Copy {DEFAULT} there and write your prices.") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"The price file {path} cannot be read: {first_line(exc)}.") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"The price file {path} is not YAML{where}. {fix}") from exc
    try:
        return Prices.model_validate(given)
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the whole file'}: {fault['msg']}" for fault in exc.errors()
        )
        raise ConfigError(f"The price file {path} does not fit. {faults}. {fix}") from exc
