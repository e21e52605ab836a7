"""How keys look, how they are stored, when they are valid."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill_services.domain.api_key import (
    MAX_OVERLAP_MS,
    ApiKey,
    Role,
    Scope,
    check_may_manage,
    format_api_key,
    hash_api_key,
    is_well_formed,
    keeps_the_platform,
    platform_secret_id,
    revoked,
    rotated,
    scopes_of_text,
    scopes_text,
)
from tidemill_services.domain.errors import (
    ApiKeyRevokedError,
    FieldInvalidError,
    RoleRequiredError,
    ScopeRequiredError,
)

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def key_record(**changes: object) -> ApiKey:
    fields = {
        "key_id": "k",
        "account_id": "a",
        "display_name": "",
        "secret_hash": b"h" * 32,
        "role": Role.USER,
        "default_model": None,
        "create_ms": 1_000,
    }
    return ApiKey(**(fields | changes))


@given(st.binary(min_size=32, max_size=32))
def test_a_key_holds_all_of_its_random_bits(random_bytes: bytes):
    key = format_api_key(random_bytes)
    number = 0
    for digit in key.removeprefix("tm_"):
        number = number * 62 + DIGITS.index(digit)
    assert number.to_bytes(32, "big") == random_bytes
    assert is_well_formed(key)
    assert len(key) == 46


def test_a_key_is_not_made_from_fewer_bits():
    with pytest.raises(ValueError, match="32 random bytes, got 16"):
        format_api_key(b"x" * 16)


@pytest.mark.parametrize(
    "text", ["", "tm_", "tm_" + "0" * 42, "tm_" + "0" * 44, "sk_" + "0" * 43, "tm_" + "é" * 43, "tm_" + "0" * 43 + "\n"]
)
def test_what_cannot_be_a_key_is_known_without_asking_the_store(text: str):
    assert not is_well_formed(text)


@pytest.mark.rule("A5")
def test_a_key_is_stored_as_its_keyed_hash():
    key = format_api_key(bytes(range(32)))
    assert hash_api_key(b"secret", key) == hmac.new(b"secret", key.encode(), hashlib.sha256).digest()
    assert hash_api_key(b"other", key) != hash_api_key(b"secret", key)


def test_a_record_matches_only_its_own_hash():
    record = key_record()
    assert record.matches(b"h" * 32, now_ms=0)
    assert not record.matches(b"h" * 31 + b"i", now_ms=0)
    assert not record.matches(b"", now_ms=0)


def test_a_key_is_valid_until_it_expires_or_is_revoked():
    assert key_record().is_valid(10**15)
    assert key_record(expire_ms=2_000).is_valid(1_999)
    assert not key_record(expire_ms=2_000).is_valid(2_000)
    assert key_record(revoke_ms=2_000).is_valid(1_999)
    assert not key_record(revoke_ms=2_000).is_valid(2_000)
    assert not key_record(expire_ms=5_000, revoke_ms=2_000).is_valid(3_000)


@pytest.mark.rule("A7")
def test_after_a_rotation_both_secrets_are_valid_for_the_overlap_and_never_a_third():
    first = key_record()
    second = rotated(first, b"i" * 32, overlap_ms=1_000, now_ms=5_000)
    assert second.matches(b"i" * 32, now_ms=10**12)
    assert second.matches(b"h" * 32, now_ms=5_999)
    assert not second.matches(b"h" * 32, now_ms=6_000)
    third = rotated(second, b"j" * 32, overlap_ms=1_000, now_ms=5_500)
    assert not third.matches(b"h" * 32, now_ms=5_500)
    assert third.matches(b"i" * 32, now_ms=6_499)
    assert third.matches(b"j" * 32, now_ms=5_500)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once():
    after = rotated(key_record(), b"i" * 32, overlap_ms=0, now_ms=5_000)
    assert not after.matches(b"h" * 32, now_ms=0)
    assert (after.old_secret_hash, after.old_secret_expire_ms) == (None, None)


@pytest.mark.parametrize("overlap_ms", [-1, MAX_OVERLAP_MS + 1])
def test_an_overlap_that_cannot_be_is_refused(overlap_ms: int):
    with pytest.raises(FieldInvalidError, match="overlap must be 0 to 30 days"):
        rotated(key_record(), b"i" * 32, overlap_ms=overlap_ms, now_ms=0)


def test_a_revoked_key_stays_revoked_and_is_not_rotated():
    once = revoked(key_record(), 7_000)
    assert revoked(once, 9_000) is once
    rotating = rotated(key_record(), b"n" * 32, 60_000, 1_000)
    assert revoked(rotating, 7_000).old_secret_expire_ms is None
    with pytest.raises(ApiKeyRevokedError):
        rotated(once, b"i" * 32, overlap_ms=0, now_ms=8_000)


def test_a_key_without_scopes_may_use_everything_and_one_with_scopes_nothing_else():
    assert all(key_record().allows(scope) for scope in Scope)
    narrow = key_record(scopes=frozenset({Scope.JOBS}))
    assert [scope for scope in Scope if narrow.allows(scope)] == [Scope.JOBS]


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({"role": Role.ADMIN}, True),
        ({"role": Role.ADMIN, "scopes": frozenset({Scope.ACCOUNT})}, True),
        ({"role": Role.USER}, False),
        ({"role": Role.ADMIN, "expire_ms": 10**15}, False),
        ({"role": Role.ADMIN, "revoke_ms": 1}, False),
        ({"role": Role.ADMIN, "scopes": frozenset({Scope.INFERENCE})}, False),
    ],
)
def test_an_administrators_key_for_good_keeps_the_platform(changes: dict[str, object], keeps: bool):
    assert keeps_the_platform(key_record(**changes)) is keeps


ROLES_AND_SCOPES = [(role, scopes) for role in Role for scopes in ((), (Scope.ACCOUNT,), (Scope.ACCOUNT, Scope.JOBS))]


@pytest.mark.rule("A1")
@pytest.mark.parametrize(("actor_role", "actor_scopes"), ROLES_AND_SCOPES)
@pytest.mark.parametrize(("role", "scopes"), ROLES_AND_SCOPES)
def test_nobody_acts_on_a_key_that_may_more(
    role: Role, scopes: tuple[Scope, ...], actor_role: Role, actor_scopes: tuple[Scope, ...]
):
    has_more_role = role is Role.ADMIN and actor_role is Role.USER
    has_more_scopes = bool(actor_scopes) and (not scopes or not set(scopes) <= set(actor_scopes))

    def check() -> None:
        check_may_manage(role, scopes, actor_role=actor_role, actor_scopes=actor_scopes)

    if has_more_role or has_more_scopes:
        with pytest.raises(RoleRequiredError if has_more_role else ScopeRequiredError):
            check()
    else:
        check()


def test_the_facts_of_a_key_hold_no_secret():
    key = key_record(secret_hash=b"\x17" * 32, old_secret_hash=b"\x18" * 32)
    assert "secret_hash" not in key.facts()
    assert not {b"\x17" * 32, b"\x18" * 32} & set(key.facts().values())


def test_a_secret_of_the_platform_has_a_name_that_is_only_its_own():
    assert platform_secret_id(b"a" * 32) == platform_secret_id(b"a" * 32) != platform_secret_id(b"b" * 32)


def test_scopes_are_stored_as_text():
    for scopes in (frozenset(), frozenset({Scope.JOBS}), frozenset(Scope)):
        assert scopes_of_text(scopes_text(scopes)) == scopes
