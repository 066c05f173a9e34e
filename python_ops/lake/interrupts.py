"""An interruption is reported once, by the command that was interrupted.

pyspark cancels its jobs at Ctrl-C, so each of dbt's threads fails with Java's stack trace; dbt adds that of the
interruption, py4j one for each call that was under way, and for each thread when Java ends by the same signal. All of
that is noise. From the interruption on, dbt's console is silent (dbt.log is not), and py4j does not log what it raises.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

_SUMMARY = "EndOfRunSummary"  # dbt's "Exited because of keyboard interrupt", which `--quiet` leaves out

_seen = threading.Event()
_of_spark: Any = None


def see() -> None:
    """Notes an interruption. The handler of its signal calls this."""
    _seen.set()
    if "dbt_common.events.event_manager_client" in sys.modules:
        from dbt_common.events.event_manager_client import get_event_manager

        for logger in get_event_manager().loggers:
            if logger.name == "stdout_log":
                logger.filter = lambda message: message.info.name == _SUMMARY


def seen() -> bool:
    """Whether there was one: what fails from then on fails because of it."""
    return _seen.is_set()


def watch(before: Any) -> None:
    """Notes Ctrl-C too. Call it after Spark's start; calling it again does no harm.

    Args:
        before: What handled Ctrl-C before Spark's start. pyspark replaces it; this puts the command's own handler, or
            that Ctrl-C is ignored, back.
    """
    global _of_spark
    logging.getLogger().addFilter(_is_news)
    now = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or now is _interrupt:
        return
    if before in (signal.default_int_handler, _interrupt):
        _of_spark = now
        signal.signal(signal.SIGINT, _interrupt)
    elif before is not None:
        signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    see()
    _of_spark(number, frame)


def _is_news(record: logging.LogRecord) -> bool:
    """Filter of the root logger, where py4j logs each failure of a call before it raises it."""
    if "py4j" not in Path(record.pathname).parts:
        return True
    error = record.exc_info[1] if record.exc_info else None
    return not (seen() or isinstance(error, KeyboardInterrupt))
