"""Checks whether this machine can run the lakehouse, and whether what it needs elsewhere is there. Starts no JVM but
`java -version`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from python_ops.jobs.ingest.streaming.broker import Broker
from python_ops.jobs.maintenance.versions import unreadable
from python_ops.lake import landing, refused
from python_ops.lake.errors import OpsError
from python_ops.lake.home import metastore, require, tables
from python_ops.lake.jars import FOLDER, LOCK, lacking, pinned
from python_ops.lake.lake import Lake
from python_ops.lake.lineage.sink import waiting
from python_ops.lake.spark import spark_settings
from python_ops.watch import services
from python_ops.watch.finding import Check, Outcome

GIB = 2**30
JAVA_VERSIONS = (17, 21)  # Hadoop 3.4.2, in Spark 4.1, fails on Java 25
FREE_SPACE_LEAST = 1 * GIB
FREE_SPACE_WANTED = 5 * GIB  # the demo writes less than 1 GiB; the rest is for OPTIMIZE and snapshots
BESIDE_THE_JVM = 1 * GIB  # Python, dbt and DuckDB

_PYTHON_LEAST, _PYTHON_TRIED = (3, 11), (3, 13)
_PACKAGES = ("pyspark", "dbt-core", "dbt-spark", "click", "deltalake", "duckdb")
_DELTA_JAR = re.compile(r"io\.delta:delta-spark_(?:(?P<spark>\d+\.\d+)_)?2\.13:(?P<delta>\d+\.\d+)")


def checks(lake: Lake) -> list[Check]:
    """Every check, in the order in which faults should be corrected.

    Args:
        artifacts: Folder of dbt's artifacts, the environment's when None; without a manifest there is nothing to
            compare storage with.
    """
    to_do: list[tuple[str, Callable[[], Check | list[Check]]]] = [
        ("python", check_python),
        ("java", check_java),
        ("versions", lambda: check_versions(installed_versions(), [jar.coordinate for jar in pinned()])),
        ("jars", check_jars),
        *([("kafka", lambda: check_kafka(lake))] if lake.settings.kafka_servers else []),
        ("home", lambda: check_home(lake)),
        ("memory", lambda: check_memory(spark_settings(lake.settings)["spark.driver.memory"])),
        ("ports", check_ports),
        *([] if lake.settings.metastore else [("metastore", lambda: check_metastore(metastore(lake.settings)))]),
        ("storage", lambda: check_storage(lake)),
        ("tables", lambda: check_tables(lake)),
        ("landing", lambda: check_landing(lake)),
        ("receivers", lambda: check_receivers(lake)),
        *services.to_check(lake),
    ]
    found: list[Check] = []
    for name, check in to_do:
        try:
            result = check()
        except (OpsError, OSError) as exc:
            result = Check(name, Outcome.FAIL, str(exc), "Correct what it says, then run `lakeops doctor` again.")
        found.extend(result if isinstance(result, list) else [result])
    return found


def check_python(running: tuple[int, int] = sys.version_info[:2]) -> Check:
    """The Python that runs this."""
    found = f"Python {running[0]}.{running[1]}"
    if running < _PYTHON_LEAST:
        return Check("python", Outcome.FAIL, found, "Use Python 3.11: make setup PYTHON=python3.11")
    if running > _PYTHON_TRIED:
        return Check("python", Outcome.WARN, f"{found}, newer than dbt-core 1.11 supports", "Use Python 3.11.")
    return Check("python", Outcome.OK, found)


def check_java(environment: Mapping[str, str] = os.environ) -> Check:
    """The Java that Spark would start: of JAVA_HOME if that is set, else of PATH."""
    fix = "Install Java 17 or 21 and point JAVA_HOME to it."
    home = environment.get("JAVA_HOME")
    java = shutil.which(str(Path(home) / "bin" / "java") if home else "java", path=environment.get("PATH", ""))
    if java is None:
        where = f"JAVA_HOME={home} has no bin/java" if home else "JAVA_HOME is not set and no java is on PATH"
        return Check("java", Outcome.FAIL, where, fix)
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return Check("java", Outcome.FAIL, f"{java} does not run ({type(exc).__name__})", fix)
    told = re.search(r'version "(?:1\.)?(\d+)[^"]*"', done.stderr + done.stdout)
    if done.returncode or told is None:
        return Check("java", Outcome.FAIL, f"{java} -version ended with {done.returncode} and told no version", fix)
    found = f"Java {told[1]} ({java})"
    if int(told[1]) not in JAVA_VERSIONS:
        return Check("java", Outcome.FAIL, f"{found}; Spark 4.1 needs 17 or 21", fix)
    return Check("java", Outcome.OK, found)


def installed_versions() -> dict[str, str]:
    """Versions of packages that must fit together; those that are not installed are left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def check_versions(packages: Mapping[str, str], jars: Sequence[str]) -> list[Check]:
    """Whether packages and jars work together.

    Args:
        packages: Version by package.
        jars: Coordinates of Spark's jars.
    """
    reinstall = "make setup installs what requirements.lock says."
    missing = [package for package in _PACKAGES if package not in packages]
    if missing:
        return [Check("versions", Outcome.FAIL, f"not installed: {', '.join(missing)}", reinstall)]
    found = []
    if _numbers(packages["dbt-core"]) != (1, 11):
        text = f"dbt-core {packages['dbt-core']}; this project is written for 1.11"
        found.append(Check("dbt-core", Outcome.FAIL, text, reinstall))
    if _numbers(packages["dbt-spark"]) > _numbers(packages["dbt-core"]):
        text = f"dbt-spark {packages['dbt-spark']} is newer than dbt-core {packages['dbt-core']}"
        found.append(Check("dbt-spark", Outcome.FAIL, text, reinstall))
    if _numbers(packages["click"]) >= (9, 0):
        found.append(Check("click", Outcome.FAIL, f"click {packages['click']}; dbt needs a version below 9", reinstall))
    found += _check_delta(packages["pyspark"], jars)
    return found or [Check("versions", Outcome.OK, ", ".join(f"{name} {packages[name]}" for name in _PACKAGES))]


def _check_delta(pyspark: str, jars: Sequence[str]) -> list[Check]:
    """Whether the Delta jar is made for the Spark that is installed."""
    spark = _numbers(pyspark)
    wanted = f"io.delta:delta-spark_{spark[0]}.{spark[1]}_2.13"
    fix = f"Set it in profiles/jars.lock to {wanted}, version 4.4.0 for Spark 4.1."
    jar = _DELTA_JAR.search("\n".join(jars))
    if jar is None:
        return [Check("delta jar", Outcome.FAIL, "none for Scala 2.13 in profiles/jars.lock", fix)]
    if jar["spark"] is None:
        return [Check("delta jar", Outcome.FAIL, f"{jar[0]} names no Spark version: it is made for another", fix)]
    if _numbers(jar["spark"]) != spark:
        return [Check("delta jar", Outcome.FAIL, f"{jar[0]} is not made for pyspark {pyspark}", fix)]
    if spark >= (4, 1) and _numbers(jar["delta"]) < (4, 3):
        return [Check("delta jar", Outcome.FAIL, f"{jar[0]}; Spark 4.1.2 and later need Delta 4.3 or later", fix)]
    return []


def _numbers(text: str) -> tuple[int, int]:
    """Major and minor version."""
    parts = [int(part) for part in re.findall(r"\d+", text)[:2]]
    return (parts[0], parts[1] if len(parts) > 1 else 0)


def check_jars(folder: Path = FOLDER) -> Check:
    """Whether the first session has to download."""
    if missing := lacking(folder):
        fix = "`make setup` fetches them, and so does the first session."
        return Check("jars", Outcome.WARN, f"not fetched yet: {', '.join(jar.coordinate for jar in missing)}", fix)
    return Check("jars", Outcome.OK, f"the {len(pinned())} of {LOCK.name} are in {folder}")


def check_kafka(lake: Lake) -> list[Check]:
    """Whether streams can begin: the brokers, and a topic for every source that has one set."""
    found = []
    lacking = Broker(lake).lacking(lake.settings.kafka_topics.values())
    sources = [source for source, topic in sorted(lake.settings.kafka_topics.items()) if topic in lacking]
    if sources:
        told = f"{lake.settings.kafka_servers} lacks the topics of {', '.join(sources)}"
        found.append(
            Check("kafka", Outcome.WARN, told, "Create them, or name others in kafka_topics, to stream these.")
        )
    else:
        found.append(
            Check(
                "kafka", Outcome.OK, f"{lake.settings.kafka_servers} has all {len(lake.settings.kafka_topics)} topics"
            )
        )
    return found


def check_home(lake: Lake) -> Check:
    """Whether the home is this environment's, can be written and has room; if it is in a bucket, the workspace."""
    home = lake.workspace
    require(lake.settings)
    fix = "Point LAKEHOUSE_HOME to a folder that you may write to."
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing) as file:
            file.write(b"lakehouse")
            file.flush()
    except OSError as exc:
        return Check("home", Outcome.FAIL, f"{existing} cannot be written ({exc.strerror})", fix)
    free = shutil.disk_usage(existing).free
    found = f"{home}, {free / GIB:.1f} GiB free"
    if free < FREE_SPACE_LEAST:
        return Check("home", Outcome.FAIL, found, "Free space, or point LAKEHOUSE_HOME to a larger disk.")
    if free < FREE_SPACE_WANTED:
        return Check("home", Outcome.WARN, found, "Free space before loading more than the demo.")
    return Check("home", Outcome.OK, found)


def check_memory(driver: str, available: int | None = None) -> Check:
    """Whether the JVM's heap and Python fit.

    Args:
        driver: `spark.driver.memory` ("3g").
        available: Bytes that are free; measured when None.
    """
    free = _available_memory() if available is None else available
    if free is None:
        return Check("memory", Outcome.WARN, "this system does not tell its free memory", "Have 4 GiB free.")
    heap = _memory(driver)
    found = f"{free / GIB:.1f} GiB available, Spark's heap is {driver}"
    if free < heap + BESIDE_THE_JVM:
        return Check("memory", Outcome.WARN, found, "End other programs, or set LAKEHOUSE_DRIVER_MEMORY (at least 2g).")
    return Check("memory", Outcome.OK, found)


def _memory(text: str) -> int:
    """Bytes of a memory size as Spark writes it."""
    match = re.fullmatch(r"(\d+)([kmgt])b?", text.strip().lower())
    if match is None:
        raise OpsError(f"spark.driver.memory is {text!r}; expected a number and a unit, such as 3g.")
    return int(match[1]) << 10 * ("kmgt".index(match[2]) + 1)


def _available_memory() -> int | None:
    """Bytes that can still be allocated: the machine's, or the container's if that is less."""
    limits = []
    try:
        told = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if told:
            limits.append(int(told[1]) * 1024)
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            limits.append(int(most) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(limits, default=None)


def check_ports() -> Check:
    """Whether Spark's driver can listen on loopback."""
    try:
        with socket.socket() as driver, socket.socket() as blocks:
            for listener in (driver, blocks):
                listener.bind(("127.0.0.1", 0))
                listener.listen(1)
            with socket.create_connection(driver.getsockname(), timeout=5):
                pass
    except OSError as exc:
        return Check(
            "ports", Outcome.FAIL, f"127.0.0.1 cannot be listened on ({exc})", "Let loopback connections pass."
        )
    return Check("ports", Outcome.OK, "127.0.0.1 can be listened on")


def check_metastore(derby: Path) -> Check:
    """Whether another process has the Derby metastore open: it admits one.

    `db.lck` stays after a crash; what counts is the kernel's lock on `dbex.lck`, which ends with its holder.
    """
    lock = derby / "dbex.lck"
    try:
        with lock.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Check("metastore", Outcome.OK, "free")
    except FileNotFoundError:
        return Check("metastore", Outcome.OK, "free")
    except BlockingIOError:
        holder = _lock_holder(lock)
        who = f"process {holder}" if holder else "another process"
        return Check("metastore", Outcome.WARN, f"{derby} is open in {who}", "Wait for it, or end it, before a run.")


def _lock_holder(path: Path) -> int | None:
    """Process that holds a POSIX lock on a file, if the kernel tells."""
    try:
        inode = f":{path.stat().st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "POSIX" in words and words[-3].endswith(inode):
                return int(words[-4])
    except (OSError, ValueError, IndexError):
        pass
    return None


def check_storage(lake: Lake) -> Check:
    """Storage tables whose model is gone or no longer a CDC model: nothing reads or cleans them."""
    if not (lake.artifacts / "manifest.json").exists():
        return Check("storage", Outcome.OK, "no manifest yet, nothing to compare with")
    models = {model.table: model for model in lake.manifest().models.values()}
    schemas = {lake.schema_name(layer) for layer in ("silver", "gold")}
    orphans = []
    for schema, name, _ in tables(lake.settings):
        if schema in schemas and name.endswith("__cdc"):
            model = models.get(f"{schema}.{name.removesuffix('__cdc')}")
            if model is None or not (model.strategy or "").startswith("cdc_"):
                orphans.append(f"{schema}.{name}")
    if orphans:
        found = f"{', '.join(orphans)}: no CDC model of the project owns them"
        return Check("storage", Outcome.WARN, found, "If their history is not needed: `drop table` each in Spark SQL.")
    return Check("storage", Outcome.OK, "every CDC storage table has its model")


def check_tables(lake: Lake) -> list[Check]:
    """Whether every file of every table is there and whole, deletion vectors among them."""
    if not (lake.artifacts / "manifest.json").exists():
        return [Check("tables", Outcome.OK, "no manifest yet, no tables to look at")]
    lacking = unreadable(lake, lake.manifest(), content=True)
    fix = "Restore the table from a snapshot (docs/runbooks/dr_restore.md), or an older version of it that is whole."
    found = [Check("tables", Outcome.FAIL, f"{table} cannot be read: {what}", fix) for table, what in lacking.items()]
    return found or [Check("tables", Outcome.OK, "all files of all tables are there")]


def check_landing(lake: Lake) -> list[Check]:
    """Files and folders in the sources' landing folders that ingestion never takes."""
    contracts = lake.contracts
    left = [
        told for name in contracts.sources for told in landing.left_outside(lake.landing / name, contracts.load(name))
    ]
    if not left:
        return [Check("landing", Outcome.OK, "everything that was delivered is taken")]
    return [Check("landing", Outcome.WARN, told, "Do what it says, then `lakeops ingest run`.") for told in left]


def check_receivers(lake: Lake) -> list[Check]:
    """Lineage events, alerts and figures that a receiver refused for good, or has not taken yet."""
    told = [text for text in (*refused.told(lake), waiting(lake)) if text]
    if not told:
        return [Check("receivers", Outcome.OK, "nothing was refused, nothing waits")]
    return [Check("receivers", Outcome.WARN, text, "Do what it says.") for text in told]
