"""API keys: how they look, how they are stored, when they are valid.

A key is `tm_` and 256 random bits in base 62. It is shown once; what is stored is its HMAC-SHA-256 under the platform's
secret, so that a copy of the database opens no door.
"""

import enum
import hmac
import re
import string
from dataclasses import dataclass

PREFIX = "tm_"
NUM_RANDOM_BYTES = 32
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_NUM_DIGITS = 43  # 62**43 > 2**256
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_NUM_DIGITS}}}", re.ASCII)


class Role(enum.StrEnum):
    """What a key may do."""

    USER = "USER"  # its own account
    ADMIN = "ADMIN"  # the platform


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored, without the key itself."""

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

    def is_valid(self, now_ms: int) -> bool:
        """Whether the key opens anything at this time."""
        expired = self.expire_ms is not None and now_ms >= self.expire_ms
        revoked = self.revoke_ms is not None and now_ms >= self.revoke_ms
        return not expired and not revoked

    def matches(self, secret_hash: bytes) -> bool:
        """Compare with the hash of a presented key, in constant time."""
        return hmac.compare_digest(self.secret_hash, secret_hash)


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
