"""Which secrets an environment needs, and where each is found."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from python_ops.jobs.extract.sources import chosen
from python_ops.jobs.publish.personal import KEY
from python_ops.lake.erasure import SECRET, suppressed
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.secrets import Secrets
from python_ops.lake.secrets.forms import faults


@dataclass(frozen=True)
class Found:
    """Where one needed secret comes from; `source` is None where nothing has it. `forms` are keys of forms.FORMS."""

    name: str
    needed_by: str
    source: str | None
    looked_in: tuple[str, ...]
    forms: tuple[str, ...] = ()


def needed(lake: Lake) -> dict[str, dict[str, str]]:
    """Names of the secrets that the environment's settings, and the people who were erased from it, ask for; for each,
    what needs it, and in which form.
    """
    found: dict[str, dict[str, str]] = {}

    def need(name: str, by: str, form: str) -> None:
        found.setdefault(name, {})[by] = form

    for target in lake.settings.publish:
        if target != "duckdb":
            need(target, f"publishing to {target}", f"publish.{target}")
        if lake.settings.pii_policy(target) == "hash":
            need(KEY, f"hashes of personal columns in {target}", "key")
    if "slack" in lake.settings.alerts and lake.settings.alerts_channel:
        need("slack_bot_token", "alerts to Slack", "text")
    elif "slack" in lake.settings.alerts:
        need("slack_webhook_url", "alerts to Slack", "address")
    if lake.settings.extract:
        for source in (source for source in chosen(lake.settings.extract) if not source.url):
            need(source.secret, f"extracting {source.name}", f"extract.{source.system}")
    if lake.settings.kafka_has_login:
        need("kafka", "streams", "kafka")
    with suppress(OpsError):  # a state that does not answer is a fault of its own, and hides no other secret
        if suppressed(lake):
            need(SECRET, "keeping out people who were erased", "erasure")
    return found


def where_found(lake: Lake) -> list[Found]:
    """Where each needed secret comes from.

    Raises:
        ConfigError: the file of secrets may be read by others.
        OpsError: a provider did not answer.
    """
    secrets = lake.secrets
    return [
        Found(
            name, "; ".join(by), secrets.source(name), tuple(place.where(name) for place in secrets.providers),
            tuple(dict.fromkeys(by.values())),
        )
        for name, by in needed(lake).items()
    ]  # fmt: skip


def faults_of(secrets: Secrets, asked: Found) -> list[str]:
    """What is wrong with a needed secret: it is missing, or not of a form that it is needed in. Never a value."""
    try:
        secret = secrets.get(asked.name)
    except ConfigError as exc:
        return [str(exc)]
    return list(dict.fromkeys(fault for form in asked.forms for fault in faults(secret, form)))
