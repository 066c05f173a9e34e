"""Small shared state: watermarks of extraction, declared generations and leases.

Each is a record that is replaced only from its last revision.

Two stores with the same rules (`settings.state_store`): JSON files under the home for one machine, a DynamoDB table for
several. A writer gives the revision that it read; if another has written since, the store refuses.
"""

from __future__ import annotations

from python_ops.lake.state.dynamodb import DynamoStore
from python_ops.lake.state.files import FileStore
from python_ops.lake.state.store import Record, Store

__all__ = ["DynamoStore", "FileStore", "Record", "Store"]
