"""Tidemill's client: ask a model from one line of code, pay for the time between start and stop.

    import tidemill

    with tidemill.Client() as client, client.session("tide-nano"):
        client.print_prompt(client.complete_prompt("What is a tide mill?"))

`AsyncClient` is the same with asyncio, `OneLine` the same with the key first and nothing to keep.
"""

import os

# gRPC reads it once, when it is imported; else it writes of every handshake that fails, beside the error that we raise.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from tidemill.account_results import Account, ApiKey, AuditChange, AuditEvent, NewSecret, UsageLimits
from tidemill.accounts import Accounts
from tidemill.async_accounts import AsyncAccounts
from tidemill.async_client import AsyncClient
from tidemill.billing_results import LedgerBlock, LedgerEntry, Price, UsageReport, UsageRow
from tidemill.client import Client
from tidemill.errors import (
    AccountExistsError,
    AccountNotFoundError,
    AlreadyExistsError,
    ApiKeyInvalidError,
    ApiKeyMissingError,
    ApiKeyNotFoundError,
    ApiKeyRevokedError,
    BatchError,
    CallCancelledError,
    ChatTemplateRefusedError,
    ChatUnsupportedError,
    ConfigError,
    ConnectionFullError,
    ContextExceededError,
    DeadlineExceededError,
    DrainingError,
    FailedPreconditionError,
    FieldInvalidError,
    GenerationEndedError,
    GenerationLostError,
    InsufficientCreditsError,
    InternalError,
    InvalidArgumentError,
    LastAdminKeyError,
    LedgerBlockNotFoundError,
    LimitReachedError,
    ModelColdError,
    ModelFailedError,
    ModelInUseError,
    ModelNotFoundError,
    ModelRequiredError,
    NoSessionError,
    NotFoundError,
    PermissionDeniedError,
    PromptEmptyError,
    ProtocolError,
    QueueFullError,
    ReaderTooSlowError,
    ReceiptNotReadyError,
    ReceiptUnreadableError,
    RefundExceedsChargeError,
    ReplicaLostError,
    RequestIdReusedError,
    ResourceExhaustedError,
    RoleRequiredError,
    RoleUnknownError,
    ScopeRequiredError,
    SessionDiffersError,
    SessionEndedError,
    SessionNotFoundError,
    StoreUnavailableError,
    TidemillError,
    TlsError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnreachableError,
)
from tidemill.face import MoreOptions, SessionOptions
from tidemill.one_line import OneLine
from tidemill.open_session import AsyncOpenSession, OpenSession
from tidemill.printing import PrintedAnswer
from tidemill.receipt import Receipt, ReceiptEntry
from tidemill.receipt_file import read_receipt, write_receipt
from tidemill.receipt_proof import Verification, verify_receipt
from tidemill.results import Candidate, Completion, Model, ModelPrices, Progress, TokenLogprob, Usage
from tidemill.session_results import Bill, Limits, Meter, Session, SessionWarning
from tidemill.streams import AsyncStream, AsyncTextStream, Stream, TextStream

__version__ = "0.1.0"  # as in pyproject.toml, which a test compares; asking the installation takes longer than all else

__all__ = [
    "Account",
    "AccountExistsError",
    "AccountNotFoundError",
    "Accounts",
    "AlreadyExistsError",
    "ApiKey",
    "ApiKeyInvalidError",
    "ApiKeyMissingError",
    "ApiKeyNotFoundError",
    "ApiKeyRevokedError",
    "AsyncAccounts",
    "AsyncClient",
    "AsyncOpenSession",
    "AsyncStream",
    "AsyncTextStream",
    "AuditChange",
    "AuditEvent",
    "BatchError",
    "Bill",
    "CallCancelledError",
    "Candidate",
    "ChatTemplateRefusedError",
    "ChatUnsupportedError",
    "Client",
    "Completion",
    "ConfigError",
    "ConnectionFullError",
    "ContextExceededError",
    "DeadlineExceededError",
    "DrainingError",
    "FailedPreconditionError",
    "FieldInvalidError",
    "GenerationEndedError",
    "GenerationLostError",
    "InsufficientCreditsError",
    "InternalError",
    "InvalidArgumentError",
    "LastAdminKeyError",
    "LedgerBlock",
    "LedgerBlockNotFoundError",
    "LedgerEntry",
    "LimitReachedError",
    "Limits",
    "Meter",
    "Model",
    "ModelColdError",
    "ModelFailedError",
    "ModelInUseError",
    "ModelNotFoundError",
    "ModelPrices",
    "ModelRequiredError",
    "MoreOptions",
    "NewSecret",
    "NoSessionError",
    "NotFoundError",
    "OneLine",
    "OpenSession",
    "PermissionDeniedError",
    "Price",
    "PrintedAnswer",
    "Progress",
    "PromptEmptyError",
    "ProtocolError",
    "QueueFullError",
    "ReaderTooSlowError",
    "Receipt",
    "ReceiptEntry",
    "ReceiptNotReadyError",
    "ReceiptUnreadableError",
    "RefundExceedsChargeError",
    "ReplicaLostError",
    "RequestIdReusedError",
    "ResourceExhaustedError",
    "RoleRequiredError",
    "RoleUnknownError",
    "ScopeRequiredError",
    "Session",
    "SessionDiffersError",
    "SessionEndedError",
    "SessionNotFoundError",
    "SessionOptions",
    "SessionWarning",
    "StoreUnavailableError",
    "Stream",
    "TextStream",
    "TidemillError",
    "TlsError",
    "TokenLogprob",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnreachableError",
    "Usage",
    "UsageLimits",
    "UsageReport",
    "UsageRow",
    "Verification",
    "__version__",
    "read_receipt",
    "verify_receipt",
    "write_receipt",
]


def __dir__() -> list[str]:
    """The public names alone; what lies beside them is how they are made."""
    return sorted(__all__)
