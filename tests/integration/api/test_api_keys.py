"""API keys over the wire: what they open, for how long, and what becomes of what they opened."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.api.account_calls import NUMBERS, is_refused, make_account, make_key, revoke, rotate, update_key
from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.integration.api.test_openai_http import asked, error_of, prompt
from tests.integration.api.test_refusals import refusal_of
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import account_pb2, inference_pb2, session_pb2
from tidemill_services.access import METHODS
from tidemill_services.domain.api_key import Scope


@pytest.mark.rule("A5")
def test_a_key_is_shown_once_and_works_until_it_is_revoked(server: ServerProcess, wire: Wire) -> None:
    made = make_key(wire, make_account(wire), display_name="laptop", default_model=MODEL)
    assert (made.api_key.display_name, made.api_key.default_model) == ("laptop", f"models/{MODEL}")
    get = account_pb2.GetApiKeyRequest(name=made.api_key.name)
    assert wire.accounts.GetApiKey(get, metadata=wire.metadata) == made.api_key
    assert not is_refused(server, made.secret)
    first = revoke(wire, made.api_key.name)
    assert first.HasField("revoke_time")
    wait_until(lambda: is_refused(server, made.secret), "the refusal")
    assert revoke(wire, made.api_key.name) == first
    again = refusal_of(lambda: update_key(wire, made.api_key.name, "display_name"))
    assert (again.code, again.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "API_KEY_REVOKED")


@pytest.mark.rule("A5")
def test_a_repeat_returns_the_key_without_its_secret_which_is_stored_nowhere(server: ServerProcess, wire: Wire) -> None:
    request = account_pb2.CreateApiKeyRequest(request_id=f"once-{next(NUMBERS)}", account=make_account(wire))
    first, second = (wire.accounts.CreateApiKey(request, metadata=wire.metadata) for _ in range(2))
    assert first.secret
    assert second == account_pb2.CreateApiKeyResponse(api_key=first.api_key)
    again = account_pb2.RotateApiKeyRequest(name=first.api_key.name, request_id=request.request_id)
    rotated, repeated = (wire.accounts.RotateApiKey(again, metadata=wire.metadata) for _ in range(2))
    assert rotated.secret != first.secret
    assert repeated == account_pb2.RotateApiKeyResponse(api_key=rotated.api_key)
    for path in server.data_dir.glob("tidemill.db*"):
        content = path.read_bytes()
        assert first.secret.encode() not in content
        assert rotated.secret.encode() not in content
    assert first.secret not in server.log.read_text()


@pytest.mark.rule("A7")
def test_both_secrets_of_a_rotated_key_work_until_the_overlap_is_over(server: ServerProcess, wire: Wire) -> None:
    made = make_key(wire, make_account(wire))
    second = rotate(wire, made.api_key.name, overlap=Duration(seconds=3600))
    assert second.api_key.HasField("old_secret_expire_time")
    assert [is_refused(server, secret) for secret in (made.secret, second.secret)] == [False, False]
    third = rotate(wire, made.api_key.name)
    wait_until(lambda: is_refused(server, made.secret) and is_refused(server, second.secret), "the refusal")
    assert not is_refused(server, third.secret)
    too_long = refusal_of(lambda: rotate(wire, made.api_key.name, overlap=Duration(seconds=31 * 86_400)))
    assert (too_long.reason, too_long.field) == ("FIELD_INVALID", "overlap")


@pytest.mark.rule("A12")
def test_an_empty_model_means_the_keys_default_one_which_must_be_registered(server: ServerProcess, wire: Wire) -> None:
    made = make_key(wire, make_account(wire), default_model=f"models/{MODEL}")
    with wire_to(server, made.secret) as customer:
        assert customer.start(model="").session.model == f"models/{MODEL}"
    refusal = refusal_of(lambda: make_key(wire, default_model="no-such"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    refusal = refusal_of(lambda: update_key(wire, made.api_key.name, "default_model", default_model="no-such"))
    assert refusal.reason == "MODEL_NOT_FOUND"
    assert update_key(wire, made.api_key.name, "default_model").default_model == ""


@pytest.mark.rule("A9")
@pytest.mark.parametrize("scope", Scope)
def test_every_method_is_refused_to_a_key_whose_scopes_do_not_cover_it(
    server: ServerProcess, wire: Wire, scope: Scope
) -> None:
    secret = make_key(wire, scopes=[f"SCOPE_{scope}"], role=account_pb2.ApiKey.ROLE_USER).secret
    metadata = (("authorization", f"Bearer {secret}"),)
    for method, access in METHODS.items():
        if method.startswith("/grpc."):
            continue
        call = wire.channel.unary_stream(method)(b"\xff\xff", metadata=metadata, timeout=60)
        refusal = refusal_of(lambda call=call: list(call))
        if access.scope in (None, scope):
            assert refusal.reason in ("FIELD_INVALID", "ROLE_REQUIRED"), method  # the bytes are no message
        else:
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_REQUIRED"), method


@pytest.mark.rule("A9")
def test_a_page_is_refused_to_a_key_whose_scopes_do_not_cover_it(server: ServerProcess, wire: Wire) -> None:
    secret = make_key(wire, scopes=["SCOPE_JOBS"]).secret
    with asked(server, "/v1/completions", prompt(), authorization=f"Bearer {secret}") as response:
        assert (response.status, error_of(response)["code"]) == (403, "SCOPE_REQUIRED")
    with asked(server, "/v1/models", method="GET", authorization=f"Bearer {secret}") as response:
        assert response.status == 200
        response.read()


def test_nobody_gets_by_another_key_what_their_own_has_not(server: ServerProcess, wire: Wire) -> None:
    account = make_account(wire)
    whole = make_key(wire, account).api_key.name
    narrow = make_key(wire, account, scopes=["SCOPE_ACCOUNT"])
    with wire_to(server, narrow.secret) as customer:
        for call in (
            lambda: make_key(customer),
            lambda: make_key(customer, scopes=["SCOPE_ACCOUNT", "SCOPE_JOBS"]),
            lambda: rotate(customer, whole),
            lambda: update_key(customer, narrow.api_key.name, "scopes"),
        ):
            refusal = refusal_of(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_REQUIRED")
        assert make_key(customer, scopes=["SCOPE_ACCOUNT"]).secret
        assert revoke(customer, whole).HasField("revoke_time")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"display_name": "x" * 257}, "api_key.display_name"),
        ({"display_name": "a\nb"}, "api_key.display_name"),
        ({"role": 9}, "api_key.role"),
        ({"scopes": [9]}, "api_key.scopes"),
        ({"scopes": [0]}, "api_key.scopes"),
        ({"default_model": "Not A Name"}, "api_key.default_model"),
        ({"expire_time": Timestamp(seconds=1)}, "api_key.expire_time"),
        ({"expire_time": Timestamp(seconds=2**62)}, "api_key.expire_time"),
        ({"expire_time": Timestamp(seconds=-(2**62))}, "api_key.expire_time"),
        ({"limits": account_pb2.UsageLimits(requests_per_minute=0)}, "api_key.limits.requests_per_minute"),
        ({"limits": account_pb2.UsageLimits(concurrent_sessions=-1)}, "api_key.limits.concurrent_sessions"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_its_field(wire: Wire, settings: dict[str, object], field: str) -> None:
    refusal = refusal_of(lambda: make_key(wire, **settings))
    assert (refusal.code, refusal.reason, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", field)


@pytest.mark.rule("A10")
def test_a_revoked_keys_sessions_end_and_so_do_their_streams(slow_server: ServerProcess, slow_wire: Wire) -> None:
    made = make_key(slow_wire, make_account(slow_wire))
    with wire_to(slow_server, made.secret) as customer:
        name = customer.start().session.name
        stream = customer.generate(max_tokens=1000)
        next(response for response in stream if response.HasField("delta"))
        revoke(slow_wire, made.api_key.name)
        last = list(stream)[-1]
    assert last.end.finish_reason == inference_pb2.FINISH_REASON_SESSION_STOPPED
    other = make_key(slow_wire, made.api_key.name.partition("/keys/")[0])
    with wire_to(slow_server, other.secret) as customer:
        get = session_pb2.GetSessionRequest(name=name)
        session = customer.sessions.GetSession(get, metadata=customer.metadata)
        assert session.bill.final
        assert session.end_reason == session_pb2.Session.END_REASON_REVOKED


@pytest.mark.rule("A10")
def test_a_key_that_expires_is_refused_and_its_sessions_end(slow_server: ServerProcess, slow_wire: Wire) -> None:
    account = make_account(slow_wire)
    made, other = make_key(slow_wire, account), make_key(slow_wire, account)
    name = wire_to(slow_server, made.secret).start().session.name
    update_key(slow_wire, made.api_key.name, "expire_time", expire_time=Timestamp(seconds=int(time.time()) + 8))
    wait_until(lambda: is_refused(slow_server, made.secret), "the refusal")
    with wire_to(slow_server, other.secret) as customer:

        def session() -> session_pb2.Session:
            return customer.sessions.GetSession(session_pb2.GetSessionRequest(name=name), metadata=customer.metadata)

        wait_until(lambda: session().bill.final, "the session's end")
        assert session().end_reason == session_pb2.Session.END_REASON_REVOKED


def test_the_last_administrators_key_cannot_be_taken_away_by_accident(tmp_path: Path) -> None:
    with server_process(tmp_path, "--replica-device", "fake") as server, wire_to(server) as wire:
        (only,) = wire.accounts.ListApiKeys(account_pb2.ListApiKeysRequest(), metadata=wire.metadata).api_keys
        calls: list[Callable[[], object]] = [
            lambda: revoke(wire, only.name),
            lambda: update_key(wire, only.name, "role", role=account_pb2.ApiKey.ROLE_USER),
            lambda: update_key(wire, only.name, "scopes", scopes=["SCOPE_JOBS"]),
            lambda: update_key(wire, only.name, "expire_time", expire_time=Timestamp(seconds=4_000_000_000)),
        ]
        for call in calls:
            refusal = refusal_of(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMIN_KEY")
        make_key(wire, role=account_pb2.ApiKey.ROLE_ADMIN)
        assert revoke(wire, only.name).HasField("revoke_time")


@pytest.mark.rule("A6")
def test_keys_outlive_a_rotation_of_the_platforms_secret(tmp_path: Path) -> None:
    def rotate_secret(*options: str) -> None:
        command = [sys.executable, "-m", "tidemill_services", "admin", "rotate-secret", "--data-dir", str(tmp_path)]
        subprocess.run([*command, *options], check=True, capture_output=True, timeout=60)

    with server_process(tmp_path, "--replica-device", "fake") as server, wire_to(server) as wire:
        used, unused = make_key(wire).secret, make_key(wire).secret
        api_key = server.api_key
    rotate_secret()
    with server_process(tmp_path, "--replica-device", "fake") as server:
        assert server.api_key == api_key
        assert not is_refused(server, used)
    rotate_secret("--finish")
    with server_process(tmp_path, "--replica-device", "fake") as server:
        assert server.api_key == api_key
        assert not is_refused(server, used)
        assert is_refused(server, unused)
