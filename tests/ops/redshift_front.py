"""A front that makes PostgreSQL look like Redshift to the real redshift_connector.

It drops start-up options that PostgreSQL does not know and says server version 8.0.2, as Redshift does. What stays
PostgreSQL: the SQL. Functions of Redshift that the project uses are made in the database by `SHIMS`, and a COPY from S3
becomes one from a file, which the front fetches with the credentials of its own process.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import duckdb

SHIMS = """
create function strtol(digits text, base integer) returns bigint immutable strict language sql
    as $$ select cast(cast('x' || lpad(digits, 16, '0') as bit(64)) as bigint) where base = 16 $$;
"""

_KNOWN = {b"user", b"database", b"application_name", b"client_encoding"}
_COPY = re.compile(rb"from 's3://(?P<bucket>[^/']+)/(?P<key>[^']+)' iam_role '[^']+' format as parquet")
_SSL_REQUEST, _PROTOCOL = 80877103, 196608


@contextmanager
def redshift_front(port: int) -> Iterator[int]:
    """A front of the PostgreSQL server at this port of 127.0.0.1; gives its own port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(lambda reader, writer: _serve(reader, writer, port), "127.0.0.1", 0)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    server_writer = None
    try:
        while True:
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            if struct.unpack("!i", body[:4])[0] != _SSL_REQUEST:
                break
            writer.write(b"N")
            await writer.drain()
        given = body[4:].split(b"\0")[:-2]
        options = {k: v for k, v in zip(given[::2], given[1::2], strict=True) if k in _KNOWN}
        kept = b"".join(k + b"\0" + v + b"\0" for k, v in options.items()) + b"\0"
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        server_writer.write(struct.pack("!ii", len(kept) + 8, _PROTOCOL) + kept)
        await server_writer.drain()
        ways = {asyncio.ensure_future(_up(reader, server_writer)), asyncio.ensure_future(_down(server_reader, writer))}
        _, rest = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in rest:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass  # an end is gone, or the tests are over
    finally:
        for end in (writer, server_writer):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.close()


async def _up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Message by message, because a COPY is changed."""
    while True:
        head = await reader.readexactly(5)
        body = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
        if head[:1] == b"P" and (found := _COPY.search(body)):
            path = await asyncio.to_thread(_fetched, found["bucket"].decode(), found["key"].decode())
            body = body[: found.start()] + f"from '{path}' (format csv)".encode() + body[found.end() :]
        writer.write(head[:1] + struct.pack("!i", len(body) + 4) + body)
        await writer.drain()


def _fetched(bucket: str, key: str) -> Path:
    """A file of S3 as a CSV that the server may read."""
    folder = Path(tempfile.mkdtemp(prefix="redshift-copy-"))
    folder.chmod(0o755)
    boto3.client("s3").download_file(bucket, key, str(folder / "rows.parquet"))
    duckdb.connect().execute(f"copy (from '{folder}/rows.parquet') to '{folder}/rows.csv' (format csv, header false)")
    (folder / "rows.csv").chmod(0o644)
    return folder / "rows.csv"


async def _down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Message by message, because one of them is changed."""
    while True:
        head = await reader.readexactly(5)
        body = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
        if head[:1] == b"S" and body.startswith(b"server_version\0"):
            body = b"server_version\x008.0.2\0"
        writer.write(head[:1] + struct.pack("!i", len(body) + 4) + body)
        await writer.drain()
