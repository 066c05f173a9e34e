"""What each secret must look like: `secrets check`, extraction and publishing ask here before anything is connected.

A form is a tuple of groups; of each group the secret must have one field. A form without groups is a plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from python_ops.lake.errors import ConfigError
from python_ops.lake.secrets import Secret

Form = Sequence[Sequence[str]]

_DATABASE = (("host",), ("dbname",), ("user",), ("password",))
FORMS: Mapping[str, Form] = {
    "extract.postgres": (("host",), ("dbname",), ("user",)),
    "extract.redshift": _DATABASE,
    "extract.snowflake": (("account",), ("user",), ("password", "private_key")),
    "extract.rest": (("url",), ("token", "token_url")),
    "extract.fx": (("url",),),
    "publish.postgres": _DATABASE,
    "publish.redshift": _DATABASE,
    "publish.snowflake": (("account",), ("user",), ("password", "private_key"), ("database",), ("warehouse",)),
    "kafka": (("user",), ("password",)),
    "address": (),
    "text": (),
    "key": (),
    "erasure": (),
}

LEAST_KEY = {"key": 32, "erasure": 16}
"""Characters that a key has at least, by its form."""


def faults(secret: Secret, form: str) -> list[str]:
    """What is wrong with a secret, as sentences that hold no value; none where it has its form."""
    if not FORMS[form]:
        text = secret.reveal()
        if form == "address" and not re.fullmatch(r"(?i)https?://\S+", text):
            return [f"Secret {secret.name} is not an address that begins with https://."]
        if len(text.strip()) < (least := LEAST_KEY.get(form, 0)):
            return [f"Secret {secret.name} is too short for a key: it needs {least} characters, made at random."]
        return [] if text.strip() else [f"Secret {secret.name} is blank."]
    try:
        fields = secret.json()
    except ConfigError as exc:
        return [str(exc)]
    groups = list(FORMS[form])
    if form == "extract.rest" and fields.get("token_url"):
        groups += [("client_id",), ("client_secret",)]
    found = []
    if missing := [" or ".join(group) for group in groups if not any(_given(fields, name) for name in group)]:
        needs = ", ".join(" or ".join(group) for group in groups)
        found.append(f"Secret {secret.name} has no {', '.join(missing)}. It needs {needs}.")
    if not _is_port(fields.get("port", 1)):
        found.append(f"Secret {secret.name}: port must be a number from 1 to 65535.")
    if form == "extract.rest" and _given(fields, "url") and not re.match(r"(?i)https?://[^/\s]", str(fields["url"])):
        found.append(f"Secret {secret.name}: url, the base address of the API, must begin with http:// or https://.")
    if form == "publish.redshift" and _given(fields, "staging") != _given(fields, "iam_role"):
        found.append(f"Secret {secret.name}: staging and iam_role go together; COPY from S3 needs both.")
    if _given(fields, "staging") and not re.fullmatch(r"s3://[^/\s]+(/\S*)?", str(fields["staging"])):
        found.append(f"Secret {secret.name}: staging must be s3://bucket/prefix.")
    if _given(fields, "private_key"):
        try:
            snowflake_key(fields)
        except (ValueError, TypeError):
            found.append(
                f"Secret {secret.name}: private_key is not a private key in PEM, or private_key_passphrase does not "
                "open it. In JSON its line ends are written \\n."
            )
    return found


def checked(secret: Secret, form: str) -> Mapping[str, Any]:
    """The fields of a secret.

    Raises:
        ConfigError: it has not its form; the text names every fault.
    """
    if found := faults(secret, form):
        raise ConfigError(" ".join(found))
    fields: Mapping[str, Any] = json.loads(secret.reveal())
    return fields


def snowflake_login(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the Snowflake connector: who logs in, by a key where there is one, and where to."""
    names = ("account", "user", "role", "warehouse", "database", "schema")
    options: dict[str, Any] = {name: fields[name] for name in names if _given(fields, name)}
    if _given(fields, "private_key"):
        return {**options, "private_key": snowflake_key(fields)}
    return {**options, "password": fields["password"]}


def snowflake_key(fields: Mapping[str, Any]) -> bytes:
    """A private key as the connector takes it.

    Raises:
        ValueError: it is no key, or its passphrase is wrong.
        TypeError: a passphrase is missing, or there is one without need.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

    phrase = fields.get("private_key_passphrase")
    key = load_pem_private_key(str(fields["private_key"]).encode(), str(phrase).encode() if phrase else None)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _given(fields: Mapping[str, Any], name: str) -> bool:
    return fields.get(name) not in (None, "")


def _is_port(given: Any) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", str(given)) is not None and 0 < int(given) < 65536
