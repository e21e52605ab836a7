"""Which account a request means, and whether its caller may."""

from tidemill_services.api import convert
from tidemill_services.domain.errors import AccountNotFoundError
from tidemill_services.identity import Caller


def account_meant(caller: Caller, name: str, field: str) -> str:
    """The id of the account that a request names; an empty name is the caller's own.

    Raises AccountNotFoundError for another one, unless the caller is an administrator, whether it is there or not.
    """
    account_id = convert.account_id(name, field) or caller.account_id
    if account_id != caller.account_id and not caller.is_admin:
        raise AccountNotFoundError(field=field)
    return account_id
