"""Credentials: where they come from, how long they are kept, and that no text shows them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import boto3
import pytest
from test_cli import lakeops

from python_ops.cli import print_json
from python_ops.lake.config import Settings
from python_ops.lake.erasure import keep_receipt
from python_ops.lake.errors import ConfigError, OpsError
from python_ops.lake.lake import Lake
from python_ops.lake.secrets import Secret, Secrets, mask
from python_ops.lake.secrets.forms import faults
from python_ops.lake.secrets.providers import AwsProvider, EnvironmentProvider, FileProvider
from python_ops.watch.credentials import needed

CANARY = "canary-4f1c9e"


def secrets_file(folder: Path, mode: int = 0o600, **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "secrets.json"
    path.write_text(json.dumps(content))
    path.chmod(mode)
    return path


class Refused(Exception):
    """What a system raises that does not accept the credentials."""


def test_the_first_place_that_has_it_wins(tmp_path: Path) -> None:
    path = secrets_file(tmp_path, both="file", only={"user": "u"})
    secrets = Secrets([EnvironmentProvider({"LAKEHOUSE_SECRET_BOTH": "variable"}), FileProvider(path)])
    assert secrets.get("both").reveal() == "variable"
    assert secrets.get("only").json() == {"user": "u"}


def test_a_missing_secret_says_where_it_was_looked_for_in_order(tmp_path: Path) -> None:
    secrets = Secrets([EnvironmentProvider({}), FileProvider(tmp_path / "secrets.json")])
    with pytest.raises(ConfigError, match=r"the variable LAKEHOUSE_SECRET_GONE; then 'gone' in .*secrets\.json"):
        secrets.get("gone")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o400, 0o700])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = secrets_file(tmp_path, mode, token=CANARY)
    with pytest.raises(ConfigError, match="chmod 600") as failure:
        FileProvider(path).get("token")
    assert CANARY not in str(failure.value)
    path.chmod(0o600)
    path.write_text(f'{{"token": "{CANARY}"')
    with pytest.raises(ConfigError, match="not a JSON object") as failure:
        FileProvider(path).get("token")
    assert CANARY not in str(failure.value) and failure.value.__cause__ is None


def test_an_answer_is_kept_for_its_time() -> None:
    now, environment = [0.0], {"LAKEHOUSE_SECRET_A": "old"}
    secrets = Secrets([EnvironmentProvider(environment)], ttl=60, clock=lambda: now[0])
    assert secrets.get("a").reveal() == "old"
    environment["LAKEHOUSE_SECRET_A"] = "new1"
    now[0] = 59.0
    assert secrets.get("a").reveal() == "old"
    now[0] = 61.0
    assert secrets.get("a").reveal() == "new1"


def test_a_secret_is_shown_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    secret = Secret("token", CANARY)
    assert CANARY not in f"{secret} {secret!r} {[secret]} {vars(Settings())}"
    print_json({"secret": secret})
    assert CANARY not in capsys.readouterr().out
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    secret.reveal()
    assert mask(f"could not connect: password={CANARY}") == "could not connect: password=***"
    Secret("db", json.dumps({"host": "db.example.com", "password": CANARY[::-1]})).json()
    assert mask(f"db.example.com refused {CANARY[::-1]}") == "db.example.com refused ***"
    Secret("api", json.dumps({"url": "https://api.example.com", "token": f"{CANARY}-api"})).json()
    assert mask(f"https://api.example.com/v3 refused {CANARY}-api") == "https://api.example.com/v3 refused ***"
    Secret("api", json.dumps({"url": f"https://u:{CANARY[1:]}@api.example.com"})).json()
    assert CANARY[1:] not in mask(f"https://u:{CANARY[1:]}@api.example.com refused")


def test_aws_secrets_manager_and_its_rotation(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a rotated secret, When a system still takes the old one, Then the previous version is tried once. A
    variable is not read where Secrets Manager is."""
    client = boto3.client("secretsmanager")
    client.create_secret(Name="lakehouse/postgres", SecretString="first")
    monkeypatch.setenv("LAKEHOUSE_SECRET_POSTGRES", "of a variable")
    secrets = Lake(Settings(secrets="aws")).secrets
    assert secrets.get("postgres").reveal() == "first"
    client.put_secret_value(SecretId="lakehouse/postgres", SecretString="second")

    def connect(accepted: str, tried: list[str]) -> Any:
        def use(secret: Secret) -> str:
            tried.append(secret.reveal())
            if secret.reveal() != accepted:
                raise Refused
            return "connected"

        return use

    for accepted, expected in (("second", ["first", "second"]), ("first", ["second", "first"])):
        tried: list[str] = []
        use = connect(accepted, tried)
        assert secrets.with_rotation("postgres", use, lambda exc: isinstance(exc, Refused)) == "connected"
        assert tried == expected
    tried = []
    with pytest.raises(Refused):
        secrets.with_rotation("postgres", connect("neither", tried), lambda exc: isinstance(exc, Refused))
    assert tried == ["second", "first"], "each at most once"
    with pytest.raises(ConfigError, match=r"'lakehouse/gone' in AWS Secrets Manager"):
        secrets.get("gone")


def test_a_failure_that_is_no_refusal_is_not_tried_again() -> None:
    calls = []

    def use(secret: Secret) -> None:
        calls.append(secret)
        raise TimeoutError

    secrets = Secrets([EnvironmentProvider({"LAKEHOUSE_SECRET_A": "text"})])
    with pytest.raises(TimeoutError):
        secrets.with_rotation("a", use, lambda exc: isinstance(exc, Refused))
    assert len(calls) == 1


def test_secrets_manager_out_of_reach_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with pytest.raises(OpsError, match=r"did not answer for lakehouse/x .*network"):
        AwsProvider("lakehouse/").get("x")


def test_what_is_needed_follows_from_the_settings_and_who_was_erased(tmp_path: Path) -> None:
    assert needed(Lake(Settings())) == {}
    lake = Lake(Settings(alerts=("console", "slack"), publish=("duckdb", "postgres")))
    assert set(needed(lake)) == {"slack_webhook_url", "postgres", "publish_pii_key"}
    assert faults(Secret("erasure_key", "k" * 15), "erasure") and not faults(Secret("erasure_key", "k" * 16), "erasure")
    keep_receipt(erased := Lake(Settings(home=tmp_path)), "contact_id.00", {"at": "x"})
    assert needed(erased) == {"erasure_key": {"keeping out people who were erased": "erasure"}}
    clear = Settings(publish=("postgres",), publish_pii={"postgres": "clear"})
    assert set(needed(Lake(clear))) == {"postgres"}
    assert [type(p).__name__ for p in Lake(Settings(secrets="aws")).secrets.providers] == ["AwsProvider"]


@pytest.mark.parametrize(
    ("form", "fields", "told"),
    [
        ("publish.snowflake", {"account": "a", "user": "u", "password": "p"}, "has no database, warehouse"),
        ("extract.snowflake", {"account": "a", "user": "u"}, "has no password or private_key"),
        (
            "extract.snowflake",
            {"account": "a", "user": "u", "private_key": CANARY},
            "not a private key in PEM",
        ),
        ("extract.rest", {"url": "https://x", "token_url": "https://y"}, "has no client_id, client_secret"),
        ("extract.rest", {"url": "x.example.com", "token": "t"}, "url, the base address of the API, must begin with"),
        ("publish.postgres", {"host": "h", "dbname": "d", "user": "u", "password": "p", "port": "x"}, "port must be"),
        (
            "publish.redshift",
            {"host": "h", "dbname": "d", "user": "u", "password": "p", "staging": "s3://b/p"},
            "staging and iam_role go together",
        ),
        ("kafka", [CANARY], "must be a JSON object"),
    ],
)
def test_a_secret_without_its_form_names_what_is_wrong_and_no_value(form: str, fields: Any, told: str) -> None:
    (fault,) = faults(Secret("mine", json.dumps(fields)), form)
    assert fault.startswith("Secret mine") and told in fault and CANARY not in fault


@pytest.mark.slow
def test_the_commands_show_places_and_no_values(tmp_path: Path) -> None:
    home = tmp_path / "lake"
    given = {
        "LAKEHOUSE_PUBLISH": '["postgres"]',
        "LAKEHOUSE_SECRET_PUBLISH_PII_KEY": CANARY * 4,
        "LAKEHOUSE_ALERTS": '["slack"]',
    }
    missing = lakeops(home, "secrets", "check", **given)
    assert missing.returncode == 2 and "Secret postgres is not set. Looked for the variable" in missing.stderr
    assert "Secret slack_webhook_url is not set" in missing.stderr, "it does not stop at the first"
    secrets_file(home, postgres={"password": CANARY})
    given["LAKEHOUSE_SECRET_SLACK_WEBHOOK_URL"] = CANARY
    wrong = lakeops(home, "secrets", "check", **given)
    assert wrong.returncode == 2 and CANARY not in wrong.stdout + wrong.stderr
    assert "Secret postgres has no host, dbname, user. It needs host, dbname, user, password." in wrong.stderr
    assert "Secret slack_webhook_url is not an address" in wrong.stderr
    secrets_file(home, postgres={"host": "db", "dbname": "lake", "user": "u", "password": CANARY})
    given["LAKEHOUSE_SECRET_SLACK_WEBHOOK_URL"] = f"https://hooks.example.com/{CANARY}"
    for command in (("list",), ("list", "--json"), ("check",), ("check", "--json")):
        done = lakeops(home, "secrets", *command, **given)
        assert done.returncode == 0, done.stderr
        assert CANARY not in done.stdout + done.stderr
    (home / "secrets.json").chmod(0o644)
    assert lakeops(home, "secrets", "list", **given).returncode == 2
