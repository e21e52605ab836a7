"""Who calls: from an API key to its account, without asking the store on every request."""

import time
from dataclasses import dataclass

from tidemill_services.domain.api_key import Role, hash_api_key, is_well_formed
from tidemill_services.domain.errors import ApiKeyInvalidError
from tidemill_services.store import accounts
from tidemill_services.store.database import Database

FRESH_SECONDS = 2.0  # a revoked key is refused after this time at the latest
MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """A key that was found valid, and its account."""

    account_id: str
    key_id: str
    role: Role
    default_model: str | None
    auto_session: bool = False  # the OpenAI door opens a session when none is open

    @property
    def is_admin(self) -> bool:
        """Whether it may act for the platform."""
        return self.role is Role.ADMIN


class Identities:
    """Finds the caller of an API key; remembers the answer for a moment."""

    def __init__(self, database: Database, platform_secret: bytes) -> None:
        self._database = database
        self._platform_secret = platform_secret
        self._remembered: dict[bytes, tuple[float, Caller]] = {}

    async def identify(self, api_key: str) -> Caller:
        """Return who the key belongs to. Raises ApiKeyInvalidError when it is unknown, revoked or expired."""
        if not is_well_formed(api_key):
            raise ApiKeyInvalidError
        hashed = hash_api_key(self._platform_secret, api_key)
        known = self._remembered.get(hashed)
        if known is not None and time.monotonic() - known[0] < FRESH_SECONDS:
            return known[1]
        asked = time.monotonic()
        record = await self._database.read(accounts.find_key_by_hash, hashed)
        if record is None:
            self._remembered.pop(hashed, None)
            raise ApiKeyInvalidError
        caller = Caller(record.account_id, record.key_id, record.role, record.default_model, record.auto_session)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[hashed] = (asked, caller)
        return caller
