"""Where alerts go: the console, a Slack channel, an SNS topic. Each takes one message per run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from python_ops.lake import aws
from python_ops.lake.errors import ConfigError, missing_extra
from python_ops.lake.http import retry_after
from python_ops.lake.lake import Lake
from python_ops.watch.alerts.message import Message, escaped

if TYPE_CHECKING:
    import requests
    from mypy_boto3_sns import SNSClient

_SLACK_REFUSES = frozenset(
    {"invalid_blocks", "invalid_blocks_format", "invalid_arguments", "msg_too_long", "msg_blocks_too_long", "no_text"}
)
_SLACK_GONE = frozenset({"message_not_found", "thread_not_found", "cant_update_message", "edit_window_closed"})
_SNS_REFUSES = frozenset({"InvalidParameter", "InvalidParameterValue", "ValidationError", "ParamValidationError"})
_ARN_PARTS = 6  # arn:aws:sns:<region>:<account>:<topic>


class Undelivered(Exception):
    """A target did not take a message; `str` says why, without addresses or values."""


class Refused(Undelivered):
    """A target refuses this message for good; it may accept later ones."""


class AlertTarget(Protocol):
    """A place that takes messages."""

    name: str

    def send(self, payload: Any, seconds: float, thread: str) -> str:
        """Delivers a payload within `seconds`.

        Returns:
            The conversation that the next payload belongs to; empty where the target has none, or it has ended.

        Raises:
            Undelivered: it was not taken now.
            Refused: it never will be.
        """

    def payload(self, message: Message) -> Any:
        """The message as JSON values: what is kept when it cannot be delivered now."""


class Console:
    """Standard output of the command."""

    name = "console"

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def send(self, payload: Any, seconds: float, thread: str) -> str:
        self.say(payload)
        return ""

    def payload(self, message: Message) -> str:
        return message.text()


class _ConversationGone(Undelivered):
    """The message that begins the conversation is gone."""


class Slack:
    """A Slack app's channel, where later messages go into the first one's thread; or a webhook, without threads."""

    name = "slack"

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def payload(self, message: Message) -> dict[str, Any]:
        return {
            "text": escaped(message.title), "blocks": message.blocks(),
            "opens": message.opens, "closes": not message.breaches,
        }  # fmt: skip

    def send(self, payload: Any, seconds: float, thread: str) -> str:
        """Posts a payload; waits as long as a 429 asks, if that is within `seconds`."""
        secrets, end = self.lake.secrets, time.monotonic() + seconds
        message = {"text": payload["text"], "blocks": payload["blocks"]}
        if not self.lake.settings.alerts_channel:
            self._post(secrets.get("slack_webhook_url").reveal(), message, {}, end)
            return ""
        head = {"Authorization": f"Bearer {secrets.get('slack_bot_token').reveal()}"}
        message["channel"] = self.lake.settings.alerts_channel
        if payload["opens"] or not thread:
            told = self._call("chat.postMessage", message, head, end)
            return "" if payload["closes"] else f"{told['channel']} {told['ts']}"
        channel, at = thread.split()
        try:
            if payload["closes"]:  # before the reply: it may be repeated, a reply must not be
                self._call("chat.update", {**message, "channel": channel, "ts": at}, head, end)
            self._call("chat.postMessage", {**message, "channel": channel, "thread_ts": at}, head, end)
        except _ConversationGone:  # somebody deleted its first message: said anew
            return self.send({**payload, "opens": True}, end - time.monotonic(), "")
        return "" if payload["closes"] else thread

    def _call(self, method: str, body: dict[str, Any], head: dict[str, str], end: float) -> dict[str, Any]:
        answer = self._post(f"{self.lake.settings.slack_api.rstrip('/')}/{method}", body, head, end)
        try:
            told = answer.json()
        except ValueError:
            told = {}
        if not told.get("ok"):
            error = told.get("error", "no answer in JSON")
            kind = Refused if error in _SLACK_REFUSES else _ConversationGone if error in _SLACK_GONE else Undelivered
            raise kind(f"Slack refused {method} ({error})")
        return dict(told)

    def _post(self, address: str, body: dict[str, Any], head: dict[str, str], end: float) -> requests.Response:
        import requests

        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise Undelivered("Slack did not answer in time")
            try:
                answer = requests.post(address, json=body, headers=head, timeout=left)
            except requests.RequestException as exc:
                raise Undelivered(
                    f"Slack could not be reached ({type(exc).__name__})"
                ) from None  # it names the address
            if answer.status_code == 200:
                return answer
            if answer.status_code in (400, 413):
                raise Refused(f"Slack answered {answer.status_code} ({answer.text[:100]})")
            wait = _wait(answer.headers.get("Retry-After", ""))
            if answer.status_code != 429 or wait >= end - time.monotonic():
                raise Undelivered(f"Slack answered {answer.status_code}")
            time.sleep(wait)


class Sns:
    """An Amazon SNS topic: `alerts_topic`."""

    name = "sns"

    def __init__(self, lake: Lake, client: SNSClient | None = None) -> None:
        self.lake, self._client = lake, client

    def payload(self, message: Message) -> dict[str, str]:
        return {"Subject": message.title.encode("ascii", "replace").decode()[:100], "Message": message.text()}

    def send(self, payload: Any, seconds: float, thread: str) -> str:
        """Publishes a payload to the topic within `seconds`.

        Raises:
            ConfigError: `alerts_topic` is not the ARN of a topic, or boto3 is not installed.
        """
        try:
            from botocore.exceptions import BotoCoreError, ClientError
            from botocore.parsers import ResponseParserError
        except ImportError as exc:
            raise missing_extra("boto3", "aws") from exc

        arn = self.lake.settings.alerts_topic.split(":")
        if len(arn) != _ARN_PARTS:
            raise ConfigError(
                "LAKEHOUSE_ALERTS_TOPIC is not the ARN of an SNS topic. Set it, such as "
                "arn:aws:sns:eu-west-1:123456789012:alerts"
            )
        if seconds <= 0:
            raise Undelivered("SNS did not answer in time")
        limit = 0.4 * seconds  # to connect, and again to answer; the rest is for making the client
        try:
            client = self._client or aws.client("sns", arn[3], limit, limit, attempts=1)
            client.publish(TopicArn=self.lake.settings.alerts_topic, **payload)
            return ""
        except (BotoCoreError, ClientError, ResponseParserError) as exc:
            error = exc.response["Error"] if isinstance(exc, ClientError) else {"Code": type(exc).__name__}
            is_message = error["Code"] in _SNS_REFUSES and "TopicArn" not in error.get("Message", "")
            raise (Refused if is_message else Undelivered)(f"SNS did not take it ({error['Code']})") from exc


def _wait(asked: str) -> float:
    """Seconds that a `Retry-After` header asks for, at least one; one where it says nothing that can be read."""
    return max(1.0, retry_after(asked) or 0.0)
