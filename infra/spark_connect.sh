#!/usr/bin/env bash
# Starts a Spark Connect server with the settings of profiles/profiles.yml, in the foreground. Clients set
# SPARK_REMOTE=sc://localhost:<port>. LAKEHOUSE_HOME as for every command.
#
#   infra/spark_connect.sh [PORT] [--master URL] [--conf NAME=VALUE]…
#
#   PORT      15002 when not given; LAKEHOUSE_CONNECT_ADDRESS says on which address (127.0.0.1)
#   --master  a cluster: spark://host:7077, yarn, k8s://…; this machine's cores when not given. Its executors call the
#             driver at LAKEHOUSE_DRIVER_HOST (this machine's name), and read and write the home at the same place
#   --conf    a setting of Spark over those of the profile, such as spark.executor.memory=4g
#
# Whoever may speak to it may run code as its user, so it asks for a token: SPARK_CONNECT_AUTHENTICATE_TOKEN, or that of
# <home>/connect.token, made here for this user alone. lakeops and dbt read the file.
set -euo pipefail
usage() {
    echo "infra/spark_connect.sh: $1. Usage: infra/spark_connect.sh [PORT] [--master URL] [--conf NAME=VALUE]…" >&2
    exit 2
}
port=15002 master='' more=()
while [ $# -gt 0 ]; do
    case $1 in
    --master) [ -n "${2:-}" ] || usage "--master needs an address" && master=$2 && shift 2 ;;
    --conf) [[ "${2:-}" == *=* ]] || usage "--conf needs NAME=VALUE" && more+=(--conf "$2") && shift 2 ;;
    *) [[ $1 =~ ^[0-9]+$ ]] || usage "$1 is neither a port nor an option" && port=$1 && shift ;;
    esac
done
cd "$(dirname "$0")/.."
umask 077
python=${PYTHON:-$PWD/.venv/bin/python}   # absolute: Spark starts Python workers elsewhere
unset SPARK_REMOTE                        # a client's: with it, spark-submit refuses a master
read_settings=$("$python" -c '
from python_ops.lake.config import load_settings
from python_ops.lake.jars import provide
from python_ops.lake.spark import check_needs, export_environment, spark_settings
settings = load_settings("local")
check_needs(settings)
export_environment(settings)
provide()
print(settings.place, settings.workspace_path, sep="\n")
for name, value in spark_settings(settings).items():
    print("--conf", f"{name}={value}", sep="\n")
')
mapfile -t conf <<<"$read_settings"
export LAKEHOUSE_HOME=${conf[0]}
workspace=${conf[1]}
conf=("${conf[@]:2}")
if [ -n "$master" ]; then
    driver=${LAKEHOUSE_DRIVER_HOST:-$(hostname -f)}
    conf+=(--conf "spark.master=$master" --conf "spark.driver.host=$driver" --conf "spark.driver.bindAddress=$driver"
        --conf "spark.executor.extraJavaOptions=-Duser.timezone=UTC -XX:-DontCompileHugeMethods")
fi
if [ -z "${SPARK_CONNECT_AUTHENTICATE_TOKEN:-}" ]; then
    [ -s "$workspace/connect.token" ] || "$python" -c 'import secrets; print(secrets.token_urlsafe(32))' >"$workspace/connect.token"
    SPARK_CONNECT_AUTHENTICATE_TOKEN=$(<"$workspace/connect.token")
fi
SPARK_HOME=$("$python" -c 'import pyspark; print(pyspark.__path__[0])')
export SPARK_CONNECT_AUTHENTICATE_TOKEN SPARK_HOME PYSPARK_PYTHON="$python"
exec "$SPARK_HOME/bin/spark-submit" --class org.apache.spark.sql.connect.service.SparkConnectServer --name lakehouse \
    "${conf[@]}" --conf spark.sql.catalogImplementation=hive \
    --conf "spark.connect.grpc.binding.address=${LAKEHOUSE_CONNECT_ADDRESS:-127.0.0.1}" \
    --conf "spark.connect.grpc.binding.port=$port" "${more[@]}" spark-internal
