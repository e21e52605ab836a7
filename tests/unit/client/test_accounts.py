"""Accounts and keys through both clients."""

import inspect
from datetime import UTC, datetime, timedelta

import pytest

import tidemill
from tests.unit.client.account_book import ACCOUNT
from tests.unit.client.mill import Mill
from tidemill import Accounts, AsyncAccounts, AsyncClient, Client, UsageLimits
from tidemill.v1 import account_pb2

LATER = datetime(2030, 1, 31, 12, tzinfo=UTC)


def test_a_key_is_made_with_its_settings_and_its_secret_does_not_show_itself(client: Client, mill: Mill) -> None:
    made = client.accounts.create_key(
        display_name="laptop",
        role="admin",
        scopes=["jobs", "account"],
        default_model="tide-nano",
        expire_time=LATER,
        limits=UsageLimits(requests_per_minute=60),
    )
    key = made.api_key
    assert (key.name, key.display_name, key.role) == (f"{ACCOUNT}/keys/1", "laptop", "admin")
    assert (key.scopes, key.default_model, key.expire_time) == (("jobs", "account"), "tide-nano", LATER)
    assert key.limits == UsageLimits(60)
    assert made.secret == "tm_secret_1"
    assert made.secret not in repr(made)
    assert mill.requests["CreateApiKey"][0].request_id
    assert client.accounts.get_key(key.name) == key


def test_only_what_is_named_is_changed(client: Client, mill: Mill) -> None:
    name = client.accounts.create_key(display_name="one", expire_time=LATER, scopes=["jobs"]).api_key.name
    changed = client.accounts.update_key(name, expire_time=None, scopes=[])
    assert (changed.display_name, changed.expire_time, changed.scopes) == ("one", None, ())
    assert list(mill.requests["UpdateApiKey"][0].update_mask.paths) == ["expire_time", "scopes"]
    account = client.accounts.update(display_name="Yours", limits=UsageLimits(concurrent_sessions=2))
    assert (account.name, account.display_name, account.use_cache) == (ACCOUNT, "Yours", True)
    assert account.limits == UsageLimits(concurrent_sessions=2)
    assert list(mill.requests["UpdateAccount"][0].update_mask.paths) == ["display_name", "limits"]


def test_a_key_is_rotated_and_revoked(client: Client, mill: Mill) -> None:
    name = client.accounts.create_key().api_key.name
    rotated = client.accounts.rotate_key(name, timedelta(hours=2))
    assert rotated.secret == "tm_secret_2"
    assert rotated.api_key.old_secret_expire_time is not None
    assert mill.requests["RotateApiKey"][0].overlap.ToSeconds() == 7_200
    assert client.accounts.revoke_key(name).revoke_time is not None


def test_lists_come_page_by_page_and_no_longer_than_asked_for(client: Client) -> None:
    for number in range(5):
        client.accounts.create(f"a{number}")
        client.accounts.create_key()
    assert [one.name for one in client.accounts.list()] == [*(f"accounts/a{number}" for number in range(5)), ACCOUNT]
    assert [one.name.rpartition("/")[2] for one in client.accounts.list_keys(limit=3)] == ["5", "4", "3"]
    events = client.accounts.list_events(limit=7)
    assert [one.sequence_number for one in events] == list(range(10, 3, -1))
    assert (events[0].action, events[0].actor) == ("CreateApiKey", f"{ACCOUNT}/keys/0")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"role": "king"}, "api_key.role"),
        ({"scopes": ["everything"]}, "api_key.scopes"),
        ({"expire_time": datetime(2030, 1, 1)}, "api_key.expire_time"),
        ({"expire_time": "tomorrow"}, "api_key.expire_time"),
        ({"limits": {"requests_per_minute": 1}}, "api_key.limits"),
        ({"limits": UsageLimits(requests_per_minute="many")}, "api_key.limits.requests_per_minute"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_sent(
    client: Client, mill: Mill, settings: dict[str, object], field: str
) -> None:
    with pytest.raises(tidemill.FieldInvalidError) as refused:
        client.accounts.create_key(**settings)
    assert refused.value.field == field
    assert not mill.requests["CreateApiKey"]


async def test_the_asyncio_client_does_the_same(async_client: AsyncClient) -> None:
    accounts = async_client.accounts
    assert (await accounts.get()).name == ACCOUNT
    assert (await accounts.create("ada", display_name="Ada")).name == "accounts/ada"
    assert (await accounts.update("accounts/ada", use_cache=False)).use_cache is False
    assert len(await accounts.list()) == 2
    made = await accounts.create_key("accounts/ada")
    name = made.api_key.name
    assert (await accounts.get_key(name)) == made.api_key == (await accounts.list_keys("accounts/ada"))[0]
    assert (await accounts.update_key(name, role="admin")).role == "admin"
    assert (await accounts.rotate_key(name)).secret != made.secret
    assert (await accounts.revoke_key(name)).revoke_time
    assert len(await accounts.list_events()) == 6


def test_both_faces_have_the_same_methods_and_every_method_of_the_contract() -> None:
    def signatures(face: type) -> dict[str, str]:
        found = inspect.getmembers(face, inspect.isfunction)
        return {
            name: str(inspect.signature(each)).replace("AsyncStream", "Stream")
            for name, each in found
            if not name.startswith("_")
        }

    assert signatures(Accounts) == signatures(AsyncAccounts)
    methods = account_pb2.DESCRIPTOR.services_by_name["AccountService"].methods
    assert len(signatures(Accounts)) == len(methods) + 1  # SetPrice also withdraws
