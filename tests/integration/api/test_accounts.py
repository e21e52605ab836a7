"""Accounts over the real wire: who may do what, and what it does."""

from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tests.integration.api.account_calls import (
    code_of,
    get_account,
    grant,
    make_account,
    make_key,
    retry_seconds_of,
    revoke,
    rotate,
    update_key,
)
from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.integration.api.test_openai_http import asked, error_of
from tests.integration.api.test_refusals import refusal_of
from tests.server_process import ServerProcess
from tidemill.v1 import account_pb2, model_pb2


@pytest.fixture
def customer(server: ServerProcess, wire: Wire) -> Iterator[Wire]:
    """A user's key of a new account."""
    with wire_to(server, make_key(wire, make_account(wire)).secret) as customer:
        yield customer


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


def test_an_administrator_limits_who_is_named_and_no_limit_keeps_them_from_lifting_it(
    server: ServerProcess, wire: Wire
) -> None:
    name = make_account(wire, requests_per_minute=1)
    admins = make_key(wire, name, role=account_pb2.ApiKey.ROLE_ADMIN)
    users = make_key(wire, name)
    lifted = account_pb2.UpdateAccountRequest(account=account_pb2.Account(), update_mask=FieldMask(paths=["limits"]))
    with wire_to(server, admins.secret) as admin, wire_to(server, users.secret) as user:
        refusal = refusal_of(lambda: admin.accounts.UpdateAccount(lifted, metadata=admin.metadata))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert refusal.field == "account.name"
        assert retry_seconds_of(lambda: [get_account(user) for _ in range(3)]) > 0  # also when a minute ends meanwhile
        for _ in range(3):
            update_key(admin, users.api_key.name, "display_name", display_name="limited")
        lifted.account.name = name
        assert not admin.accounts.UpdateAccount(lifted, metadata=admin.metadata).limits.HasField("requests_per_minute")
        wait_until(lambda: all(_is_answered(user) for _ in range(3)), "answers without a limit")


def _is_answered(user: Wire) -> bool:
    try:
        return bool(get_account(user).name)
    except grpc.RpcError:
        return False


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
        stream = customer.generate(max_tokens=1000)
        next(stream)
        assert retry_seconds_of(lambda: list(customer.generate())) > 0
        assert retry_seconds_of(lambda: customer.start(model="tide-nano")) > 0
        stream.cancel()
        wait_until(lambda: code_of(lambda: list(customer.generate(max_tokens=1))) is grpc.StatusCode.OK, "a free place")
