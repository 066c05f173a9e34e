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
