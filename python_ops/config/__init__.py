"""Settings of one environment, parsed once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """What an environment is made of. Each field is the variable LAKEHOUSE_<NAME>.

    Attributes:
        home: Folder under which everything is written (relative to the project's root).
        schema_prefix: Schemas become `<prefix>_silver` and so on; letters, digits, underscores.
        target: Target of profiles/profiles.yml.
    """

    model_config = SettingsConfigDict(env_prefix="LAKEHOUSE_", frozen=True, extra="ignore")

    home: Path = Path(".lake")
    schema_prefix: str = Field(default="", pattern=r"^[a-z0-9_]*$")
    target: str = "local"

    @cached_property
    def home_path(self) -> Path:
        """The home as an absolute path."""
        return self.home if self.home.is_absolute() else PROJECT_ROOT / self.home

    @cached_property
    def landing(self) -> Path:
        """Folder of the delivered files: `<landing>/<source>/<file>`."""
        return self.home_path / "landing"

    @cached_property
    def state(self) -> Path:
        """Folder of ledgers and manifests; one per schema prefix, as the tables are."""
        return self.home_path / "state" / self.schema_prefix

    def schema_name(self, layer: str) -> str:
        """Name of a layer's schema, as macros/overrides/generate_schema_name.sql gives it."""
        return f"{self.schema_prefix}_{layer}" if self.schema_prefix else layer

    def table_path(self, layer: str, table: str) -> Path:
        """Folder of a managed Delta table."""
        return self.home_path / "warehouse" / f"{self.schema_name(layer)}.db" / table
