"""What exists at a server under fuzz, so that many messages get beyond the look at their fields."""

import time
from collections.abc import Mapping

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.fuzzing.target import ANSWER_SECONDS
from tests.fuzzing.values import Known
from tests.integration.api.conftest import MODEL, Wire, wait_until
from tidemill.v1 import account_pb2, billing_pb2, inference_pb2, model_pb2, session_pb2
from tidemill_services.api.account_messages import ACCOUNT_PATHS, KEY_PATHS
from tidemill_services.api.session_messages import UPDATED_PATHS

OTHER_MODEL = "tiny-llama-positions"  # nobody needs it: it may be stopped, and be dear
CUSTOMER = "accounts/customer"  # may lose keys and credits
FUZZER = "accounts/local"  # whose key the fuzz has
PROMPT = inference_pb2.Input(prompt="once upon a time")
SAMPLING = inference_pb2.Sampling(
    temperature=0.7,
    top_p=0.9,
    top_k=5,
    seed=1,
    min_p=0.1,
    repetition_penalty=1.1,
    presence_penalty=0.1,
    frequency_penalty=0.1,
    logit_bias={5: 1.0},
)
FEW = inference_pb2.GenerationOptions(max_tokens=3, sampling=SAMPLING, stop=["zz", "yy"], top_logprobs=2)
SIXTY_SECONDS = Duration(seconds=60)


class World:
    """An account with keys, two ended sessions, one with its receipt, and, renewed for each method, an open session."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        accounts, metadata = wire.accounts, wire.metadata
        accounts.CreateAccount(account_pb2.CreateAccountRequest(account_id="customer"), metadata=metadata)
        for account in (CUSTOMER, FUZZER):
            grant = billing_pb2.GrantCreditsRequest(account=account, amount_microcredits=10**14, reason="for the fuzz")
            accounts.GrantCredits(grant, metadata=metadata)
        make = account_pb2.CreateApiKeyRequest(account=CUSTOMER)
        self._key, self._lost_key = (accounts.CreateApiKey(make, metadata=metadata).api_key.name for _ in range(2))
        keeper = accounts.CreateAccount(account_pb2.CreateAccountRequest(account_id="keeper"), metadata=metadata).name
        admin = account_pb2.ApiKey(role=account_pb2.ApiKey.ROLE_ADMIN)
        make = account_pb2.CreateApiKeyRequest(account=keeper, api_key=admin)
        secret = accounts.CreateApiKey(make, metadata=metadata).secret
        self._keepers_metadata = (("authorization", f"Bearer {secret}"),)
        self._ended, self._paid = self._ended_session(), self._ended_session()
        wait_until(self._has_receipt, "that the receipt of the ended session is there", ANSWER_SECONDS)
        page = wire.sessions.ListSessions(session_pb2.ListSessionsRequest(page_size=1), metadata=metadata)
        self._page_token = page.next_page_token
        self._session = ""

    def _ended_session(self) -> str:
        """One that cost something, which can be given back."""
        name = self._wire.start().session.name
        request = session_pb2.GetSessionRequest(name=name)

        def costs_something() -> bool:
            session = self._wire.sessions.GetSession(request, metadata=self._wire.metadata)
            return session.bill.cost_microcredits > 0

        wait_until(costs_something, "that the session costs something", ANSWER_SECONDS)
        self._wire.stop()
        return name

    def _has_receipt(self) -> bool:
        request = billing_pb2.GetReceiptRequest(session=self._ended)
        try:
            return self._wire.accounts.GetReceipt(request, metadata=self._wire.metadata).final
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False

    def lift_limits(self) -> None:
        """Of the account that fuzzes: it may have set itself some, and is refused from then on."""
        request = account_pb2.UpdateAccountRequest(
            account=account_pb2.Account(name=FUZZER), update_mask=FieldMask(paths=["limits"])
        )
        self._wire.accounts.UpdateAccount(request, metadata=self._keepers_metadata)

    def renew(self) -> None:
        """An open session, whatever became of the one before."""
        self._session = self._wire.start(holder="somebody").session.name

    def known(self) -> Known:
        """Values that exist, by the names of the fields that take them."""
        models = [*[MODEL] * 6, f"models/{MODEL}", f"models/{OTHER_MODEL}", "tide-nano", "", "no-such-model"]
        sessions = ["", self._session, self._session, self._ended, self._paid]
        return {
            "model": models,
            "default_model": [MODEL, ""],
            "name": [*models[5:], *sessions, CUSTOMER, CUSTOMER, self._key, self._key, self._lost_key],
            "account": ["", CUSTOMER, CUSTOMER, "accounts/nobody"],
            "account_id": ["", "customer", "somebody"],
            "session": sessions,
            "subject": sessions,
            "request_id": ["", "first", "second"],
            "holder": ["", "somebody"],
            "page_token": ["", self._page_token],
            "page_size": [0, 1, 3],
            "prompt": ["once upon a time", "the tide"],
            "role": ["user", "system", "assistant"],
            "reason": ["for the fuzz"],
            "amount_microcredits": [1, 5, -5],
            "template": ["", "default"],
            "max_tokens": [1, 5, 20],
            "temperature": [0.0, 0.7],
            "top_p": [1.0, 0.5, 1e-40],
            "top_k": [0, 3, 2**31 - 1],
            "stop": ["the", "x"],
            "seconds": [0, 5, 60, round(time.time())],
            "nanos": [0, 1],
            "service": ["", "tidemill.v1.SessionService", "grpc.health.v1.Health"],
            "file_containing_symbol": ["tidemill.v1.SessionService", "grpc.health.v1.Health"],
            "paths": sorted(ACCOUNT_PATHS | KEY_PATHS | UPDATED_PATHS),
        }

    def right(self) -> Mapping[str, Message]:
        """By the method's path, a message that it takes; of a service that is not built yet there is none."""
        services = {
            "tidemill.v1.AccountService": self._of_accounts() | self._of_billing(),
            "tidemill.v1.InferenceService": self._of_inference(),
            "tidemill.v1.ModelService": self._of_models(),
            "tidemill.v1.SessionService": self._of_sessions(),
            "grpc.health.v1.Health": {
                "Check": health_pb2.HealthCheckRequest(),
                "Watch": health_pb2.HealthCheckRequest(),
            },
            "grpc.reflection.v1alpha.ServerReflection": {
                "ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(list_services="")
            },
        }
        return {
            f"/{service}/{method}": message
            for service, methods in services.items()
            for method, message in methods.items()
        }

    def _of_accounts(self) -> dict[str, Message]:
        limits = account_pb2.UsageLimits(concurrent_sessions=7)
        key = account_pb2.ApiKey(display_name="a key", default_model=MODEL, limits=limits)
        named_key = account_pb2.ApiKey(name=self._key, display_name="the key")
        account = account_pb2.Account(name=CUSTOMER, display_name="Ada & Co", use_cache=True)
        return {
            "GetAccount": account_pb2.GetAccountRequest(name=CUSTOMER),
            "CreateAccount": account_pb2.CreateAccountRequest(account=account_pb2.Account(limits=limits)),
            "UpdateAccount": account_pb2.UpdateAccountRequest(
                account=account, update_mask=FieldMask(paths=["display_name", "use_cache"])
            ),
            "ListAccounts": account_pb2.ListAccountsRequest(page_size=3),
            "CreateApiKey": account_pb2.CreateApiKeyRequest(account=CUSTOMER, api_key=key),
            "GetApiKey": account_pb2.GetApiKeyRequest(name=self._key),
            "ListApiKeys": account_pb2.ListApiKeysRequest(account=CUSTOMER, page_size=3),
            "UpdateApiKey": account_pb2.UpdateApiKeyRequest(
                api_key=named_key, update_mask=FieldMask(paths=["display_name"])
            ),
            "RotateApiKey": account_pb2.RotateApiKeyRequest(name=self._key, overlap=SIXTY_SECONDS),
            "RevokeApiKey": account_pb2.RevokeApiKeyRequest(name=self._lost_key),
            "ListAuditEvents": account_pb2.ListAuditEventsRequest(account=CUSTOMER, page_size=3),
        }

    def _of_billing(self) -> dict[str, Message]:
        some = {"account": CUSTOMER, "amount_microcredits": 1, "reason": "for the fuzz"}
        price = billing_pb2.Price(model=f"models/{OTHER_MODEL}", account=CUSTOMER, session_microcredits_per_second=5)
        return {
            "GrantCredits": billing_pb2.GrantCreditsRequest(**some),
            "RefundCredits": billing_pb2.RefundCreditsRequest(
                session=self._paid, amount_microcredits=1, reason="for the fuzz"
            ),
            "CorrectBalance": billing_pb2.CorrectBalanceRequest(**some),
            "ListLedgerEntries": billing_pb2.ListLedgerEntriesRequest(account=CUSTOMER, page_size=3),
            "GetReceipt": billing_pb2.GetReceiptRequest(session=self._ended),
            "GetLedgerBlock": billing_pb2.GetLedgerBlockRequest(number=1),
            "GetUsageReport": billing_pb2.GetUsageReportRequest(
                start_time=Timestamp(seconds=round(time.time()) - 86_400),
                group_by=[billing_pb2.GetUsageReportRequest.GROUP_BY_MODEL],
            ),
            "ListPrices": billing_pb2.ListPricesRequest(account=CUSTOMER, include_history=True, page_size=3),
            "SetPrice": billing_pb2.SetPriceRequest(price=price),
        }

    def _of_inference(self) -> dict[str, Message]:
        return {
            "Generate": inference_pb2.GenerateRequest(model=MODEL, input=PROMPT, options=FEW),
            "Complete": inference_pb2.GenerateRequest(model=MODEL, input=PROMPT, options=FEW),
            "GenerateBatch": inference_pb2.GenerateBatchRequest(model=MODEL, inputs=[PROMPT], options=FEW),
            "CancelGeneration": inference_pb2.CancelGenerationRequest(request_id="first"),
        }

    def _of_models(self) -> dict[str, Message]:
        return {
            "ListModels": model_pb2.ListModelsRequest(page_size=3),
            "GetModel": model_pb2.GetModelRequest(name=MODEL),
            "StartModel": model_pb2.StartModelRequest(name=MODEL),
            "StopModel": model_pb2.StopModelRequest(name=OTHER_MODEL),
            "WatchModel": model_pb2.WatchModelRequest(name=MODEL),
        }

    def _of_sessions(self) -> dict[str, Message]:
        limits = session_pb2.SessionLimits(idle_timeout=SIXTY_SECONDS)
        session = session_pb2.Session(name=self._session, labels={"team": "mill"}, limits=limits)
        return {
            "StartSession": session_pb2.StartSessionRequest(model=MODEL, holder="somebody", labels={"team": "mill"}),
            "StopSession": session_pb2.StopSessionRequest(name=self._session, holder="somebody"),
            "GetSession": session_pb2.GetSessionRequest(name=self._session),
            "ListSessions": session_pb2.ListSessionsRequest(page_size=3),
            "UpdateSession": session_pb2.UpdateSessionRequest(
                session=session, update_mask=FieldMask(paths=["labels", "limits.idle_timeout"])
            ),
            "WatchSession": session_pb2.WatchSessionRequest(name=self._session),
            "HeartbeatSession": session_pb2.HeartbeatSessionRequest(name=self._session, holder="somebody"),
        }
