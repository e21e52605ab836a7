"""What each method and each page asks of a key: the one table of both doors. What is not in it is served to nobody.

A key without scopes has them all. The role admin is asked for here where a whole method is an
administrator's; where only a field of it is, the servicer asks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from tidemill_services.domain.api_key import Role, Scope
from tidemill_services.domain.errors import RoleRequiredError, ScopeRequiredError
from tidemill_services.identity import Caller


class Counting(Enum):
    """Where a call is counted among the requests per minute."""

    DOOR = "door"
    USERS = "users"  # at the door, but an administrator's nowhere: no limit keeps them from lifting one
    SERVICER = "servicer"  # which knows the calls that begin nothing
    NOWHERE = "nowhere"  # no limit refuses it, that of its connection's calls included


@dataclass(frozen=True, slots=True)
class Access:
    """What a key needs."""

    scope: Scope | None  # None: any key may
    role: Role = Role.USER
    counting: Counting = Counting.DOOR


_ANY = Access(None)
_INFERENCE = Access(Scope.INFERENCE)
_GENERATE = Access(Scope.INFERENCE, counting=Counting.SERVICER)  # a stream that was cut goes on without being counted
_ALWAYS_SESSIONS = Access(Scope.SESSIONS, counting=Counting.NOWHERE)  # a limit keeps nobody from stopping to pay
_ALWAYS_INFERENCE = Access(Scope.INFERENCE, counting=Counting.NOWHERE)  # nor from ending what runs
_SESSIONS = Access(Scope.SESSIONS)
_MODELS = Access(Scope.MODELS)
_JOBS = Access(Scope.JOBS)
_ACCOUNT = Access(Scope.ACCOUNT)
_LIFTS_LIMITS = Access(Scope.ACCOUNT, counting=Counting.USERS)
_ADMIN = Access(Scope.ACCOUNT, role=Role.ADMIN)

SERVICES: Mapping[str, Mapping[str, Access]] = {
    "tidemill.v1.SessionService": {
        "StartSession": _SESSIONS,
        "StopSession": _ALWAYS_SESSIONS,
        "GetSession": _SESSIONS,
        "ListSessions": _SESSIONS,
        "UpdateSession": _SESSIONS,
        "WatchSession": _SESSIONS,
        "HeartbeatSession": _ALWAYS_SESSIONS,
    },
    "tidemill.v1.ModelService": {
        "ListModels": _ANY,
        "GetModel": _ANY,
        "StartModel": _MODELS,
        "StopModel": _MODELS,
        "WatchModel": _ANY,
    },
    "tidemill.v1.InferenceService": {
        "Generate": _GENERATE,
        "Complete": _GENERATE,
        "GenerateBatch": _INFERENCE,
        "CancelGeneration": _ALWAYS_INFERENCE,
    },
    "tidemill.v1.JobService": {
        "EstimateJobCost": _JOBS,
        "SubmitJob": _JOBS,
        "GetJob": _JOBS,
        "ListJobs": _JOBS,
        "UpdateJob": _JOBS,
        "CancelJob": _JOBS,
        "RetryJob": _JOBS,
        "WatchJob": _JOBS,
        "StreamJobResults": _JOBS,
    },
    "tidemill.v1.AccountService": {
        "GetAccount": _ACCOUNT,
        "CreateAccount": _ADMIN,
        "UpdateAccount": _LIFTS_LIMITS,
        "ListAccounts": _ADMIN,
        "CreateApiKey": _ACCOUNT,
        "GetApiKey": _ACCOUNT,
        "ListApiKeys": _ACCOUNT,
        "UpdateApiKey": _LIFTS_LIMITS,
        "RotateApiKey": _ACCOUNT,
        "RevokeApiKey": _ACCOUNT,
        "ListAuditEvents": _ACCOUNT,
        "GrantCredits": _ADMIN,
        "RefundCredits": _ADMIN,
        "CorrectBalance": _ADMIN,
        "ListLedgerEntries": _ACCOUNT,
        "GetReceipt": _ACCOUNT,
        "GetLedgerBlock": _ACCOUNT,
        "GetUsageReport": _ACCOUNT,
        "ListPrices": _ANY,
        "SetPrice": _ADMIN,
    },
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _ANY},
}
METHODS = {f"/{service}/{name}": access for service, methods in SERVICES.items() for name, access in methods.items()}
PAGES: Mapping[str, Access] = {
    "/v1/models": _ANY,
    "/v1/models/{model:path}": _ANY,
    "/v1/chat/completions": _INFERENCE,
    "/v1/completions": _INFERENCE,
}


def check_access(caller: Caller, access: Access | None, what: str) -> Access:
    """Raise ScopeRequiredError or RoleRequiredError unless the key may do this; return what was asked of it.

    `access` is what the table says of it; what it does not know is nobody's.
    """
    if access is None:
        raise ScopeRequiredError(f"No key may use {what}.")
    if access.scope is not None and access.scope not in caller.scopes:
        raise ScopeRequiredError(f"The key's scopes do not allow this: it needs the scope {access.scope.lower()}.")
    if access.role is Role.ADMIN and not caller.is_admin:
        raise RoleRequiredError
    return access
