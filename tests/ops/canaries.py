"""Secrets that must turn up nowhere, and the search for them."""

from __future__ import annotations

import json
from pathlib import Path

CANARY = "canary7f3a91"  # letters and digits alone: no escaping can hide it

# Every way in which a run gets credentials: as text, as JSON, inside an address, as AWS's own variables.
PLANTED = {
    "LAKEHOUSE_SECRET_SLACK_WEBHOOK_URL": f"http://127.0.0.1:9/services/{CANARY}",
    "LAKEHOUSE_SECRET_SLACK_BOT_TOKEN": f"xoxb-{CANARY}",
    **{
        f"LAKEHOUSE_SECRET_{name.upper()}": json.dumps(
            {"host": "127.0.0.1", "port": 9, "dbname": "x", "user": "ann", "password": CANARY, "account": "x"}
        )
        for name in ("postgres", "redshift", "snowflake")
    },
    "LAKEHOUSE_SECRET_PUBLISH_PII_KEY": CANARY * 3,
    "LAKEHOUSE_LINEAGE_URL": f"http://ann:{CANARY}@127.0.0.1:9",
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SESSION_TOKEN": CANARY,
    "DATABASE_URL": f"postgresql://ann:{CANARY}@127.0.0.1:9/x",
}


def found_in(*folders: Path) -> list[str]:
    """Files below the folders that hold the canary, compressed ones aside."""
    wanted = CANARY.encode()
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted(str(path) for path in files if wanted in path.read_bytes())
