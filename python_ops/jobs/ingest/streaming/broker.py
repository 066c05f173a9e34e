"""A Kafka cluster as the settings describe it: options for Spark, and which offsets a topic has now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from python_ops.lake.errors import ConfigError, OpsError, missing_extra
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from kafka import KafkaConsumer

TIMEOUT_MS = 20_000
IAM = "AWS_MSK_IAM"
_LOGIN = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_MSK = "software.amazon.msk.auth.iam"  # of the jar aws-msk-iam-auth; its README has the options

T = TypeVar("T")


@dataclass(frozen=True)
class Held:
    """Offsets that a partition of a topic holds: from `start` (which retention moves) to `end`, not included."""

    start: int
    end: int


class Broker:
    """The cluster of an environment.

    Raises:
        ConfigError: no servers are set, the secret is missing, or IAM is asked for without TLS.
    """

    def __init__(self, lake: Lake) -> None:
        if not lake.settings.kafka_servers:
            raise ConfigError(
                f"No Kafka servers are set for environment {lake.settings.target}. Set "
                f"LAKEHOUSE_KAFKA_SERVERS=host:port, or kafka_servers in "
                f"python_ops/lake/config/{lake.settings.target}.yml."
            )
        self.servers, self.protocol = lake.settings.kafka_servers, lake.settings.kafka_protocol
        self.mechanism = lake.settings.kafka_mechanism if self.protocol.startswith("SASL") else ""
        self.user = self.password = ""
        if self.mechanism == IAM:
            if self.protocol != "SASL_SSL":
                raise ConfigError(f"kafka_mechanism {IAM} needs kafka_protocol SASL_SSL, and it is {self.protocol}.")
        elif lake.settings.kafka_has_login:
            login = lake.secrets.get("kafka").json()
            if missing := {"user", "password"} - login.keys():
                raise ConfigError(f"Secret kafka lacks {', '.join(sorted(missing))}.")
            self.user, self.password = str(login["user"]), str(login["password"])

    def spark_options(self) -> dict[str, str]:
        """Options of Spark's Kafka source. Records of aborted transactions are not read."""
        options = {
            "kafka.bootstrap.servers": self.servers,
            "kafka.security.protocol": self.protocol,
            "kafka.isolation.level": "read_committed",
        }
        if self.mechanism:
            options["kafka.sasl.mechanism"] = self.mechanism
        if self.mechanism == IAM:
            options["kafka.sasl.jaas.config"] = f"{_MSK}.IAMLoginModule required;"
            options["kafka.sasl.client.callback.handler.class"] = f"{_MSK}.IAMClientCallbackHandler"
        elif self.mechanism:
            options["kafka.sasl.jaas.config"] = (
                f"{_LOGIN[self.mechanism]} required "
                f'username="{_quoted(self.user)}" password="{_quoted(self.password)}";'
            )
        return options

    def offsets(self, topic: str) -> dict[int, Held]:
        """What each partition of the topic holds now.

        Raises:
            OpsError: the cluster does not answer, or there is no such topic.
        """
        from kafka import TopicPartition

        def ask(client: KafkaConsumer) -> dict[int, Held]:
            numbers = client.partitions_for_topic(topic)
            if not numbers:
                raise OpsError(
                    f"There is no topic {topic} on {self.servers}. Create it, or name another in the "
                    "setting kafka_topics."
                )
            places = {number: TopicPartition(topic, number) for number in sorted(numbers)}
            starts = client.beginning_offsets(list(places.values()))
            ends = client.end_offsets(list(places.values()))
            return {number: Held(starts[place], ends[place]) for number, place in places.items()}

        return self._with_client(ask)

    def lacking(self, topics: Iterable[str]) -> set[str]:
        """Those of the topics that do not exist.

        Raises:
            OpsError: the cluster does not answer.
        """
        return set(topics) - self._with_client(lambda client: set(client.topics()))

    def _with_client(self, ask: Callable[[KafkaConsumer], T]) -> T:
        try:
            from kafka import KafkaConsumer
            from kafka.errors import KafkaError
        except ImportError as exc:
            raise missing_extra("kafka-python", "kafka") from exc
        options: dict[str, Any] = {"security_protocol": self.protocol, "isolation_level": "read_committed"}
        if self.mechanism:
            options["sasl_mechanism"] = self.mechanism
        if self.user:
            options |= {"sasl_plain_username": self.user, "sasl_plain_password": self.password}
        try:
            client = KafkaConsumer(
                bootstrap_servers=self.servers.split(","), bootstrap_timeout_ms=TIMEOUT_MS,
                request_timeout_ms=TIMEOUT_MS, session_timeout_ms=TIMEOUT_MS // 2, **options,
            )  # fmt: skip
            try:
                return ask(client)
            finally:
                client.close()
        except (KafkaError, OSError) as exc:
            raise OpsError(
                f"Kafka at {self.servers} did not answer ({type(exc).__name__}). Check that it runs and that "
                "the settings kafka_servers and kafka_protocol, and the secret kafka if it asks for one, are right."
            ) from exc


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
