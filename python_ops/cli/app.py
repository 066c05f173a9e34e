"""The whole command line, for what looks at all commands."""

from __future__ import annotations

from python_ops.cli.commands import made

app = made()
