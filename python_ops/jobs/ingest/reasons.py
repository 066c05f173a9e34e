"""Why a file could not be read, in one line: what parsers and Spark raise, without the values in it."""

from __future__ import annotations

import re

_MACHINE = (
    "PATH_NOT_FOUND|FILE_NOT_EXIST|FileNotFoundException|Permission denied|AccessControlException|No space left"
    "|OutOfMemoryError|Connection refused|SparkContext was shut down|stopped SparkContext"
)
_CONDITION = r"\[[A-Z][A-Z0-9_.]+\] .+"
# Spark wraps a failure in itself, with this for the inner cause. A message may begin on the next line.
_CAUSE = r"Caused by: (?!\S*OriginalTryStackTrace).+"
# What is for who looks a message up: the names of a condition, a class and a state. The log has them.
_NAMES = r"^\[[A-Z][A-Z0-9_.]+\] |^[\w$]*(Exception|Error): |\s*SQLSTATE: \w+\.?(;.*)?$|\s*:$"
_RAISED = r"(?<![\w.$])(?!\S*OriginalTryStackTrace)[\w.$]+(?:Exception|Error):\s+\S.*"


def reason_of(error: Exception) -> str:
    """One line: what Spark says of its error condition where there is one, or of the deepest cause. Names of conditions
    and classes, and quoted values, are left out.
    """
    text = str(error).strip()
    for pattern in (_CONDITION, _CAUSE, _RAISED, r".+"):
        if found := re.findall(pattern, text):
            line = found[-1] if pattern == _CAUSE else found[0]
            line = " ".join(re.sub(r"^(Caused by: )?([\w$]+\.)*", "", line).split())
            return re.sub(r"'[^']*'", "'…'", re.sub(_NAMES, "", line))[:200] or type(error).__name__
    return type(error).__name__


def is_of_the_machine(error: Exception) -> bool:
    """Whether reading failed for a reason outside the file: it cannot be reached, or there is no room."""
    return any(re.search(_MACHINE, str(told)) for told in (error, error.__cause__))
