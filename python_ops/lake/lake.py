"""One environment, as a command opens it: where everything lies, and the parts that its jobs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_ops.lake.artifacts import Manifest, RunResults, load_manifest, load_run_results
from python_ops.lake.buckets import on_bucket
from python_ops.lake.config import Settings
from python_ops.lake.contracts import Contracts
from python_ops.lake.ledger import Ledger
from python_ops.lake.local_copy import fetch_artifacts
from python_ops.lake.metrics import Metric, read
from python_ops.lake.secrets import Secrets
from python_ops.lake.secrets.providers import AwsProvider, EnvironmentProvider, FileProvider
from python_ops.lake.spark import session
from python_ops.lake.state import DynamoStore, FileStore, Store
from python_ops.lake.views import restore

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from python_ops.lake.delta import TableLog


class Lake:
    """Built once per command and handed to every job. It makes a part when it is first asked for, and decides nothing.

    Args:
        settings: The environment.
        landing: Folder of the delivered files, `<landing>/<source>/<file>`; the home's when None.
        state: Folder of ledgers and records; the home's when None, one per schema prefix, as the tables are.
        artifacts: Folder of dbt's artifacts; the home's when None, one per schema prefix.
        contracts: Of the sources; those of this package when None.
        secrets: Credentials; those of the environment when None.
        start: Gives the Spark session; that of the environment when None.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        landing: Path | None = None,
        state: Path | None = None,
        artifacts: Path | None = None,
        contracts: Contracts | None = None,
        secrets: Secrets | None = None,
        start: Callable[[], SparkSession] | None = None,
    ) -> None:
        self.settings = settings
        self.contracts = contracts or Contracts()
        self._landing, self._state, self._artifacts = landing, state, artifacts
        self._secrets, self._start = secrets, start

    def with_settings(self, **changed: Any) -> Lake:
        """The same with other settings; parts that were given stay."""
        settings = self.settings.model_copy(update=changed)
        folders = {"landing": self._landing, "state": self._state, "artifacts": self._artifacts}
        return Lake(settings, **folders, contracts=self.contracts, secrets=self._secrets, start=self._start)

    @property
    def home(self) -> Path:
        """The home: a folder, or a prefix in a bucket."""
        return self.settings.place

    @property
    def workspace(self) -> Path:
        """Folder of this machine for logs and for what can be made anew: the home, unless that is in a bucket."""
        return self.settings.workspace_path

    @property
    def landing(self) -> Path:
        """Folder of the delivered files."""
        return self._landing or self.home / "landing"

    @property
    def state(self) -> Path:
        """Folder of ledgers and records."""
        return self._state or self.home / "state" / self.settings.schema_prefix

    @cached_property
    def artifacts(self) -> Path:
        """Folder of dbt's artifacts, on this machine; those of a home in a bucket are fetched when first asked for."""
        if self._artifacts:
            return self._artifacts
        folder = self.workspace / "target" / self.settings.schema_prefix
        if on_bucket(self.home):
            fetch_artifacts(self.kept_artifacts, folder)
        return folder

    @property
    def kept_artifacts(self) -> Path:
        """Where the home keeps them."""
        return self.home / "target" / self.settings.schema_prefix

    def schema_name(self, layer: str) -> str:
        """Name of a layer's schema."""
        return self.settings.schema_name(layer)

    def table_path(self, layer: str, table: str) -> Path:
        """Folder of a managed Delta table."""
        return self.home / "warehouse" / f"{self.schema_name(layer)}.db" / table

    def delta_tables(self, manifest: Manifest) -> Iterator[tuple[str, str, Mapping[str, Any], str]]:
        """Every Delta table that the project has, built or not: layer, name, `meta`, and where that stands.

        Each model's that has one, and the bronze and dead-letter tables of each source.
        """
        for model in manifest.models.values():
            if model.storage:
                yield model.layer, model.storage, model.meta, model.path
        for source in self.contracts.sources:
            for layer in ("bronze", "dlq"):
                yield layer, source, manifest.source_meta.get(source, {}), f"source {source}"

    def log(self, path: Path) -> TableLog:
        """The log of the Delta table in a folder, as it is now."""
        from python_ops.lake.delta import TableLog  # it imports deltalake, and most commands open no table

        return TableLog(path)

    def ledger(self, source: str) -> Ledger:
        """The ledger of a source, as it is now."""
        return Ledger(self.state / "ingest", source)

    def figures(self) -> list[Metric]:
        """The figures of past runs, in the order of time."""
        return read(self)

    def manifest(self) -> Manifest:
        """What dbt's last command read of the project.

        Raises:
            OpsError: there is no manifest, or it is not one.
        """
        return load_manifest(self.artifacts)

    def run_results(self) -> RunResults:
        """What dbt's last command did.

        Raises:
            OpsError: there are no results, or they are not such.
        """
        return load_run_results(self.artifacts)

    @cached_property
    def store(self) -> Store:
        """Watermarks, declared generations and leases."""
        if self.settings.state_store == "dynamodb":
            return DynamoStore(self.settings.state_table, self.settings.schema_prefix)
        return FileStore(self.state / "shared")

    @cached_property
    def secrets(self) -> Secrets:
        """Credentials: AWS Secrets Manager alone; or variables, then the home's file, which a bucket never has."""
        if self._secrets:
            return self._secrets
        if self.settings.secrets == "aws":
            return Secrets([AwsProvider(self.settings.secrets_prefix)])
        if on_bucket(self.home):
            return Secrets([EnvironmentProvider()])
        return Secrets([EnvironmentProvider(), FileProvider(self.home / "secrets.json")])

    @cached_property
    def spark(self) -> SparkSession:
        """The process's Spark session, started when first asked for.

        Raises:
            ConfigError: the server is not named or refuses the token, or the home is another's.
            OpsError: Spark cannot start, or the server does not answer; the text says what to do.
        """
        running = self._start() if self._start else session(self.settings)
        if on_bucket(self.home):
            restore(self.artifacts, running)
        return running


class LakeAtRest(Lake):
    """For a command that only looks: each log, ledger and file is read once, however many of its parts ask for it."""

    def __init__(self, lake: Lake) -> None:
        self.__dict__ |= lake.__dict__  # its folders, contracts and secrets, and what was read if it is at rest
        for name in ("log", "ledger", "figures", "manifest", "run_results"):
            self.__dict__.setdefault(name, cache(getattr(super(), name)))
