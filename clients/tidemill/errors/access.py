"""Who may do what: accounts and keys."""

from tidemill.errors.kinds import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)


class ApiKeyMissingError(UnauthenticatedError):
    """There is no API key: set TIDEMILL_API_KEY, pass api_key=, or run `tidemill serve`, which makes its user one."""

    reason = "API_KEY_MISSING"


class ApiKeyInvalidError(UnauthenticatedError):
    """The API key is unknown, revoked or expired."""

    reason = "API_KEY_INVALID"


class RoleRequiredError(PermissionDeniedError):
    """The key's role does not allow the call."""

    reason = "ROLE_REQUIRED"


class ScopeRequiredError(PermissionDeniedError):
    """The key has scopes, and none of them allows the call."""

    reason = "SCOPE_REQUIRED"


class AccountNotFoundError(NotFoundError):
    """There is no such account that this key may act on."""

    reason = "ACCOUNT_NOT_FOUND"


class AccountExistsError(AlreadyExistsError):
    """There is an account of that name: choose another one."""

    reason = "ACCOUNT_EXISTS"


class ApiKeyNotFoundError(NotFoundError):
    """There is no such key that this key may act on."""

    reason = "API_KEY_NOT_FOUND"


class ApiKeyRevokedError(FailedPreconditionError):
    """The key was revoked, which is for good: make a new one."""

    reason = "API_KEY_REVOKED"


class LastAdminKeyError(FailedPreconditionError):
    """Without this key nobody could administer the platform any more: make another one first."""

    reason = "LAST_ADMIN_KEY"
