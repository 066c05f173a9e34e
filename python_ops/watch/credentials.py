"""Which secrets an environment needs, and where each is found."""

from __future__ import annotations

from dataclasses import dataclass

from python_ops.jobs.extract.sources import chosen
from python_ops.lake.config import Settings
from python_ops.lake.secrets import secrets_for


@dataclass(frozen=True)
class Found:
    """Where one needed secret comes from; `source` is None where nothing has it. `forms` are keys of forms.FORMS."""

    name: str
    needed_by: str
    source: str | None
    looked_in: tuple[str, ...]
    forms: tuple[str, ...] = ()


def needed(settings: Settings) -> dict[str, dict[str, str]]:
    """Names of the secrets that the environment's settings ask for; for each, what needs it, and in which form."""
    found: dict[str, dict[str, str]] = {}

    def need(name: str, by: str, form: str) -> None:
        found.setdefault(name, {})[by] = form

    for target in settings.publish:
        if target != "duckdb":
            need(target, f"publishing to {target}", f"publish.{target}")
    if "slack" in settings.alerts and settings.alerts_channel:
        need("slack_bot_token", "alerts to Slack", "text")
    elif "slack" in settings.alerts:
        need("slack_webhook_url", "alerts to Slack", "address")
    if settings.extract:
        for source in (source for source in chosen(settings.extract) if not source.url):
            need(source.secret, f"extracting {source.name}", f"extract.{source.system}")
    if settings.kafka_protocol.startswith("SASL"):
        need("kafka", "streams", "kafka")
    return found


def where_found(settings: Settings) -> list[Found]:
    """Where each needed secret comes from.

    Raises:
        ConfigError: the file of secrets may be read by others.
        OpsError: a provider did not answer.
    """
    secrets = secrets_for(settings)
    return [
        Found(
            name, "; ".join(by), secrets.source(name), tuple(place.where(name) for place in secrets.providers),
            tuple(dict.fromkeys(by.values())),
        )
        for name, by in needed(settings).items()
    ]  # fmt: skip
