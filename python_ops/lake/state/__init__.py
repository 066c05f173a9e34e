"""Small shared state: watermarks of extraction, declared generations and leases.

Each is a record that is replaced only from its last revision.

Stores with the same rules (`settings.state_store`): JSON files under the home, which is a folder of one machine or a
prefix in a bucket that several share; or a DynamoDB table. A writer gives the revision that it read; if another has
written since, the store refuses.
"""

from __future__ import annotations

from python_ops.lake.state.dynamodb import DynamoStore
from python_ops.lake.state.files import FileStore
from python_ops.lake.state.store import Record, Store

__all__ = ["DynamoStore", "FileStore", "Record", "Store"]
