"""How keys look, how they are stored, when they are valid."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill_services.domain.api_key import ApiKey, Role, format_api_key, hash_api_key, is_well_formed

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
