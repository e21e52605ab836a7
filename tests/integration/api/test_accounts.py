"""Accounts and keys over the real wire: who may do what, and what it does."""

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.integration.api.test_openai_http import asked, error_of, prompt
from tests.integration.api.test_refusals import refusal_of
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import account_pb2, billing_pb2, inference_pb2, model_pb2, session_pb2
from tidemill_services.access import METHODS
from tidemill_services.domain.api_key import Scope

NUMBERS = itertools.count(1)


def make_account(wire: Wire, **limits: int) -> str:
    """A new account's name; it has credits."""
    account = account_pb2.Account(limits=account_pb2.UsageLimits(**limits))
    request = account_pb2.CreateAccountRequest(account=account, account_id=f"customer-{next(NUMBERS)}")
    name = wire.accounts.CreateAccount(request, metadata=wire.metadata).name
    grant(wire, name, 10**12)
    return name


def grant(wire: Wire, account: str, microcredits: int) -> None:
    request = billing_pb2.GrantCreditsRequest(account=account, amount_microcredits=microcredits, reason="for a test")
    wire.accounts.GrantCredits(request, metadata=wire.metadata)


def make_key(wire: Wire, account: str = "", **settings: object) -> account_pb2.CreateApiKeyResponse:
    request = account_pb2.CreateApiKeyRequest(api_key=account_pb2.ApiKey(**settings), account=account)
    return wire.accounts.CreateApiKey(request, metadata=wire.metadata)


def update_key(wire: Wire, name: str, *paths: str, **settings: object) -> account_pb2.ApiKey:
    request = account_pb2.UpdateApiKeyRequest(
        api_key=account_pb2.ApiKey(name=name, **settings), update_mask=FieldMask(paths=paths)
    )
    return wire.accounts.UpdateApiKey(request, metadata=wire.metadata)


def rotate(wire: Wire, name: str, **fields: object) -> account_pb2.RotateApiKeyResponse:
    return wire.accounts.RotateApiKey(account_pb2.RotateApiKeyRequest(name=name, **fields), metadata=wire.metadata)


def revoke(wire: Wire, name: str) -> account_pb2.ApiKey:
    return wire.accounts.RevokeApiKey(account_pb2.RevokeApiKeyRequest(name=name), metadata=wire.metadata)


def get_account(wire: Wire, name: str = "") -> account_pb2.Account:
    return wire.accounts.GetAccount(account_pb2.GetAccountRequest(name=name), metadata=wire.metadata)


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def is_refused(server: ServerProcess, secret: str) -> bool:
    wire = wire_to(server, secret)  # whose end would stop the key's session
    try:
        return code_of(wire.model) is grpc.StatusCode.UNAUTHENTICATED
    finally:
        wire.channel.close()


@pytest.fixture
def customer(server: ServerProcess, wire: Wire) -> Iterator[Wire]:
    """A user's key of a new account."""
    with wire_to(server, make_key(wire, make_account(wire)).secret) as customer:
        yield customer


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


def test_settings_of_an_account_are_changed_and_shown(wire: Wire) -> None:
    name = make_account(wire, requests_per_minute=100_000)
    account = account_pb2.Account(name=name, display_name="Ada & Co", use_cache=False)
    account.limits.concurrent_sessions = 7
    mask = FieldMask(paths=["display_name", "use_cache", "limits.concurrent_sessions"])
    changed = wire.accounts.UpdateAccount(
        account_pb2.UpdateAccountRequest(account=account, update_mask=mask), metadata=wire.metadata
    )
    assert changed == get_account(wire, name)
    assert (changed.display_name, changed.use_cache) == ("Ada & Co", False)
    assert (changed.limits.requests_per_minute, changed.limits.concurrent_sessions) == (100_000, 7)
    assert not changed.limits.HasField("concurrent_generations")
    refusal = refusal_of(
        lambda: wire.accounts.CreateAccount(
            account_pb2.CreateAccountRequest(account_id=name.partition("/")[2]), metadata=wire.metadata
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ACCOUNT_EXISTS")


@pytest.mark.rule("A3")
def test_an_account_uses_the_cache_unless_told_otherwise(wire: Wire) -> None:
    assert get_account(wire, make_account(wire)).use_cache


def test_accounts_are_listed_by_name_page_by_page_with_what_each_has(wire: Wire) -> None:
    made = {make_account(wire) for _ in range(3)}
    grant(wire, min(made), 7)
    poor = wire.accounts.CreateAccount(account_pb2.CreateAccountRequest(), metadata=wire.metadata).name
    listed: list[account_pb2.Account] = []
    token = ""
    while True:
        page = wire.accounts.ListAccounts(
            account_pb2.ListAccountsRequest(page_size=2, page_token=token), metadata=wire.metadata
        )
        listed += page.accounts
        token = page.next_page_token
        if not token:
            break
    names = [account.name for account in listed]
    assert names == sorted(names)
    assert made | {poor, "accounts/local", "accounts/neighbour"} <= set(names)
    assert all(account == get_account(wire, account.name) for account in listed if account.name in {*made, poor})


@pytest.mark.rule("A1")
def test_a_user_is_refused_at_what_administrators_do(wire: Wire, customer: Wire) -> None:
    own = get_account(customer).name
    limits = account_pb2.UpdateAccountRequest(
        account=account_pb2.Account(limits=account_pb2.UsageLimits(requests_per_minute=10**6)),
        update_mask=FieldMask(paths=["limits"]),
    )
    calls: list[Callable[[], object]] = [
        lambda: make_account(customer),
        lambda: customer.accounts.ListAccounts(account_pb2.ListAccountsRequest(), metadata=customer.metadata),
        lambda: customer.accounts.UpdateAccount(limits, metadata=customer.metadata),
        lambda: make_key(customer, role=account_pb2.ApiKey.ROLE_ADMIN),
    ]
    for call in calls:
        refusal = refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    admins = make_key(wire, own, role=account_pb2.ApiKey.ROLE_ADMIN).api_key.name
    mine = make_key(customer).api_key.name
    for call in (
        lambda: rotate(customer, admins),
        lambda: revoke(customer, admins),
        lambda: update_key(customer, admins, "display_name"),
        lambda: update_key(customer, mine, "role", role=account_pb2.ApiKey.ROLE_ADMIN),
    ):
        assert refusal_of(call).reason == "ROLE_REQUIRED"


@pytest.mark.rule("A1")
def test_another_accounts_things_are_not_there_for_a_user_and_are_for_an_administrator(
    wire: Wire, customer: Wire, neighbour: Wire
) -> None:
    theirs = get_account(neighbour).name
    key = make_key(neighbour).api_key.name
    stolen = key.replace(theirs, get_account(customer).name)
    nobody = "accounts/nobody"

    def list_keys(account: str) -> object:
        request = account_pb2.ListApiKeysRequest(account=account)
        return customer.accounts.ListApiKeys(request, metadata=customer.metadata)

    def list_events(account: str) -> object:
        request = account_pb2.ListAuditEventsRequest(account=account)
        return customer.accounts.ListAuditEvents(request, metadata=customer.metadata)

    def rename(account: str) -> object:
        request = account_pb2.UpdateAccountRequest(
            account=account_pb2.Account(name=account), update_mask=FieldMask(paths=["display_name"])
        )
        return customer.accounts.UpdateAccount(request, metadata=customer.metadata)

    for account in (theirs, nobody):
        for call in (list_keys, list_events, rename, lambda name: get_account(customer, name)):
            refusal = refusal_of(lambda call=call, account=account: call(account))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND")
        assert refusal_of(lambda account=account: make_key(customer, account)).reason == "ACCOUNT_NOT_FOUND"
    for name in (key, stolen, f"{nobody}/keys/0123"):
        for act in (
            rotate,
            revoke,
            lambda wire, name: update_key(wire, name, "display_name"),
            lambda wire, name: wire.accounts.GetApiKey(account_pb2.GetApiKeyRequest(name=name), metadata=wire.metadata),
        ):
            refusal = refusal_of(lambda act=act, name=name: act(customer, name))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
    assert get_account(wire, theirs).name == theirs
    assert revoke(wire, key).HasField("revoke_time")


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
        call = wire.channel.unary_stream(method)(b"\xff\xff", metadata=metadata, timeout=30)
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


def test_names_and_masks_that_mean_nothing_are_refused(wire: Wire) -> None:
    key = make_key(wire).api_key.name
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: get_account(wire, "local"), "name"),
        (lambda: get_account(wire, "accounts/../x"), "name"),
        (lambda: revoke(wire, "keys/1"), "name"),
        (lambda: update_key(wire, key), "update_mask"),
        (lambda: update_key(wire, key, "secret_hash"), "update_mask"),
        (lambda: make_key(wire, "neighbour"), "account"),
    ]
    for call, field in calls:
        refusal = refusal_of(call)
        assert (refusal.reason, refusal.field) == ("FIELD_INVALID", field)
    for account_id in ("Capital", "-a", "a/b", "x" * 64):
        request = account_pb2.CreateAccountRequest(account_id=account_id)
        refusal = refusal_of(lambda request=request: wire.accounts.CreateAccount(request, metadata=wire.metadata))
        assert (refusal.reason, refusal.field) == ("FIELD_INVALID", "account_id")


@pytest.mark.rule("A4")
def test_the_audit_trail_says_who_did_what(wire: Wire, customer: Wire) -> None:
    account = get_account(customer).name
    made = make_key(customer, display_name="one").api_key.name
    update_key(wire, made, "display_name", display_name="two")
    mine = customer.accounts.ListAuditEvents(account_pb2.ListAuditEventsRequest(), metadata=customer.metadata)
    assert [(event.action, event.resource) for event in mine.audit_events] == [
        ("UpdateApiKey", made),
        ("CreateApiKey", made),
        ("CreateApiKey", mine.audit_events[2].resource),
        ("GrantCredits", account),
        ("CreateAccount", account),
    ]
    newest = mine.audit_events[0]
    assert newest.actor.startswith("accounts/local/keys/")
    assert newest.account == account
    assert [(each.field, each.old_value, each.new_value) for each in newest.changes] == [("display_name", "one", "two")]
    everything = wire.accounts.ListAuditEvents(
        account_pb2.ListAuditEventsRequest(page_size=1_000), metadata=wire.metadata
    )
    assert {event.account for event in everything.audit_events} >= {account, "accounts/local"}


@pytest.mark.rule("A4")
def test_what_an_administrator_forces_is_in_the_audit_trail(slow_wire: Wire) -> None:
    request = model_pb2.StopModelRequest(name=MODEL, force=True)
    slow_wire.models.StopModel(request, metadata=slow_wire.metadata)
    page = slow_wire.accounts.ListAuditEvents(account_pb2.ListAuditEventsRequest(), metadata=slow_wire.metadata)
    forced = next(event for event in page.audit_events if event.action == "StopModel")
    assert (forced.resource, forced.account) == (f"models/{MODEL}", "")
    assert forced.actor.startswith("accounts/local/keys/")


@pytest.mark.rule("A10")
def test_a_revoked_keys_sessions_end_and_so_do_their_streams(slow_server: ServerProcess, slow_wire: Wire) -> None:
    made = make_key(slow_wire, make_account(slow_wire))
    with wire_to(slow_server, made.secret) as customer:
        name = customer.start().session.name
        stream = customer.generate(max_tokens=300)
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
    update_key(slow_wire, made.api_key.name, "expire_time", expire_time=Timestamp(seconds=int(time.time()) + 5))
    wait_until(lambda: is_refused(slow_server, made.secret), "the refusal", 60)
    with wire_to(slow_server, other.secret) as customer:

        def session() -> session_pb2.Session:
            return customer.sessions.GetSession(session_pb2.GetSessionRequest(name=name), metadata=customer.metadata)

        wait_until(lambda: session().bill.final, "the session's end", 60)
        assert session().end_reason == session_pb2.Session.END_REASON_REVOKED


def retry_seconds_of(call: Callable[[], object]) -> float:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, raised.value
    for detail in rpc_status.from_call(raised.value).details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return retry.retry_delay.ToTimedelta().total_seconds()
    raise AssertionError("it does not say when to try again")


@pytest.mark.rule("A2")
def test_more_requests_than_the_limit_are_refused_on_both_doors_and_stopping_is_not(
    server: ServerProcess, wire: Wire
) -> None:
    secret = make_key(wire, make_account(wire, requests_per_minute=10)).secret
    with wire_to(server, secret) as customer:
        customer.start()

        def ask_until_refused() -> None:
            for _ in range(40):  # the limit and more, also when a minute ends meanwhile
                customer.model()

        assert 0 < retry_seconds_of(ask_until_refused) <= 60
        while True:
            with asked(server, "/v1/models", method="GET", authorization=f"Bearer {secret}") as response:
                if response.status == 429:
                    assert 1 <= int(response.headers["retry-after"]) <= 60
                    assert error_of(response)["code"] == "LIMIT_REACHED"
                    break
                response.read()
        assert customer.stop().session.bill.final


@pytest.mark.rule("A2")
def test_more_generations_and_sessions_at_a_time_than_the_limit_are_refused(
    slow_server: ServerProcess, slow_wire: Wire
) -> None:
    account = make_account(slow_wire, concurrent_generations=1, concurrent_sessions=1)
    secret = make_key(slow_wire, account).secret
    with wire_to(slow_server, secret) as customer:
        customer.start()
        stream = customer.generate(max_tokens=300)
        next(stream)
        assert retry_seconds_of(lambda: list(customer.generate())) > 0
        assert retry_seconds_of(lambda: customer.start(model="tide-nano")) > 0
        stream.cancel()
        wait_until(lambda: code_of(lambda: list(customer.generate(max_tokens=1))) is grpc.StatusCode.OK, "a free place")


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
