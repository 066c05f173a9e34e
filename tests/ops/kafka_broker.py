"""A real Kafka broker for tests: one node without ZooKeeper, from Maven jars, on ports of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewPartitions, NewTopic
from kafka.errors import KafkaError

from python_ops.lake.jars import retrieve

JARS = ("org.apache.kafka:kafka_2.13:4.1.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3")
FOLDER = Path(sys.prefix) / "kafka-4.1.1"

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.retention.check.interval.ms=1000
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
required user_lake="a \\\\"quoted\\\\" pass";
"""

LOGIN = {"user": "lake", "password": 'a "quoted" pass'}


class KafkaServer:
    """The broker. `servers` is its address; `sasl_servers` that which asks for LOGIN."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = dict(zip(("plain", "sasl", "controller"), _free_ports(3), strict=True))
        self.servers = f"127.0.0.1:{ports['plain']}"
        self.sasl_servers = f"127.0.0.1:{ports['sasl']}"
        self.properties = folder / "server.properties"
        self.properties.write_text(_PROPERTIES.format(**ports, data=folder / "data"))
        (folder / "log4j2.properties").write_text(
            "rootLogger.level=warn\nrootLogger.appenderRef.c.ref=c\n"
            "appender.c.type=Console\nappender.c.name=c\nappender.c.layout.type=PatternLayout\n"
            "appender.c.layout.pattern=%d %p %c %m%n\n"
        )

    def start(self) -> None:
        """Formats its folder and starts it; returns when it answers."""
        if not list(FOLDER.glob("kafka_2.13-*.jar")):
            FOLDER.mkdir(parents=True, exist_ok=True)
            told = retrieve(JARS, FOLDER / "[artifact]-[revision].[ext]", transitive=True)
            assert list(FOLDER.glob("kafka_2.13-*.jar")), f"the broker's jars could not be fetched: {told}"
        tool = "kafka.tools.StorageTool"
        made = self._java(tool, "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(self.properties))
        subprocess.run(made, check=True, capture_output=True, timeout=120)
        self.log = (self.folder / "broker.log").open("wb")
        self.process = subprocess.Popen(
            self._java("kafka.Kafka", str(self.properties)), stdout=self.log, stderr=self.log
        )
        until = time.monotonic() + 60
        while True:
            try:
                self.admin = KafkaAdminClient(bootstrap_servers=self.servers)
                break
            except KafkaError:
                assert self.process.poll() is None and time.monotonic() < until, self._said()
                time.sleep(0.3)
        self.producer = KafkaProducer(bootstrap_servers=self.servers, acks="all", linger_ms=5, metadata_max_age_ms=300)

    def stop(self) -> None:
        for client in (self.producer, self.admin):
            client.close()
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()

    def create(self, topic: str, partitions: int = 2) -> None:
        self.admin.create_topics([NewTopic(topic, partitions, 1)])

    def add_partitions(self, topic: str, partitions: int) -> None:
        self.admin.create_partitions({topic: NewPartitions(partitions)})

    def send(self, topic: str, records: Iterable[tuple[Any, Any]], partition: int | None = None) -> None:
        """Sends (key, value) pairs; bytes as they are, None as null, the rest as JSON. Returns when all are written."""
        sent = [
            self.producer.send(topic, key=_bytes(key), value=_bytes(value), partition=partition)
            for key, value in records
        ]
        for future in sent:
            future.get(timeout=30)

    def _java(self, *arguments: str) -> list[str]:
        java = (
            shutil.which("java", path=str(Path(os.environ["JAVA_HOME"], "bin")))
            if "JAVA_HOME" in os.environ
            else "java"
        )
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        return [java or "java", "-Xmx320m", logging, "-cp", f"{FOLDER}/*", *arguments]

    def _said(self) -> str:
        return (self.folder / "broker.log").read_text(errors="replace")[-2000:]


def _bytes(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return json.dumps(value).encode()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
