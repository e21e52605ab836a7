"""An account: who owns keys and pays."""

import re
from dataclasses import dataclass, field

from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.domain.limits import UsageLimits

_ACCOUNT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays. Times are milliseconds since 1970."""

    account_id: str
    display_name: str
    create_ms: int
    use_cache: bool = True
    pays_per_token: bool = False  # where no session of the key pays
    limits: UsageLimits = field(default_factory=UsageLimits)

    @property
    def resource_name(self) -> str:
        """Its name in the contract."""
        return f"accounts/{self.account_id}"

    def facts(self) -> dict[str, object]:
        """Its settings by the names of the contract."""
        return {
            "display_name": self.display_name,
            "use_cache": self.use_cache,
            "pays_per_token": self.pays_per_token,
            **self.limits.facts(),
        }


def check_account_id(account_id: str) -> None:
    """Raise FieldInvalidError unless this can name a new account."""
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise FieldInvalidError(f"account_id must be {_ACCOUNT_ID.pattern}.", field="account_id")
