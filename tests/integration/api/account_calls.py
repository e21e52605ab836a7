"""Calls to make and change accounts and their keys."""

import itertools
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.integration.api.conftest import Wire, wire_to
from tests.server_process import ServerProcess
from tidemill.v1 import account_pb2, billing_pb2

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


def retry_seconds_of(call: Callable[[], object]) -> float:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, raised.value
    for detail in rpc_status.from_call(raised.value).details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return retry.retry_delay.ToTimedelta().total_seconds()
    raise AssertionError("it does not say when to try again")
