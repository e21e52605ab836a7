from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill_services.domain.ledger import Balance, EntryKind, LedgerEntry, balance_after, posted
from tidemill_services.domain.price import Price
from tidemill_services.domain.token_billing import (
    LAPSED,
    ROUND_UP_TO_MICROCREDITS,
    Settlement,
    TokenCharge,
    settled,
    token_charge_misfit,
    token_cost,
)

PRICE = Price(
    revision=3,
    model="small",
    account_id="",
    session_microcredits_per_second=1,
    input_microcredits_per_million_tokens=150_000_000,
    output_microcredits_per_million_tokens=600_000_000,
    create_ms=0,
)


@pytest.mark.rule("T1")
@pytest.mark.parametrize(
    ("prompt", "completion", "cost"),
    [
        (0, 0, 0),
        (1, 0, 10_000),  # 150 exactly, rounded up to a hundredth of a credit
        (1_000_000, 0, 150_000_000),
        (0, 1_000_000, 600_000_000),
        (200, 100, 90_000),
        (200, 101, 100_000),  # 90,600
    ],
)
def test_an_answer_costs_its_tokens_rounded_up_once(prompt: int, completion: int, cost: int) -> None:
    assert token_cost(PRICE, prompt, completion) == cost


@pytest.mark.rule("T1")
@given(
    prompt=st.integers(0, 10**7),
    completion=st.integers(0, 10**7),
    per_input=st.integers(0, 10**12),
    per_output=st.integers(0, 10**12),
)
def test_a_cost_is_the_least_multiple_that_covers_the_tokens(
    prompt: int, completion: int, per_input: int, per_output: int
) -> None:
    price = replace(
        PRICE, input_microcredits_per_million_tokens=per_input, output_microcredits_per_million_tokens=per_output
    )
    cost = token_cost(price, prompt, completion)
    exact_times_a_million = prompt * per_input + completion * per_output
    assert cost % ROUND_UP_TO_MICROCREDITS == 0
    assert (cost - ROUND_UP_TO_MICROCREDITS) * 10**6 < exact_times_a_million <= cost * 10**6


def settlement(costs: list[int], **changes: int | bool) -> Settlement:
    charges = [TokenCharge("k", "small", 3, cost, 1, 1) for cost in costs]
    wanted = {"needed_microcredits": 0, "ahead_microcredits": 0, "gives_back": True} | changes
    return Settlement("a", 1, charges, **wanted)


@given(
    costs=st.lists(st.integers(0, 50), max_size=8),
    held=st.integers(0, 200),
    available=st.integers(0, 200),
    needed=st.integers(0, 300),
    ahead=st.integers(0, 300),
    gives_back=st.booleans(),
)
def test_a_settlement_takes_what_is_held_first_and_never_more_than_is_there(
    costs: list[int], held: int, available: int, needed: int, ahead: int, gives_back: bool
) -> None:
    asked = settlement(costs, needed_microcredits=needed, ahead_microcredits=ahead, gives_back=gives_back)
    postings, held_after = settled(asked, held, available, 0)
    balance = Balance(held + available, held)
    for number, posting in enumerate(postings, 1):
        balance = balance_after(posted(balance, "a", posting, number, 0))  # raises where there is too little
    assert balance.held_microcredits == held_after
    paid = held + available - balance.balance_microcredits
    assert paid == min(sum(costs), held + available)
    assert paid <= held or held_after <= available
    rest = held + available - paid
    if rest >= needed:
        assert held_after >= needed
        if gives_back:
            assert held_after <= max(needed + ahead, 0)
    else:
        assert held_after == rest
    charged = [posting for posting in postings if posting.kind is EntryKind.TOKEN_CHARGE]
    assert len(charged) == len(costs)
    for posting, cost in zip(charged, costs, strict=True):
        assert (posting.reason == LAPSED) == (-posting.amount_microcredits < cost)


def test_what_is_held_ahead_of_need_leaves_most_of_the_account_free() -> None:
    _, held = settled(settlement([], needed_microcredits=100, ahead_microcredits=10_000), 0, 900, 0)
    assert held == 100 + 800 // 8


@pytest.mark.rule("L8")
def test_a_charge_that_its_price_does_not_make_is_named() -> None:
    posting = settled(settlement([10_000]), 50_000, 0, 0)[0][0]
    row = LedgerEntry(1, "a", 1, posting, 0, 0, 0)
    assert token_charge_misfit(row, PRICE) == ""
    assert "not there" in token_charge_misfit(row, None)
    assert "not of its model" in token_charge_misfit(row, replace(PRICE, model="large"))
    assert "not of its model" in token_charge_misfit(row, replace(PRICE, account_id="b"))
    assert "10,000" in token_charge_misfit(row, replace(PRICE, input_microcredits_per_million_tokens=10**12))
    less = replace(row, posting=replace(posting, amount_microcredits=-1))
    assert token_charge_misfit(less, PRICE)
    assert not token_charge_misfit(replace(less, posting=replace(less.posting, reason=LAPSED)), PRICE)
