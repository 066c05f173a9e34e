"""Records in a DynamoDB table, replaced by conditional writes: for several machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from python_ops.lake.aws import client, explained
from python_ops.lake.errors import ConfigError
from python_ops.lake.state.store import Record, rival

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RIGHTS = "This role needs dynamodb:GetItem, PutItem, DeleteItem and Scan there."


class DynamoStore:
    """A table with the string key `record`; `expires_at` is its time-to-live attribute.

    Args:
        table: Name of the table; it is never made here.
        prefix: Schema prefix: keeps environments that share a table apart.
    """

    def __init__(self, table: str, prefix: str = "") -> None:
        self.table, self.prefix = table, prefix
        self.place = f"dynamodb:{table}/{prefix}"

    def get(self, kind: str, name: str) -> Record | None:
        """A record and its revision.

        Raises:
            ConfigError: there is no such table.
            OpsError: DynamoDB did not answer, or refuses this role.
        """
        with self._explained():
            found = self.client.get_item(TableName=self.table, Key=self._key(kind, name), ConsistentRead=True)
        item = found.get("Item")
        return Record(json.loads(item["value"]["S"]), int(item["revision"]["N"])) if item else None

    def names(self, kind: str) -> list[str]:
        found = []
        begins = self._key(kind, "")["record"]["S"]
        with self._explained():
            for page in self.client.get_paginator("scan").paginate(
                TableName=self.table,
                ProjectionExpression="#r",
                FilterExpression="begins_with(#r, :kind)",
                ExpressionAttributeNames={"#r": "record"},
                ExpressionAttributeValues={":kind": {"S": begins}},
            ):
                found += [item["record"]["S"].removeprefix(begins) for item in page["Items"]]
        return sorted(found)

    def put(
        self, kind: str, name: str, value: Mapping[str, Any], revision: int, expires_at: int | None = None
    ) -> Record:
        item: dict[str, Any] = {
            **self._key(kind, name),
            "value": {"S": json.dumps(dict(value))},
            "revision": {"N": str(revision + 1)},
        }
        if expires_at is not None:
            item["expires_at"] = {"N": str(expires_at)}
        with self._explained(f"{kind} {name}"):
            self.client.put_item(TableName=self.table, Item=item, **self._if_still(revision))
        return Record(value, revision + 1)

    def delete(self, kind: str, name: str, revision: int) -> None:
        with self._explained(f"{kind} {name}"):
            self.client.delete_item(TableName=self.table, Key=self._key(kind, name), **self._if_still(revision))

    def _key(self, kind: str, name: str) -> dict[str, Any]:
        return {"record": {"S": f"{self.prefix}/{kind}/{name}"}}

    @staticmethod
    def _if_still(revision: int) -> dict[str, Any]:
        if revision == 0:
            return {"ConditionExpression": "attribute_not_exists(#r)", "ExpressionAttributeNames": {"#r": "record"}}
        return {
            "ConditionExpression": "#v = :v",
            "ExpressionAttributeNames": {"#v": "revision"},
            "ExpressionAttributeValues": {":v": {"N": str(revision)}},
        }

    def _explained(self, what: str = "state") -> AbstractContextManager[None]:
        no_table = ConfigError(
            f"There is no DynamoDB table {self.table}. Make it with the string key `record` and the time-to-live "
            "attribute `expires_at`."
        )
        known = {"ConditionalCheckFailedException": rival(what), "ResourceNotFoundException": no_table}
        return explained("DynamoDB", f"{what} in {self.table}", RIGHTS, known)

    @cached_property
    def client(self) -> DynamoDBClient:
        """A client with bounded time and retries."""
        made: DynamoDBClient = client("dynamodb")
        return made
