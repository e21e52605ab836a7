"""The methods of the contract that the client calls, each with what it takes and what it answers."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from tidemill.v1 import account_pb2, billing_pb2, inference_pb2, model_pb2, session_pb2

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Reply]):
    """One rpc."""

    path: str
    request: type[Request]
    reply: type[Reply]
    streams: bool = False
    """Whether it answers with a stream."""


_SESSION = "/tidemill.v1.SessionService/"
START_SESSION = Method(_SESSION + "StartSession", session_pb2.StartSessionRequest, session_pb2.StartSessionResponse)
STOP_SESSION = Method(_SESSION + "StopSession", session_pb2.StopSessionRequest, session_pb2.StopSessionResponse)
GET_SESSION = Method(_SESSION + "GetSession", session_pb2.GetSessionRequest, session_pb2.Session)
LIST_SESSIONS = Method(_SESSION + "ListSessions", session_pb2.ListSessionsRequest, session_pb2.ListSessionsResponse)
UPDATE_SESSION = Method(_SESSION + "UpdateSession", session_pb2.UpdateSessionRequest, session_pb2.Session)
WATCH_SESSION = Method(
    _SESSION + "WatchSession", session_pb2.WatchSessionRequest, session_pb2.SessionMeter, streams=True
)
HEARTBEAT_SESSION = Method(
    _SESSION + "HeartbeatSession", session_pb2.HeartbeatSessionRequest, session_pb2.HeartbeatSessionResponse
)

_MODEL = "/tidemill.v1.ModelService/"
LIST_MODELS = Method(_MODEL + "ListModels", model_pb2.ListModelsRequest, model_pb2.ListModelsResponse)
GET_MODEL = Method(_MODEL + "GetModel", model_pb2.GetModelRequest, model_pb2.Model)
START_MODEL = Method(_MODEL + "StartModel", model_pb2.StartModelRequest, model_pb2.Model)
STOP_MODEL = Method(_MODEL + "StopModel", model_pb2.StopModelRequest, model_pb2.Model)
WATCH_MODEL = Method(_MODEL + "WatchModel", model_pb2.WatchModelRequest, model_pb2.WatchModelResponse, streams=True)

_INFERENCE = "/tidemill.v1.InferenceService/"
GENERATE = Method(_INFERENCE + "Generate", inference_pb2.GenerateRequest, inference_pb2.GenerateResponse, streams=True)
COMPLETE = Method(_INFERENCE + "Complete", inference_pb2.GenerateRequest, inference_pb2.CompleteResponse)
CANCEL_GENERATION = Method(
    _INFERENCE + "CancelGeneration", inference_pb2.CancelGenerationRequest, inference_pb2.CancelGenerationResponse
)
GENERATE_BATCH = Method(
    _INFERENCE + "GenerateBatch", inference_pb2.GenerateBatchRequest, inference_pb2.GenerateBatchResponse, streams=True
)

_ACCOUNT = "/tidemill.v1.AccountService/"
GET_ACCOUNT = Method(_ACCOUNT + "GetAccount", account_pb2.GetAccountRequest, account_pb2.Account)
CREATE_ACCOUNT = Method(_ACCOUNT + "CreateAccount", account_pb2.CreateAccountRequest, account_pb2.Account)
UPDATE_ACCOUNT = Method(_ACCOUNT + "UpdateAccount", account_pb2.UpdateAccountRequest, account_pb2.Account)
LIST_ACCOUNTS = Method(_ACCOUNT + "ListAccounts", account_pb2.ListAccountsRequest, account_pb2.ListAccountsResponse)
CREATE_API_KEY = Method(_ACCOUNT + "CreateApiKey", account_pb2.CreateApiKeyRequest, account_pb2.CreateApiKeyResponse)
GET_API_KEY = Method(_ACCOUNT + "GetApiKey", account_pb2.GetApiKeyRequest, account_pb2.ApiKey)
LIST_API_KEYS = Method(_ACCOUNT + "ListApiKeys", account_pb2.ListApiKeysRequest, account_pb2.ListApiKeysResponse)
UPDATE_API_KEY = Method(_ACCOUNT + "UpdateApiKey", account_pb2.UpdateApiKeyRequest, account_pb2.ApiKey)
ROTATE_API_KEY = Method(_ACCOUNT + "RotateApiKey", account_pb2.RotateApiKeyRequest, account_pb2.RotateApiKeyResponse)
REVOKE_API_KEY = Method(_ACCOUNT + "RevokeApiKey", account_pb2.RevokeApiKeyRequest, account_pb2.ApiKey)
LIST_AUDIT_EVENTS = Method(
    _ACCOUNT + "ListAuditEvents", account_pb2.ListAuditEventsRequest, account_pb2.ListAuditEventsResponse
)
GRANT_CREDITS = Method(_ACCOUNT + "GrantCredits", billing_pb2.GrantCreditsRequest, billing_pb2.LedgerEntry)
REFUND_CREDITS = Method(_ACCOUNT + "RefundCredits", billing_pb2.RefundCreditsRequest, billing_pb2.LedgerEntry)
CORRECT_BALANCE = Method(_ACCOUNT + "CorrectBalance", billing_pb2.CorrectBalanceRequest, billing_pb2.LedgerEntry)
LIST_LEDGER_ENTRIES = Method(
    _ACCOUNT + "ListLedgerEntries", billing_pb2.ListLedgerEntriesRequest, billing_pb2.ListLedgerEntriesResponse
)
GET_RECEIPT = Method(_ACCOUNT + "GetReceipt", billing_pb2.GetReceiptRequest, billing_pb2.Receipt)
GET_LEDGER_BLOCK = Method(_ACCOUNT + "GetLedgerBlock", billing_pb2.GetLedgerBlockRequest, billing_pb2.LedgerBlock)
GET_USAGE_REPORT = Method(_ACCOUNT + "GetUsageReport", billing_pb2.GetUsageReportRequest, billing_pb2.UsageReport)
LIST_PRICES = Method(_ACCOUNT + "ListPrices", billing_pb2.ListPricesRequest, billing_pb2.ListPricesResponse)
SET_PRICE = Method(_ACCOUNT + "SetPrice", billing_pb2.SetPriceRequest, billing_pb2.Price)
