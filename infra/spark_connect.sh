#!/usr/bin/env bash
# Starts a Spark Connect server with the settings of profiles/profiles.yml, in the foreground. Clients set
# SPARK_REMOTE=sc://localhost:<port>. Usage: infra/spark_connect.sh [PORT]   (LAKEHOUSE_HOME as for every command)
#
# Whoever may speak to it may run code as its user, so it asks for a token: SPARK_CONNECT_AUTHENTICATE_TOKEN, or that of
# <home>/connect.token, made here for this user alone. lakeops and dbt read the file.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 077
port=${1:-15002}
python=${PYTHON:-$PWD/.venv/bin/python}   # absolute: Spark starts Python workers elsewhere
mapfile -t conf < <("$python" -c '
from python_ops.lake.config import load_settings
from python_ops.lake.jars import provide
from python_ops.lake.spark import export_environment, spark_settings
settings = load_settings("local")
export_environment(settings)
provide()
for name, value in spark_settings(settings).items():
    print("--conf", f"{name}={value}", sep="\n")
')
home=$("$python" -c 'from python_ops.lake.config import load_settings; print(load_settings("local").home_path)')
export LAKEHOUSE_HOME=$home
if [ -z "${SPARK_CONNECT_AUTHENTICATE_TOKEN:-}" ]; then
    [ -s "$home/connect.token" ] || "$python" -c 'import secrets; print(secrets.token_urlsafe(32))' >"$home/connect.token"
    SPARK_CONNECT_AUTHENTICATE_TOKEN=$(<"$home/connect.token")
fi
SPARK_HOME=$("$python" -c 'import pyspark; print(pyspark.__path__[0])')
export SPARK_CONNECT_AUTHENTICATE_TOKEN SPARK_HOME PYSPARK_PYTHON="$python"
exec "$SPARK_HOME/bin/spark-submit" --class org.apache.spark.sql.connect.service.SparkConnectServer --name lakehouse \
    "${conf[@]}" --conf spark.sql.catalogImplementation=hive \
    --conf "spark.connect.grpc.binding.address=${LAKEHOUSE_CONNECT_ADDRESS:-127.0.0.1}" \
    --conf "spark.connect.grpc.binding.port=$port" spark-internal
