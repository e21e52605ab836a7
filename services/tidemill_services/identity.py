"""Who calls: from an API key to its account, without asking the store on every request."""

import logging
import time
from dataclasses import dataclass, field

from tidemill_services.domain.account import Account
from tidemill_services.domain.api_key import ALL_SCOPES, ApiKey, Role, Scope, hash_api_key, is_well_formed
from tidemill_services.domain.errors import ApiKeyInvalidError, StoreUnavailableError
from tidemill_services.domain.limits import UsageLimits
from tidemill_services.store import accounts, api_keys
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.secret_file import PlatformSecrets
from tidemill_services.store.topics import KEYS

FRESH_SECONDS = 2.0  # a revoked key is refused after this time at the latest, whatever is heard of it
MAX_REMEMBERED = 10_000
_POLL_SECONDS = 3_600.0  # what is remembered is fresh by itself; this only forgets the old

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """A key that was found valid, and its account."""

    account_id: str
    key_id: str
    role: Role
    default_model: str | None
    scopes: frozenset[Scope] = ALL_SCOPES
    account_limits: UsageLimits = field(default_factory=UsageLimits)
    key_limits: UsageLimits = field(default_factory=UsageLimits)
    pays_per_token: bool = False  # where no session of the key pays
    auto_session: bool = False  # the OpenAI door opens a session when none is open

    @property
    def is_admin(self) -> bool:
        """Whether it may act for the platform."""
        return self.role is Role.ADMIN

    @property
    def key_name(self) -> str:
        """Its name in the contract."""
        return f"accounts/{self.account_id}/keys/{self.key_id}"


class Identities:
    """Finds the caller of an API key; remembers the answer for a moment, and no longer than the key is unchanged."""

    def __init__(self, database: Database, platform_secrets: PlatformSecrets) -> None:
        self._database = database
        self._secrets = platform_secrets
        self._remembered: dict[bytes, tuple[float, Caller]] = {}
        self._num_changes = 0  # of keys and accounts, as far as we heard

    async def run(self) -> None:
        """Forget whenever a key or an account was changed, in whichever process. Runs until cancelled."""
        async for _ in self._database.changes(KEYS, poll_seconds=_POLL_SECONDS):
            self._num_changes += 1
            self._remembered.clear()

    async def identify(self, api_key: str) -> Caller:
        """Return who the key belongs to. Raises ApiKeyInvalidError when it is unknown, revoked or expired."""
        if not is_well_formed(api_key):
            raise ApiKeyInvalidError
        hashed = hash_api_key(self._secrets.current, api_key)
        known = self._remembered.get(hashed)
        if known is not None and time.monotonic() - known[0] < FRESH_SECONDS:
            return known[1]
        asked, num_changes = time.monotonic(), self._num_changes
        found = await self._database.read(_find, hashed) or await self._find_under_old_secret(api_key)
        if found is None:
            self._remembered.pop(hashed, None)
            raise ApiKeyInvalidError
        caller = _caller(*found)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        if num_changes == self._num_changes:  # else what we read may be what was changed
            self._remembered[hashed] = (asked, caller)
        return caller

    async def _find_under_old_secret(self, api_key: str) -> tuple[ApiKey, Account] | None:
        """While the platform's secret is rotated, move the key to the new one: only now do we see the key itself."""
        current, old = self._secrets.current, self._secrets.old
        if old is None:
            return None
        found = await self._database.read(_find, hash_api_key(old, api_key))
        if found is not None:
            try:
                await self._database.write(api_keys.hash_anew, api_key, old, current)
            except StoreUnavailableError as error:
                logger.warning("a key stays under the platform's old secret: %s", error)
        return found


def _find(tx: Transaction, secret_hash: bytes) -> tuple[ApiKey, Account] | None:
    api_key = accounts.find_key_by_hash(tx, secret_hash)
    return None if api_key is None else (api_key, accounts.get_account(tx, api_key.account_id))


def _caller(api_key: ApiKey, account: Account) -> Caller:
    return Caller(
        account_id=api_key.account_id,
        key_id=api_key.key_id,
        role=api_key.role,
        default_model=api_key.default_model,
        pays_per_token=account.pays_per_token,
        auto_session=api_key.auto_session,
        scopes=api_key.scopes or ALL_SCOPES,
        account_limits=account.limits,
        key_limits=api_key.limits,
    )
