#!/usr/bin/env bash
# Installs the servers that the tests start themselves, when this machine lacks them and we may: PostgreSQL (Debian, Ubuntu).
set -euo pipefail

if compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; then
    exit 0
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "PostgreSQL's server is missing (initdb). Install it: apt-get install postgresql, as root." >&2
    exit 1
fi
echo "Installing PostgreSQL for the tests" >&2
apt-get update -qq
# The Debian package starts a cluster of its own; the tests make theirs.
install -d /etc/postgresql-common
[[ -e /etc/postgresql-common/createcluster.conf ]] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
