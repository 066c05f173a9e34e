"""Whether an error of a database's driver says that the credentials were refused, for extraction and publishing alike.

A driver is imported when it is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SNOWFLAKE = frozenset({390100, 390144, 390303, 390318, 394304})  # wrong user, password, key or token; expired
SNOWFLAKE_NOT_CONNECTED = 250001  # every log-in that failed, of network or of credentials


def by_postgres(error: Exception) -> bool:
    """Of a connection that failed it is told by the text: libpq gives no code then."""
    from psycopg import OperationalError
    from psycopg.errors import InvalidAuthorizationSpecification, InvalidPassword

    if isinstance(error, InvalidPassword | InvalidAuthorizationSpecification):
        return True
    says = "authentication failed" in str(error) or "no password supplied" in str(error)
    return isinstance(error, OperationalError) and error.sqlstate is None and says


def by_redshift(error: Exception) -> bool:
    """Class 28 of the server's codes."""
    return str(redshift_answer(error).get("C", "")).startswith("28")


def by_snowflake(error: Exception) -> bool:
    """By the connector's numbers; one of them is that of a log-in that failed for the network's sake as well."""
    from snowflake.connector import errors

    number = getattr(error, "errno", None)
    is_login = number == SNOWFLAKE_NOT_CONNECTED and type(error) is errors.DatabaseError
    return number in _SNOWFLAKE or is_login or isinstance(error, errors.ForbiddenError)


def redshift_answer(error: Exception) -> Mapping[str, Any]:
    """What the server said: C is the code, M the text, as the wire protocol has them; empty for another error."""
    found = error.args[0] if error.args else None
    return found if isinstance(found, dict) else {}
