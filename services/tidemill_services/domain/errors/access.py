"""Who may do what: accounts and keys."""

from tidemill_services.domain.errors.kinds import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)


class ApiKeyMissingError(UnauthenticatedError):
    """No API key came with the call: send it as the metadata `authorization: Bearer <key>`."""

    reason = "API_KEY_MISSING"


class ApiKeyInvalidError(UnauthenticatedError):
    """The API key is unknown, revoked or expired."""

    reason = "API_KEY_INVALID"


class RoleRequiredError(PermissionDeniedError):
    """This needs a key with the role admin."""

    reason = "ROLE_REQUIRED"


class ScopeRequiredError(PermissionDeniedError):
    """The key has scopes, and none of them allows this."""

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
    """This is the last administrator's key that can manage accounts and never expires: make another one first."""

    reason = "LAST_ADMIN_KEY"
