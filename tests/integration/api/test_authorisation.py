"""Who may do what: every rpc and every page that is served, with every key that must open nothing.

What is open, what is an account's own and what needs an administrator stands in the tables below. A new rpc or page is
walked by itself, and one that is served and in no table fails here until somebody has thought about it.
"""

import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from starlette.routing import Route

from tests.fuzzing.methods import Method, methods_of, reflected_methods
from tests.integration.api.conftest import MODEL, wire_to
from tests.keys import make_key, revoke_key
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import (
    account_pb2,
    account_pb2_grpc,
    billing_pb2,
    inference_pb2,
    inference_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from tidemill_services.api import server as api_server
from tidemill_services.api.interceptors import CallInterceptor
from tidemill_services.calls import Calls
from tidemill_services.domain.api_key import format_api_key
from tidemill_services.domain.errors import ApiKeyInvalidError
from tidemill_services.gateway.public import public_routes
from tidemill_services.identity import Caller
from tidemill_services.metrics import Metrics
from tidemill_telemetry.tracing import NoTracing

HEALTH = tuple(method.path for method in methods_of(health_pb2.DESCRIPTOR.services_by_name["Health"]))
REFLECTION = tuple(method.path for method in methods_of(reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]))
OPEN_METHODS = {*HEALTH, *REFLECTION}  # reflection on loopback only: test_ports.py
OPEN_PAGES = {"/healthz"}

SESSIONS, MODELS, INFERENCE, ACCOUNTS = (
    f"/tidemill.v1.{name}Service/" for name in ("Session", "Model", "Inference", "Account")
)
# What any valid key may do, as it names nothing of another account.
SHARED = {
    f"{SESSIONS}StartSession",
    f"{SESSIONS}ListSessions",
    f"{ACCOUNTS}GetLedgerBlock",  # hashes and counts
    f"{INFERENCE}CancelGeneration",  # an id means a generation of the caller's account
    *(f"{MODELS}{name}" for name in ("ListModels", "GetModel", "StartModel", "StopModel", "WatchModel")),
}
ADMIN_ONLY: dict[str, Message] = {
    f"{MODELS}StopModel": model_pb2.StopModelRequest(name=MODEL, force=True),
    f"{ACCOUNTS}CreateAccount": account_pb2.CreateAccountRequest(account_id="of-a-user"),
    f"{ACCOUNTS}ListAccounts": account_pb2.ListAccountsRequest(),
    f"{ACCOUNTS}GrantCredits": billing_pb2.GrantCreditsRequest(
        account="accounts/neighbour", amount_microcredits=1, reason="for me"
    ),
    f"{ACCOUNTS}RefundCredits": billing_pb2.RefundCreditsRequest(session="sessions/0123", reason="for me"),
    f"{ACCOUNTS}CorrectBalance": billing_pb2.CorrectBalanceRequest(
        account="accounts/neighbour", amount_microcredits=1, reason="for me"
    ),
    f"{ACCOUNTS}SetPrice": billing_pb2.SetPriceRequest(price=billing_pb2.Price(model=f"models/{MODEL}")),
}
# What names an account or a key, here the administrator's own.
LOCAL, LOCAL_KEY = "accounts/local", "accounts/local/keys/0123"
NAMES_ACCOUNT: dict[str, Message] = {
    f"{ACCOUNTS}GetAccount": account_pb2.GetAccountRequest(name=LOCAL),
    f"{ACCOUNTS}UpdateAccount": account_pb2.UpdateAccountRequest(account=account_pb2.Account(name=LOCAL)),
    f"{ACCOUNTS}CreateApiKey": account_pb2.CreateApiKeyRequest(account=LOCAL),
    f"{ACCOUNTS}ListApiKeys": account_pb2.ListApiKeysRequest(account=LOCAL),
    f"{ACCOUNTS}ListAuditEvents": account_pb2.ListAuditEventsRequest(account=LOCAL),
    f"{ACCOUNTS}ListLedgerEntries": billing_pb2.ListLedgerEntriesRequest(account=LOCAL),
    f"{ACCOUNTS}GetUsageReport": billing_pb2.GetUsageReportRequest(account=LOCAL),
    f"{ACCOUNTS}ListPrices": billing_pb2.ListPricesRequest(account=LOCAL),
}
NAMES_KEY: dict[str, Message] = {
    f"{ACCOUNTS}GetApiKey": account_pb2.GetApiKeyRequest(name=LOCAL_KEY),
    f"{ACCOUNTS}UpdateApiKey": account_pb2.UpdateApiKeyRequest(
        api_key=account_pb2.ApiKey(name=LOCAL_KEY), update_mask=FieldMask(paths=["display_name"])
    ),
    f"{ACCOUNTS}RotateApiKey": account_pb2.RotateApiKeyRequest(name=LOCAL_KEY),
    f"{ACCOUNTS}RevokeApiKey": account_pb2.RevokeApiKeyRequest(name=LOCAL_KEY),
}


def of_account(session: str) -> dict[str, Message]:
    """Each method that takes something of an account, with a request for this session."""
    some = inference_pb2.Input(prompt="x")
    return {
        f"{SESSIONS}GetSession": session_pb2.GetSessionRequest(name=session),
        f"{SESSIONS}StopSession": session_pb2.StopSessionRequest(name=session, all_holders=True),
        f"{SESSIONS}UpdateSession": session_pb2.UpdateSessionRequest(
            session=session_pb2.Session(name=session), update_mask=FieldMask(paths=["labels"])
        ),
        f"{SESSIONS}WatchSession": session_pb2.WatchSessionRequest(name=session),
        f"{SESSIONS}HeartbeatSession": session_pb2.HeartbeatSessionRequest(name=session),
        f"{ACCOUNTS}GetReceipt": billing_pb2.GetReceiptRequest(session=session),
        f"{INFERENCE}Generate": inference_pb2.GenerateRequest(model=MODEL, session=session, input=some),
        f"{INFERENCE}Complete": inference_pb2.GenerateRequest(model=MODEL, session=session, input=some),
        f"{INFERENCE}GenerateBatch": inference_pb2.GenerateBatchRequest(model=MODEL, session=session, inputs=[some]),
    }


@dataclass(frozen=True, slots=True)
class Doors:
    """A server, and keys."""

    server: ServerProcess
    methods: list[Method]
    user: str  # of another account than the server's own administrator
    bad: Mapping[str, str]  # what stands in `authorization`, by what is wrong with it


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("doors")
    user, revoked = make_key(folder, "neighbour"), make_key(folder, "neighbour")
    expired = make_key(folder, "neighbour", expire_ms=1)
    revoke_key(folder, revoked)
    bad = {
        "empty": "",
        "no scheme's word": "Bearer",
        "no key": "Bearer ",
        "another scheme": f"Basic {user}",
        "no key's form": "Bearer tm_short",
        "longer": f"Bearer {user}x",
        "another letter": f"Bearer {user[:-1]}{'a' if user[-1] != 'a' else 'b'}",
        "of nobody": f"Bearer {format_api_key(bytes(32))}",
        "injected": "Bearer ' OR 1=1 --",
        "two": f"Bearer {revoked} {user}",
        "huge": f"Bearer {'x' * 4000}",
        "expired": f"Bearer {expired}",
        "revoked": f"Bearer {revoked}",
    }
    with server_process(folder, "--replica-device", "fake") as server:
        with grpc.insecure_channel(server.grpc) as channel:
            methods = reflected_methods(channel)
        yield Doors(server, methods, user, bad)


def ended(address: str, method: Method, content: bytes, authorization: str | None) -> tuple[grpc.StatusCode, str]:
    """The code and our reason of a call that is refused; OK as soon as anything comes back."""
    metadata = () if authorization is None else (("authorization", authorization),)
    with grpc.insecure_channel(address) as channel:
        try:
            if method.streams_requests:
                next(channel.stream_stream(method.path)(iter([content]), metadata=metadata, timeout=60))
            elif method.streams_responses:
                next(channel.unary_stream(method.path)(content, metadata=metadata, timeout=60))
            else:
                channel.unary_unary(method.path)(content, metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            return error.code(), reason_of(error)
    return grpc.StatusCode.OK, ""


def reason_of(error: Any) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    return info.reason if status and status.details[0].Unpack(info) else ""


def is_served(doors: Doors, method: Method) -> bool:
    code, _ = ended(doors.server.grpc, method, b"", f"Bearer {doors.server.api_key}")
    return code is not grpc.StatusCode.UNIMPLEMENTED


def test_no_rpc_but_the_open_ones_answers_without_a_valid_key(doors: Doors) -> None:
    assert {method.path for method in doors.methods} > OPEN_METHODS
    closed = [method for method in doors.methods if method.path not in OPEN_METHODS]
    for method in closed:
        for content in (b"", b"\xff"):
            missing = ended(doors.server.grpc, method, content, None)
            assert missing == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_MISSING"), method.path
        for wrong, authorization in doors.bad.items():
            found = ended(doors.server.grpc, method, b"", authorization)
            assert found == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID"), (method.path, wrong)


def test_every_rpc_that_is_served_is_in_a_table(doors: Doors) -> None:
    thought_of = OPEN_METHODS | SHARED | set(of_account("")) | set(ADMIN_ONLY) | set(NAMES_ACCOUNT) | set(NAMES_KEY)
    forgotten = [method.path for method in doors.methods if method.path not in thought_of and is_served(doors, method)]
    assert forgotten == []


def test_what_is_of_an_account_is_not_there_for_another_one(doors: Doors) -> None:
    with wire_to(doors.server) as wire:
        session = wire.start().session.name
        of_path = of_account(session)
        for method in doors.methods:
            if method.path in of_path and is_served(doors, method):
                content = of_path[method.path].SerializeToString()
                found = ended(doors.server.grpc, method, content, f"Bearer {doors.user}")
                assert found == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"), method.path
        get = session_pb2.GetSessionRequest(name=session)
        assert not wire.sessions.GetSession(get, metadata=wire.metadata).bill.final
        with wire_to(doors.server, doors.user) as user:
            page = user.sessions.ListSessions(session_pb2.ListSessionsRequest(), metadata=user.metadata)
            assert session not in [each.name for each in page.sessions]


def test_another_account_and_its_keys_are_not_there(doors: Doors) -> None:
    of_path = {method.path: method for method in doors.methods}
    for reason, requests in (("ACCOUNT_NOT_FOUND", NAMES_ACCOUNT), ("API_KEY_NOT_FOUND", NAMES_KEY)):
        for path, request in requests.items():
            found = ended(doors.server.grpc, of_path[path], request.SerializeToString(), f"Bearer {doors.user}")
            assert found == (grpc.StatusCode.NOT_FOUND, reason), path


def test_what_needs_an_administrator_is_refused_to_a_user(doors: Doors) -> None:
    of_path = {method.path: method for method in doors.methods}
    for path, request in ADMIN_ONLY.items():
        found = ended(doors.server.grpc, of_path[path], request.SerializeToString(), f"Bearer {doors.user}")
        assert found == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED"), path


def test_no_page_but_the_open_ones_answers_without_a_valid_key(doors: Doors) -> None:
    routes: list[Any] = public_routes(None, None)  # type: ignore[arg-type]  # only their paths are looked at
    assert all(isinstance(route, Route) for route in routes)
    pages = {route.path: sorted(route.methods or {"GET", "POST"}) for route in routes}
    assert set(pages) > OPEN_PAGES
    for path, methods in {**pages, "/no/such/page": ["GET", "POST"]}.items():
        for method in methods:
            if path in OPEN_PAGES:
                assert http_status(doors.server, method, path, None) == 200
                continue
            asked = path.replace("{model:path}", MODEL)
            for authorization in (None, *doors.bad.values()):
                assert http_status(doors.server, method, asked, authorization) == 401, (method, path, authorization)


def test_a_session_of_another_account_pays_for_no_page(doors: Doors) -> None:
    with wire_to(doors.server) as wire:
        wire.start()
        for path in ("/v1/chat/completions", "/v1/completions"):
            body = b'{"model": "tiny-llama", "prompt": "x"}'
            if "chat" in path:
                body = b'{"model": "tiny-llama", "messages": [{"role": "user", "content": "x"}]}'
            assert http_status(doors.server, "POST", path, f"Bearer {doors.user}", body) == 409


def http_status(server: ServerProcess, method: str, path: str, authorization: str | None, body: bytes = b"{}") -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    data = body if method == "POST" else None
    request = urllib.request.Request(f"http://{server.http}{path}", data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


class Registered:
    """Takes what is registered, as a server would."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """The generated code registers everything in both ways."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, object]) -> None:
        self.paths |= {f"/{service}/{name}" for name in handlers}


def test_reflection_shows_all_that_is_served(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    registered = Registered()
    monkeypatch.setattr(api_server, "aio_server", lambda *_: registered)
    api_server.PublicServer(
        None,  # type: ignore[arg-type]  # the servicers are only registered
        session_pb2_grpc.SessionServiceServicer(),  # type: ignore[arg-type, abstract]
        model_pb2_grpc.ModelServiceServicer(),  # type: ignore[arg-type, abstract]
        inference_pb2_grpc.InferenceServiceServicer(),  # type: ignore[arg-type, abstract]
        account_pb2_grpc.AccountServiceServicer(),  # type: ignore[arg-type, abstract]
        api_server.GrpcLimits(max_streams=9, max_age_seconds=60.0),
    )
    assert registered.paths == {method.path for method in doors.methods}


class Strangers:
    """Knows nobody."""

    async def identify(self, _api_key: str) -> Caller:
        raise ApiKeyInvalidError


async def test_a_service_that_nobody_thought_of_is_closed() -> None:
    """Of each kind; the servicer itself is never reached."""
    reached: list[str] = []

    async def one(_request: object, _context: object) -> bytes:
        reached.append("one")
        return b""

    async def many(_request: object, _context: object) -> AsyncIterator[bytes]:
        reached.append("many")
        yield b""

    handlers = {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(one, bytes, bytes),
        "UnaryStream": grpc.unary_stream_rpc_method_handler(many, bytes, bytes),
        "StreamStream": grpc.stream_stream_rpc_method_handler(many, bytes, bytes),
        "StreamUnary": grpc.stream_unary_rpc_method_handler(one, bytes, bytes),
    }
    interceptor = CallInterceptor(
        Strangers(),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        Metrics(),
        Calls(NoTracing(), access_log=False),
        open_reflection=True,
        max_streams=9,
        reader_patience_seconds=9.0,
    )
    server = grpc.aio.server(interceptors=[interceptor])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("tidemill.v2.NewService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for name in handlers:
                call = channel.unary_stream(f"/tidemill.v2.NewService/{name}")(b"", timeout=60)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    async for _ in call:
                        pass
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
    finally:
        await server.stop(0)
    assert reached == []
