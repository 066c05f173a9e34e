#!/usr/bin/env bash
# Starts a Spark Connect server with the settings of profiles/profiles.yml, in the foreground. Clients set
# SPARK_REMOTE=sc://<host>:<port>. Usage: infra/spark_connect.sh [PORT]   (LAKEHOUSE_HOME as for every command)
set -euo pipefail
cd "$(dirname "$0")/.."
port=${1:-15002}
python=${PYTHON:-.venv/bin/python}
mapfile -t conf < <("$python" -c '
from python_ops.config import load_settings
from python_ops.spark import export_environment, spark_settings
settings = load_settings("local")
export_environment(settings)
for name, value in spark_settings(settings).items():
    print("--conf", f"{name}={value}", sep="\n")
')
LAKEHOUSE_HOME=$("$python" -c 'from python_ops.config import load_settings; print(load_settings("local").home_path)')
export LAKEHOUSE_HOME
SPARK_HOME=$("$python" -c 'import pyspark; print(pyspark.__path__[0])')
export SPARK_HOME PYSPARK_PYTHON="$python"
exec "$SPARK_HOME/bin/spark-submit" --class org.apache.spark.sql.connect.service.SparkConnectServer --name lakehouse \
    "${conf[@]}" --conf spark.sql.catalogImplementation=hive \
    --conf "spark.connect.grpc.binding.address=${LAKEHOUSE_CONNECT_ADDRESS:-127.0.0.1}" \
    --conf "spark.connect.grpc.binding.port=$port" spark-internal
