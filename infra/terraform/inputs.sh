#!/usr/bin/env bash
# Writes what Terraform asks lakeops: the names of the secrets that an environment's settings need, and its dashboard.
# Usage: infra/terraform/inputs.sh ENVIRONMENT > FILE     (AWS_REGION as for Terraform; reads no secret, starts no JVM)
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=${1:?Usage: infra/terraform/inputs.sh ENVIRONMENT > FILE}
export DBT_PROFILES_DIR=profiles
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Nothing is there yet: the manifest is made in a home of its own, and the settings' other addresses are not asked.
export LAKEHOUSE_HOME=$scratch LAKEHOUSE_STATE_STORE=file LAKEHOUSE_SECRETS=file
.venv/bin/dbt --quiet parse --target "$environment" --target-path "$scratch/target" --log-path "$scratch/logs" >&2
secrets=$(.venv/bin/lakeops secrets list --env "$environment" --json)
dashboard=$(.venv/bin/lakeops metrics dashboard --env "$environment" --json)
.venv/bin/python -c '
import json, sys
secrets, dashboard = (json.loads(text) for text in sys.argv[1:])
print(json.dumps({"secrets": [secret["name"] for secret in secrets], "dashboard": dashboard}, indent=1))
' "$secrets" "$dashboard"
