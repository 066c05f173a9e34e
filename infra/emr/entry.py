"""The driver program of a job: `lakeops ARGUMENTS` on the Spark that runs it.

`prod` works on a Spark Connect server, on EMR as everywhere. Here the server is a plugin of this driver, on a port of
loopback and with a token of its own; lakeops is a process beside it, from the archive `lakehouse` that the job carries.
Run it with `spark-submit --archives FILE#lakehouse`; it exits as lakeops does.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

_SPARKS_OWN = ("MASTER", "PYSPARK_", "SPARK_")  # variables of the driver, with which its client would be a driver too


def main(arguments: list[str]) -> int:
    """Runs lakeops; returns its exit code."""
    from pyspark import SparkFiles
    from pyspark.sql import SparkSession

    # EMR Serverless unpacks archives where the driver starts; Spark itself, in its own folder.
    place = Path("lakehouse").resolve()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_urlsafe(32)
    builder = SparkSession.builder.enableHiveSupport()
    for name, value in {
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.connect.authenticate.token": token,
    }.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    if not place.is_dir():
        place = Path(SparkFiles.getRootDirectory()) / "lakehouse"
    project, site = place / "project", place / "site"
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_SPARKS_OWN)}
    paths = [project, project / "packages" / "dbt_spark_sessions" / "src", site]
    ours |= {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "SPARK_REMOTE": f"sc://localhost:{port}",
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": token,
    }
    try:
        return subprocess.run([sys.executable, "-m", "python_ops", *arguments], cwd=project, env=ours).returncode
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
