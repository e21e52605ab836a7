"""Answers that their tokens pay, over the wire: no session is open, and the account has agreed to it."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.integration.api.test_refusals import refusal_in, refusal_of
from tests.server_process import ServerProcess
from tidemill.v1 import account_pb2, billing_pb2, errors_pb2, inference_pb2, usage_pb2

CREDIT = 1_000_000


@contextmanager
def payer(server: ServerProcess, wire: Wire, microcredits: int, **fields: object) -> Iterator[Wire]:
    """A key of a new account that pays by its tokens."""
    account = account_pb2.Account(pays_per_token=True, **fields)
    made = wire.accounts.CreateAccount(account_pb2.CreateAccountRequest(account=account), metadata=wire.metadata)
    if microcredits:
        request = billing_pb2.GrantCreditsRequest(account=made.name, amount_microcredits=microcredits, reason="a test")
        wire.accounts.GrantCredits(request, metadata=wire.metadata)
    key = account_pb2.CreateApiKeyRequest(account=made.name)
    secret = wire.accounts.CreateApiKey(key, metadata=wire.metadata).secret
    with wire_to(server, secret) as paying:
        yield paying


def account_of(wire: Wire) -> account_pb2.Account:
    return wire.accounts.GetAccount(account_pb2.GetAccountRequest(), metadata=wire.metadata)


def charges_of(wire: Wire) -> list[billing_pb2.LedgerEntry]:
    kinds = [billing_pb2.LedgerEntry.KIND_TOKEN_CHARGE]
    request = billing_pb2.ListLedgerEntriesRequest(kinds=kinds, page_size=1_000)
    return list(wire.accounts.ListLedgerEntries(request, metadata=wire.metadata).ledger_entries)


def cost_of(wire: Wire, usage: usage_pb2.Usage) -> int:
    """By hand: the price of the list, rounded up to a hundredth of a credit."""
    request = billing_pb2.ListPricesRequest(model=f"models/{MODEL}")
    [price] = wire.accounts.ListPrices(request, metadata=wire.metadata).prices
    exact = (
        usage.prompt_tokens * price.input_microcredits_per_million_tokens
        + usage.completion_tokens * price.output_microcredits_per_million_tokens
    )
    return -(-exact // (CREDIT * 10_000)) * 10_000


@pytest.mark.rule("S21")
@pytest.mark.rule("T1")
def test_without_a_session_the_tokens_pay_and_the_usage_says_what(server: ServerProcess, wire: Wire) -> None:
    with payer(server, wire, CREDIT) as paying:
        usages = [list(paying.generate(max_tokens=5))[-1].end.usage for _ in range(2)]
        assert all(usage.cost_microcredits == cost_of(paying, usage) > 0 for usage in usages)
        wait_until(lambda: len(charges_of(paying)) == 2, "two charges")
        assert [-each.amount_microcredits for each in charges_of(paying)] == [
            usage.cost_microcredits for usage in usages
        ]
        report = paying.accounts.GetUsageReport(
            billing_pb2.GetUsageReportRequest(group_by=[billing_pb2.GetUsageReportRequest.GROUP_BY_API_KEY]),
            metadata=paying.metadata,
        )
        [row] = report.rows
        assert row.api_key
        assert (row.num_sessions, row.num_generations) == (0, 2)
        assert row.charged_microcredits == sum(usage.cost_microcredits for usage in usages)
        assert row.prompt_tokens == sum(usage.prompt_tokens for usage in usages)
        assert row.completion_tokens == sum(usage.completion_tokens for usage in usages)


@pytest.mark.rule("S21")
def test_an_open_session_pays_before_the_tokens_do(server: ServerProcess, wire: Wire) -> None:
    with payer(server, wire, 100 * CREDIT) as paying:
        assert list(paying.generate(max_tokens=2))[-1].end.usage.cost_microcredits
        paying.start()
        assert not list(paying.generate(max_tokens=2))[-1].end.usage.cost_microcredits
        paying.stop()
        assert list(paying.generate(max_tokens=2))[-1].end.usage.cost_microcredits
        wait_until(lambda: len(charges_of(paying)) == 2, "two charges")


@pytest.mark.rule("S21")
def test_who_did_not_agree_is_told_to_start_a_session_and_may_agree(server: ServerProcess, wire: Wire) -> None:
    with payer(server, wire, CREDIT) as paying:
        off = account_pb2.UpdateAccountRequest(account=account_pb2.Account(), update_mask={"paths": ["pays_per_token"]})
        assert not paying.accounts.UpdateAccount(off, metadata=paying.metadata).pays_per_token
        wait_until(
            lambda: _reason_of(paying) == "NO_SESSION", "a refusal, once the server has heard of the change everywhere"
        )
        on = account_pb2.UpdateAccountRequest(
            account=account_pb2.Account(pays_per_token=True), update_mask={"paths": ["pays_per_token"]}
        )
        assert paying.accounts.UpdateAccount(on, metadata=paying.metadata).pays_per_token
        wait_until(lambda: _reason_of(paying) == "", "an answer")


def _reason_of(wire: Wire) -> str:
    try:
        list(wire.generate(max_tokens=1))
    except grpc.RpcError as error:
        return refusal_in(error).reason
    return ""


@pytest.mark.rule("T2")
def test_an_answer_that_may_cost_more_than_there_is_is_refused_before_it_runs(
    server: ServerProcess, wire: Wire
) -> None:
    with payer(server, wire, 10_000) as paying:
        refusal = refusal_of(lambda: list(paying.generate(max_tokens=1_000)))
        assert refusal.reason == "INSUFFICIENT_CREDITS"
        assert not charges_of(paying)
        list(paying.generate(max_tokens=3))
        wait_until(lambda: len(charges_of(paying)) == 1, "the charge of one that there was enough for")
        assert account_of(paying).balance_microcredits == 0
        assert refusal_of(lambda: list(paying.generate(max_tokens=3))).reason == "INSUFFICIENT_CREDITS"


@pytest.mark.rule("T3")
def test_a_broken_stream_costs_no_more_than_was_handed_out(slow_server: ServerProcess, slow_wire: Wire) -> None:
    with payer(slow_server, slow_wire, CREDIT) as paying:
        stream = paying.generate(max_tokens=900)
        got = [next(response for response in stream if response.HasField("delta"))]
        got += [next(stream) for _ in range(3)]
        stream.cancel()  # type: ignore[attr-defined]
        wait_until(lambda: len(charges_of(paying)) == 1, "the charge")
        [charge] = charges_of(paying)
        [row] = _report(paying)
        assert sum(each.delta.num_tokens for each in got) <= row.completion_tokens < 900
        assert -charge.amount_microcredits <= CREDIT


@pytest.mark.rule("A10")
def test_a_revoked_keys_answers_end_and_cost_what_was_handed_out(slow_server: ServerProcess, slow_wire: Wire) -> None:
    with payer(slow_server, slow_wire, CREDIT) as paying:
        stream = paying.generate(max_tokens=900)
        got = [next(response for response in stream if response.HasField("delta"))]
        [key] = paying.accounts.ListApiKeys(account_pb2.ListApiKeysRequest(), metadata=paying.metadata).api_keys
        slow_wire.accounts.RevokeApiKey(account_pb2.RevokeApiKeyRequest(name=key.name), metadata=slow_wire.metadata)
        got += list(stream)
        end = got[-1].end
        assert end.finish_reason == inference_pb2.FINISH_REASON_ERROR
        assert end.error.reason == errors_pb2.Error.REASON_API_KEY_INVALID
        assert sum(each.delta.num_tokens for each in got) == end.usage.completion_tokens < 900
        account = key.name.partition("/keys/")[0]

        def charges() -> list[billing_pb2.LedgerEntry]:
            kinds = [billing_pb2.LedgerEntry.KIND_TOKEN_CHARGE]
            request = billing_pb2.ListLedgerEntriesRequest(account=account, kinds=kinds)
            return list(slow_wire.accounts.ListLedgerEntries(request, metadata=slow_wire.metadata).ledger_entries)

        wait_until(lambda: len(charges()) == 1, "the charge")
        assert -charges()[0].amount_microcredits == end.usage.cost_microcredits


@pytest.mark.rule("T3")
def test_an_answer_that_is_read_twice_is_charged_once_and_in_full(slow_server: ServerProcess, slow_wire: Wire) -> None:
    with payer(slow_server, slow_wire, CREDIT) as paying:
        first = paying.generate(max_tokens=40, request_id="once")
        next(response for response in first if response.HasField("delta"))
        first.cancel()  # type: ignore[attr-defined]
        whole = list(paying.generate(max_tokens=40, request_id="once"))
        assert sum(each.delta.num_tokens for each in whole) == whole[-1].end.usage.completion_tokens == 40
        assert list(paying.generate(max_tokens=40, request_id="once"))[-1].end == whole[-1].end
        wait_until(lambda: len(charges_of(paying)) == 1, "the charge")
        [row] = _report(paying)
        assert row.completion_tokens == 40


def _report(wire: Wire) -> list[billing_pb2.UsageRow]:
    return list(wire.accounts.GetUsageReport(billing_pb2.GetUsageReportRequest(), metadata=wire.metadata).rows)


def test_a_batch_is_charged_answer_by_answer(server: ServerProcess, wire: Wire) -> None:
    with payer(server, wire, CREDIT) as paying:
        request = inference_pb2.GenerateBatchRequest(
            model=MODEL,
            inputs=[inference_pb2.Input(prompt=text) for text in ("once", "upon", "a time")],
            options=inference_pb2.GenerationOptions(max_tokens=3),
        )
        list(paying.inference.GenerateBatch(request, metadata=paying.metadata, timeout=60))
        wait_until(lambda: len(charges_of(paying)) == 3, "three charges")


def test_the_openai_door_takes_tokens_too_and_says_what_they_cost(server: ServerProcess, wire: Wire) -> None:
    with payer(server, wire, CREDIT) as paying:
        body = json.dumps({"model": MODEL, "prompt": "once upon", "max_tokens": 3, "n": 2}).encode()
        headers = {"content-type": "application/json", **dict(paying.metadata)}
        asked = urllib.request.Request(f"http://{server.http}/v1/completions", body, headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert "x-tidemill-session" not in answer.headers
            cost = int(answer.headers["x-tidemill-cost-microcredits"])
        wait_until(lambda: len(charges_of(paying)) == 2, "a charge for each choice")
        assert sum(-each.amount_microcredits for each in charges_of(paying)) == cost


def test_what_is_refused_for_its_fields_spends_no_tokens_and_no_credits(server: ServerProcess, wire: Wire) -> None:
    with payer(server, wire, CREDIT, limits=account_pb2.UsageLimits(tokens_per_minute=40)) as paying:
        resumed = inference_pb2.GenerateRequest(
            model=MODEL, input=inference_pb2.Input(prompt="once"), request_id="r", resume_after=1
        )
        for _ in range(10):
            for call, reason in (
                (lambda: list(paying.generate("", max_tokens=30)), "PROMPT_EMPTY"),
                (lambda: list(paying.generate("many words " * 2_000, max_tokens=30)), "CONTEXT_EXCEEDED"),
                (lambda: list(paying.generate(max_tokens=0)), "FIELD_INVALID"),
                (lambda: paying.inference.Complete(resumed, metadata=paying.metadata), "FIELD_INVALID"),
            ):
                assert refusal_of(call).reason == reason
        list(paying.generate(max_tokens=3))
        wait_until(lambda: len(charges_of(paying)) == 1, "the charge of what ran")
        assert account_of(paying).balance_microcredits == CREDIT + charges_of(paying)[0].amount_microcredits


@pytest.mark.rule("A2")
def test_an_account_may_use_so_many_tokens_a_minute(server: ServerProcess, wire: Wire) -> None:
    with payer(server, wire, CREDIT, limits=account_pb2.UsageLimits(tokens_per_minute=40)) as paying:
        refusal = refusal_of(lambda: list(paying.generate(max_tokens=100)))
        assert (refusal.reason, refusal.field) == ("LIMIT_REACHED", "options.max_tokens")
        list(paying.generate(max_tokens=3))
