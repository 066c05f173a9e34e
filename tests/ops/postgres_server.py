"""A PostgreSQL server of the tests' own: real binaries, a free port, a folder that is removed afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD, DATABASE = "lakehouse", "canary-postgres-password", "lakehouse"


@contextmanager
def postgres_server(*settings: str) -> Iterator[str]:
    """A running server; gives the DSN of a superuser who logs in with a password.

    Args:
        settings: More of them, such as `wal_level=logical`.

    Raises:
        RuntimeError: the binaries are missing, or the server did not start; the text holds its log.
    """
    initdb, postgres = _binary("initdb"), _binary("postgres")
    account = _account()
    home = Path(tempfile.mkdtemp(prefix="pg-"))  # not below pytest's folder, which only its owner may enter
    data, password = home / "data", home / "password"
    password.write_text(PASSWORD)
    if account:
        for path in (home, password):
            os.chown(path, account.pw_uid, account.pw_gid)
    user = account.pw_uid if account else None
    group = account.pw_gid if account else None
    process: subprocess.Popen[bytes] | None = None
    try:
        # md5: redshift_connector, which the tests point at this server, cannot do its scram.
        made = subprocess.run(
            [initdb, "-D", data, "-U", USER, "-A", "md5", f"--pwfile={password}", "-E", "UTF8", "--locale=C",
             "--no-sync"],
            user=user, group=group, extra_groups=[] if account else None, cwd=home, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")
        port = _free_port()
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [postgres, "-D", data, "-p", str(port), "-k", home, "-c", "listen_addresses=127.0.0.1",
                 "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off",
                 "-c", "shared_buffers=32MB", "-c", "max_connections=60",
                 *(word for setting in settings for word in ("-c", setting))],
                user=user, group=group, extra_groups=[] if account else None, cwd=home, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        dsn = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}"
        _create_database(dsn, process, home / "log")
        yield dsn
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # at once: nothing in it is kept
            process.wait(timeout=30)
        shutil.rmtree(home, ignore_errors=True)


def _create_database(dsn: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for the server, then makes the database."""
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            with psycopg.connect(dsn, dbname="postgres", autocommit=True, connect_timeout=5) as admin:
                admin.execute(f"create database {DATABASE}")
                return
        except psycopg.OperationalError as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {exc}\n{log.read_text()[-2000:]}") from exc
            time.sleep(0.05)


def _binary(name: str) -> str:
    """A binary of the server, which Debian keeps off the PATH; the newest."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    binary = str(found[-1]) if found else shutil.which(name)
    if binary is None:
        raise RuntimeError(
            f"{name} is neither in /usr/lib/postgresql/*/bin nor on PATH. Install PostgreSQL: run "
            "tests/install_servers.sh as root, or `apt-get install postgresql`."
        )
    return binary


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
