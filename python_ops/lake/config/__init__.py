"""Settings of one environment, parsed once: <environment>.yml of this folder, then LAKEHOUSE_* variables over it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from python_ops.lake.buckets import bucket_path, on_bucket
from python_ops.lake.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(__file__).parent

Warehouse = Literal["duckdb", "postgres", "redshift", "snowflake"]


class Settings(BaseSettings):
    """The settings of an environment. The variable LAKEHOUSE_<NAME> sets a field; lists are JSON.

    Attributes:
        home: Folder under which everything is written (relative to the project's root), or `s3://bucket/prefix`.
        workspace: Folder of this machine for what each machine makes anew, where the home is in a bucket: logs, Spark's
            own metastore, dbt's artifacts while a command runs. `target/homes/<bucket>/<prefix>` when empty.
        metastore: Where Spark keeps the names of tables. Empty: Derby's files on this machine, for one process at a
            time; `thrift://host:9083`: a Hive metastore; `glue`: AWS Glue, for EMR's Spark alone.
        schema_prefix: Schemas become `<prefix>_silver` and so on; letters, digits, underscores.
        target: The environment, which is also the target of profiles/profiles.yml.
        umask: Rights that others do not get on what is written, octal: 077 all, 027 leaves reading to the group.
        demo: Whether `lakeops demo` may deliver its invented data here.
        secrets: Where credentials come from: `aws`, AWS Secrets Manager alone; `file`, a LAKEHOUSE_SECRET_* variable,
            or else the file `<home>/secrets.json`.
        secrets_prefix: Names in AWS Secrets Manager begin with this.
        state_store: Where watermarks, leases and generations are: JSON files under the home, or a DynamoDB table.
        state_table: Name of the DynamoDB table.
        lease_seconds: Time after which the lease of a holder that does not renew it is taken over.
        lineage: Where OpenLineage events go: a file under the home, or HTTP.
        lineage_url: Base address of the receiver (Marquez), for HTTP.
        metrics: Where metrics go besides the local file.
        metrics_namespace: CloudWatch namespace.
        metrics_send: Figures that CloudWatch gets and bills, as patterns of `<kind>.<name>.<subject>`.
        alerts: Where SLA alerts go.
        alerts_topic: ARN of the SNS topic.
        quality: Whether a run judges its batches at its end; needs the extra `quality`.
        alerts_channel: Slack channel of the app whose token is the secret `slack_bot_token`: what follows a message is
            said in its thread, and the message says when all is well. Without it, the webhook `slack_webhook_url`.
        slack_api: Base address of Slack's API.
        runbooks_url: Where the project's files can be read in a browser; alerts link their runbook there.
        report_url: Where the environment's report.html can be read; alerts link it.
        extract: Sources that each run extracts, of those in python_ops/jobs/extract/sources.yml.
        publish: Warehouses that this environment publishes to, of those that a model's `publish_to` names.
        publish_pii: What a warehouse gets of personal columns: `clear`, `hash` (keyed by the secret `publish_pii_key`)
            or `drop`. Not named: `clear` in the DuckDB file, which has the lake's own readers, `hash` in the others.
        access: Who has each role of python_ops/jobs/catalog/roles.yml: ARNs of IAM roles, users or groups, by role.
        catalog: Where each green run registers the lake's tables for other engines.
        kafka_servers: Brokers to begin with, `host:port,host:port`; streams need it.
        kafka_protocol: How to speak to them; with SASL the secret `kafka` has user and password.
        kafka_mechanism: How SASL checks them; `AWS_MSK_IAM` takes the role of the process and no secret.
        kafka_topics: Topic of each source that can be streamed.
        kafka_avro: Sources whose records are Avro, written with the contract's schema; the others' are JSON.
        recovery: Where snapshots go: a folder or `s3://bucket/prefix`, best in another region; `<home>/snapshots`
            when empty.
        recovery_region: Region of that bucket; the environment's own when empty.
    """

    model_config = SettingsConfigDict(env_prefix="LAKEHOUSE_", frozen=True, extra="ignore")

    home: Path = Path(".lake")
    workspace: str = ""
    metastore: str = Field(
        default="", pattern=r"^(glue|thrift://[^\s/,]+:[0-9]{1,5}(,thrift://[^\s/,]+:[0-9]{1,5})*)?$"
    )
    schema_prefix: str = Field(default="", pattern=r"^[a-z0-9_]*$")
    target: str = "local"
    umask: str = Field(default="077", pattern=r"^0?[0-7]{3}$")
    demo: bool = False
    secrets: Literal["file", "aws"] = "file"
    secrets_prefix: str = "lakehouse/"
    state_store: Literal["file", "dynamodb"] = "file"
    state_table: str = "lakehouse-state"
    lease_seconds: float = Field(default=60.0, ge=0.3, le=3600)
    lineage: Literal["file", "http"] = "file"
    lineage_url: str = ""
    metrics: Literal["file", "cloudwatch"] = "file"
    metrics_namespace: str = "Lakehouse"
    metrics_send: tuple[str, ...] = ("job.*", "source.*", "table.rows.*gold.*", "table.publish_lag_seconds.*")
    alerts: tuple[Literal["console", "slack", "sns"], ...] = ("console",)
    alerts_topic: str = ""
    quality: bool = False
    alerts_channel: str = ""
    slack_api: str = "https://slack.com/api"
    runbooks_url: str = ""
    report_url: str = ""
    extract: tuple[str, ...] = ()
    publish: tuple[Warehouse, ...] = ("duckdb",)
    publish_pii: Mapping[Warehouse, Literal["clear", "hash", "drop"]] = {}
    catalog: Literal["none", "glue"] = "none"
    access: Mapping[str, tuple[Annotated[str, Field(pattern=r"^arn:[a-z-]+:[a-z]+:\S+$")], ...]] = {}
    kafka_servers: str = Field(default="", pattern=r"^([A-Za-z0-9._-]+:[0-9]{1,5}(,[A-Za-z0-9._-]+:[0-9]{1,5})*)?$")
    kafka_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "AWS_MSK_IAM"] = "SCRAM-SHA-512"
    kafka_topics: Mapping[str, Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]] = {
        "crm_accounts": "shopdb.public.accounts",
        "crm_contacts": "shopdb.public.contacts",
        "crm_opportunities": "shopdb.public.opportunities",
        "kafka_events": "app.events",
        "shop_order_items": "shopdb.public.order_items",
        "shop_orders": "shopdb.public.orders",
        "shop_products": "shopdb.public.products",
    }
    kafka_avro: tuple[str, ...] = ()
    recovery: str = ""
    recovery_region: str = ""

    @property
    def place(self) -> Path:
        """The home: an absolute path, or that of a prefix in a bucket.

        Raises:
            ConfigError: it is an address of another kind, or has no bucket.
        """
        if address := bucket_address(self.home):
            return bucket_path(address)
        return PROJECT_ROOT / local_path(self.home, "The home")

    @property
    def workspace_path(self) -> Path:
        """Folder of this machine for what each machine makes anew; nothing is lost with it. A home that is a folder is
        its own.
        """
        if not on_bucket(self.place):
            return self.place
        if self.workspace:
            return PROJECT_ROOT / local_path(self.workspace, "The workspace")
        return PROJECT_ROOT / "target" / "homes" / str(self.place).removeprefix("s3://")

    @property
    def kafka_has_login(self) -> bool:
        """Whether Kafka asks for a user and a password: IAM takes the role of the process."""
        return self.kafka_protocol.startswith("SASL") and self.kafka_mechanism != "AWS_MSK_IAM"

    def pii_policy(self, warehouse: str) -> str:
        """What a warehouse gets of personal columns: `clear`, `hash` or `drop`."""
        given: Mapping[str, str] = {str(name): policy for name, policy in self.publish_pii.items()}
        return given.get(warehouse, "clear" if warehouse == "duckdb" else "hash")

    def schema_name(self, layer: str) -> str:
        """Name of a layer's schema, as macros/generate_schema_name.sql gives it."""
        return f"{self.schema_prefix}_{layer}" if self.schema_prefix else layer


def local_path(given: str | Path, what: str) -> Path:
    """A path that a user gave. An address is refused, because pathlib would make a folder named `s3:` of it.

    Args:
        given: As it was given, or as pathlib took it.
        what: What it is, for the message.

    Raises:
        ConfigError: it is an address.
    """
    if is_address(given):
        given = re.sub(":/+", "://", str(given), count=1)  # pathlib has made one slash of two
        raise ConfigError(
            f"{what} must be on this machine, or mounted, and {given} is an address. Nothing was written."
        )
    return Path(given)


def bucket_address(given: str | Path) -> str | None:
    """`s3://bucket/prefix` of an address of S3, also as Hadoop writes it or pathlib makes it; None for any other."""
    found = re.fullmatch(r"s3a?:/+([a-z0-9][a-z0-9.-]+)((?:/+(?!\.\.?(?:/|$))[^/]+)*)/*", str(given))
    return f"s3://{found[1]}{re.sub('/+', '/', found[2])}" if found else None


def is_address(given: str | Path) -> bool:
    """Whether it begins with a scheme such as `s3:/`, which a path of this machine does not."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(/|$)", str(given)) is not None


def environments() -> tuple[str, ...]:
    """Names of the environments: one for each file here."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yml")))


def load_settings(environment: str) -> Settings:
    """Settings of an environment.

    Raises:
        ConfigError: there is no such environment, its file has an unknown setting, or a value is not allowed.
    """
    path = FOLDER / f"{environment}.yml"
    if environment not in environments():
        raise ConfigError(f"There is no environment {environment!r}. Known: {', '.join(environments())}.")
    given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if unknown := sorted(given.keys() - Settings.model_fields.keys()):
        raise ConfigError(f"{path} sets {', '.join(unknown)}. Known: {', '.join(sorted(Settings.model_fields))}.")
    chosen = {name: value for name, value in given.items() if f"LAKEHOUSE_{name.upper()}" not in os.environ}
    try:
        settings = Settings(**{**chosen, "target": environment})
    except SettingsError as exc:
        name = re.search(r'field "(\w+)"', str(exc))
        variable = f"LAKEHOUSE_{name[1].upper()}" if name else "A LAKEHOUSE_ variable"
        told = f'{variable} must be JSON; a list is such as ["duckdb"].'
        raise ConfigError(f"Wrong settings of environment {environment}. {told}") from exc
    except ValidationError as exc:
        faults = "; ".join(f"{_where(str(fault['loc'][0]), path)}: {fault['msg']}" for fault in exc.errors())
        raise ConfigError(f"Wrong settings of environment {environment}. {faults}.") from exc
    if not bucket_address(settings.home):
        local_path(settings.home, _where("home", path))
    return settings


def _where(name: str, path: Path) -> str:
    variable = f"LAKEHOUSE_{name.upper()}"
    return variable if variable in os.environ else f"{name} in {path.name}"
