"""API keys: how they look, how they are stored, when they are valid, what they may do.

A key is `tm_` and 256 random bits in base 62. It is shown once; what is stored is its HMAC-SHA-256 under the platform's
secret, so that a copy of the database opens no door. After a rotation a key has two secrets for a while.
"""

import enum
import hashlib
import hmac
import re
import string
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tidemill_services.domain.errors import ApiKeyRevokedError, FieldInvalidError, RoleRequiredError, ScopeRequiredError
from tidemill_services.domain.limits import UsageLimits

PREFIX = "tm_"
NUM_RANDOM_BYTES = 32
MAX_DISPLAY_NAME_LENGTH = 256
MAX_OVERLAP_MS = 30 * 86_400_000
_END_OF_TIME_MS = 253_402_300_800_000  # the year 10000
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_NUM_DIGITS = 43  # 62**43 > 2**256
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_NUM_DIGITS}}}", re.ASCII)


class Role(enum.StrEnum):
    """What a key may do."""

    USER = "USER"  # its own account
    ADMIN = "ADMIN"  # the platform


class Scope(enum.StrEnum):
    """A part of the contract that a key may use."""

    INFERENCE = "INFERENCE"
    SESSIONS = "SESSIONS"
    MODELS = "MODELS"  # starting and stopping them; every key may look
    JOBS = "JOBS"
    ACCOUNT = "ACCOUNT"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored, without the key itself. Times are milliseconds since 1970."""

    key_id: str
    account_id: str
    display_name: str
    secret_hash: bytes
    role: Role
    default_model: str | None
    create_ms: int
    auto_session: bool = False  # the OpenAI door opens a session of the key when none is open
    expire_ms: int | None = None
    revoke_ms: int | None = None
    scopes: frozenset[Scope] = frozenset()  # empty: all
    limits: UsageLimits = field(default_factory=UsageLimits)
    old_secret_hash: bytes | None = None  # of the secret before the last rotation
    old_secret_expire_ms: int | None = None

    @property
    def resource_name(self) -> str:
        """Its name in the contract."""
        return f"accounts/{self.account_id}/keys/{self.key_id}"

    def facts(self) -> dict[str, object]:
        """What may be shown of it, by the names of the contract; no secret."""
        return {
            "display_name": self.display_name,
            "role": self.role,
            "default_model": self.default_model,
            "auto_session": self.auto_session,
            "expire_time": time_text(self.expire_ms),
            "scopes": scopes_text(self.scopes),
            **self.limits.facts(),
            "revoke_time": time_text(self.revoke_ms),
            "old_secret_expire_time": time_text(self.old_secret_expire_ms),
        }

    def is_valid(self, now_ms: int) -> bool:
        """Whether the key opens anything at this time."""
        expired = self.expire_ms is not None and now_ms >= self.expire_ms
        revoked = self.revoke_ms is not None and now_ms >= self.revoke_ms
        return not expired and not revoked

    def matches(self, secret_hash: bytes, now_ms: int) -> bool:
        """Compare with the hash of a presented key, in constant time; the old secret's counts for its overlap."""
        is_current = hmac.compare_digest(self.secret_hash, secret_hash)
        is_old = hmac.compare_digest(self.old_secret_hash or b"", secret_hash)
        return is_current or (is_old and now_ms < (self.old_secret_expire_ms or 0))

    def allows(self, scope: Scope) -> bool:
        """Whether the key may use this part of the contract."""
        return scope in (self.scopes or ALL_SCOPES)


def keeps_the_platform(api_key: ApiKey) -> bool:
    """Whether somebody with this key can administer the platform for as long as they like."""
    is_for_good = api_key.expire_ms is None and api_key.revoke_ms is None
    return api_key.role is Role.ADMIN and is_for_good and api_key.allows(Scope.ACCOUNT)


def check_may_manage(
    role: Role, scopes: Collection[Scope], *, actor_role: Role, actor_scopes: Collection[Scope]
) -> None:
    """Raise RoleRequiredError or ScopeRequiredError where a key would be given, or have, more than who acts on it."""
    if role is Role.ADMIN and actor_role is not Role.ADMIN:
        raise RoleRequiredError("Only an administrator's key may act on one with the role admin.")
    lacking = set(scopes or ALL_SCOPES) - set(actor_scopes or ALL_SCOPES)
    if lacking:
        listed = ", ".join(sorted(scope.lower() for scope in lacking))
        raise ScopeRequiredError(f"The other key has scopes that this key has not: {listed}.")


def rotated(api_key: ApiKey, secret_hash: bytes, overlap_ms: int, now_ms: int) -> ApiKey:
    """Give a key another secret; the one until now stays valid for the overlap.

    Raises ApiKeyRevokedError, FieldInvalidError.
    """
    check_not_revoked(api_key)
    if not 0 <= overlap_ms <= MAX_OVERLAP_MS:
        raise FieldInvalidError(f"overlap must be 0 to {MAX_OVERLAP_MS // 86_400_000} days.", field="overlap")
    if not overlap_ms:
        return replace(api_key, secret_hash=secret_hash, old_secret_hash=None, old_secret_expire_ms=None)
    return replace(
        api_key,
        secret_hash=secret_hash,
        old_secret_hash=api_key.secret_hash,
        old_secret_expire_ms=now_ms + overlap_ms,
    )


def revoked(api_key: ApiKey, now_ms: int) -> ApiKey:
    """Take a key out of use, for good; repeats change nothing."""
    if api_key.revoke_ms is not None:
        return api_key
    return replace(api_key, revoke_ms=now_ms, old_secret_hash=None, old_secret_expire_ms=None)


def check_not_revoked(api_key: ApiKey) -> None:
    """Raise ApiKeyRevokedError for a key that nothing can be changed of any more."""
    if api_key.revoke_ms is not None:
        raise ApiKeyRevokedError


def check_display_name(display_name: str, field_name: str) -> None:
    """Raise FieldInvalidError unless this can be what people call an account or a key."""
    if len(display_name) > MAX_DISPLAY_NAME_LENGTH or not display_name.isprintable():
        raise FieldInvalidError(
            f"{field_name} must be at most {MAX_DISPLAY_NAME_LENGTH} printable characters.", field=field_name
        )


def check_expiry(expire_ms: int | None, now_ms: int) -> None:
    """Raise FieldInvalidError for a time that has passed, or that no calendar has."""
    if expire_ms is not None and not now_ms < expire_ms < _END_OF_TIME_MS:
        raise FieldInvalidError("api_key.expire_time must lie in the future.", field="api_key.expire_time")


def time_text(ms: int | None) -> str:
    """A time as people and programs read it; None is empty."""
    return "" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def scopes_text(scopes: Iterable[Scope]) -> str:
    """Scopes as they are stored and shown; empty means all."""
    return " ".join(sorted(scopes))


def scopes_of_text(text: str) -> frozenset[Scope]:
    """Scopes as they were stored."""
    return frozenset(Scope(word) for word in text.split())


def format_api_key(random_bytes: bytes) -> str:
    """Write 32 random bytes as a key of fixed length."""
    if len(random_bytes) != NUM_RANDOM_BYTES:
        raise ValueError(f"a key needs {NUM_RANDOM_BYTES} random bytes, got {len(random_bytes)}")
    number = int.from_bytes(random_bytes, "big")
    digits = []
    for _ in range(_NUM_DIGITS):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return PREFIX + "".join(reversed(digits))


def is_well_formed(api_key: str) -> bool:
    """Whether this can be a key at all; what cannot is refused without asking the store."""
    return _FORM.fullmatch(api_key) is not None


def hash_api_key(platform_secret: bytes, api_key: str) -> bytes:
    """Return the 32 bytes under which a key is stored and found."""
    return hmac.digest(platform_secret, api_key.encode(), "sha256")


def platform_secret_id(platform_secret: bytes) -> str:
    """A name for a secret of the platform, that says nothing about it but whether it is the same."""
    return hashlib.sha256(b"tidemill platform secret\0" + platform_secret).hexdigest()[:16]
