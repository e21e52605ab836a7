"""`tidemill account` and `tidemill key`, in this process, against a mill in memory."""

import json

import grpc
import pytest

from tests.unit.client.account_book import ACCOUNT
from tests.unit.client.mill import Mill, Refusal


def test_a_key_is_printed_once_alone_on_standard_output(tidemill, mill: Mill) -> None:
    made = tidemill("key", "create", "--name", "laptop", "--scope", "inference", "--scope", "sessions")
    assert made.stdout == "tm_secret_1\n"
    assert f"{ACCOUNT}/keys/1" in made.stderr
    shown = tidemill("key", "show", "1")
    assert "tm_secret" not in shown.stdout + shown.stderr
    assert "inference sessions" in shown.stdout
    assert json.loads(tidemill("key", "create", "--json").stdout)["secret"] == "tm_secret_2"


def test_a_key_is_listed_with_what_it_may_and_until_when(tidemill) -> None:
    tidemill("key", "create", "--role", "admin", "--default-model", "tide-nano", "--expires", "2999-01-31T12:00")
    tidemill("key", "create", "--name", "for jobs", "--scope", "jobs")
    tidemill("key", "revoke", "2")
    header, second, first = tidemill("key", "list").stdout.splitlines()
    assert header.split() == ["key", "role", "scopes", "model", "state", "name"]
    assert first.split() == [f"{ACCOUNT}/keys/1", "admin", "all", "tide-nano", "until", "2999-01-31", "12:00:00Z"]
    assert second.split()[:3] == [f"{ACCOUNT}/keys/2", "user", "jobs"]
    assert "revoked 2023-11-14" in second
    listed = [json.loads(line) for line in tidemill("key", "list", "--json").stdout.splitlines()]
    assert [key["scopes"] for key in listed] == [["jobs"], []]


def test_a_key_is_changed_in_what_was_asked_for_only(tidemill, mill: Mill) -> None:
    tidemill("key", "create", "--scope", "jobs", "--generations", "3", "--requests-per-minute", "9")
    changed = json.loads(
        tidemill("key", "update", "1", "--scope", "all", "--generations", "0", "--expires", "never", "--json").stdout
    )
    assert changed["scopes"] == []
    assert changed["limits"] == {
        "requests_per_minute": 9,
        "concurrent_generations": None,
        "concurrent_sessions": None,
        "tokens_per_minute": None,
    }
    assert list(mill.requests["UpdateApiKey"][0].update_mask.paths) == ["expire_time", "limits", "scopes"]
    assert tidemill("key", "update", "1").exit_code == 2
    assert tidemill("key", "update", "1", "--expires", "soon").exit_code == 2


def test_a_key_is_rotated_with_an_overlap_in_hours(tidemill, mill: Mill) -> None:
    tidemill("key", "create")
    rotated = tidemill("key", "rotate", f"{ACCOUNT}/keys/1", "--overlap", "1.5")
    assert rotated.stdout == "tm_secret_2\n"
    assert "The old secret is valid until 2023-11-14" in rotated.stderr
    assert mill.requests["RotateApiKey"][0].overlap.ToSeconds() == 5_400


def test_a_secret_that_was_lost_on_the_way_is_said(tidemill, mill: Mill) -> None:
    mill.shows_secrets = False
    made = tidemill("key", "create")
    assert (made.exit_code, made.stdout) == (0, "")
    assert "tidemill key rotate" in made.stderr


def test_a_key_that_is_not_there_is_named(tidemill) -> None:
    missing = tidemill("key", "revoke", "77")
    assert missing.exit_code == 1
    assert "has no key 77" in missing.stderr


def test_an_account_is_made_changed_and_shown(tidemill, mill: Mill) -> None:
    tidemill("account", "create", "ada", "--name", "Ada", "--requests-per-minute", "600", "--sessions", "2")
    tidemill("account", "update", "ada", "--no-cache", "--sessions", "0")
    shown = dict(line.split(maxsplit=1) for line in tidemill("account", "show", "ada").stdout.splitlines())
    assert shown["account"] == "accounts/ada"
    assert shown["cache"] == "off"
    assert shown["limits"] == "600 requests a minute"
    assert json.loads(tidemill("account", "show", "--json").stdout)["name"] == ACCOUNT
    assert [json.loads(line)["name"] for line in tidemill("account", "list", "--json").stdout.splitlines()] == [
        "accounts/ada", ACCOUNT
    ]  # fmt: skip
    assert "600 requests a minute" in tidemill("account", "list").stdout
    assert tidemill("account", "update", "ada").exit_code == 2


def test_the_audit_trail_is_a_table_and_json(tidemill) -> None:
    tidemill("account", "update", "--name", "Ours")
    tidemill("key", "create")
    header, newest, first = tidemill("account", "audit").stdout.splitlines()
    assert header.split() == ["when", "who", "what", "on", "what", "changes"]
    assert "CreateApiKey" in newest
    assert first.endswith("display_name: Mine → Ours")
    (event,) = (json.loads(line) for line in tidemill("account", "audit", "--limit", "1", "--json").stdout.splitlines())
    assert (event["sequence_number"], event["action"]) == (2, "CreateApiKey")


@pytest.mark.parametrize(
    ("words", "method"), [(("account", "list"), "ListAccounts"), (("key", "create"), "CreateApiKey")], ids=" ".join
)
def test_a_refusal_is_a_sentence_and_an_exit_code(tidemill, mill: Mill, words: tuple[str, ...], method: str) -> None:
    refusal = Refusal(grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED", "This needs a key with the role admin.")
    mill.fail_next(method, refusal, refusal)
    refused = tidemill(*words)
    assert (refused.exit_code, refused.stderr) == (1, "Error: This needs a key with the role admin.\n")
    assert json.loads(tidemill(*words, "--json").stderr)["error"]["reason"] == "ROLE_REQUIRED"


def test_an_account_agrees_to_pay_by_its_tokens_and_takes_it_back(tidemill, mill: Mill) -> None:
    assert json.loads(tidemill("account", "update", "--per-token", "--json").stdout)["pays_per_token"]
    assert "pays per token  yes" in tidemill("account", "show").stdout
    taken_back = json.loads(tidemill("account", "update", "--no-per-token", "--json").stdout)
    assert taken_back["pays_per_token"] is False


def test_tokens_a_minute_are_limited_as_the_others_are(tidemill, mill: Mill) -> None:
    limited = json.loads(tidemill("key", "create", "--tokens-per-minute", "9000", "--json").stdout)
    assert limited["api_key"]["limits"]["tokens_per_minute"] == 9000
