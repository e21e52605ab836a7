"""The queue that is fair between accounts."""

from hypothesis import given
from hypothesis import strategies as st

from tidemill_services.scaler.queue import FairQueue


def drained(queue: FairQueue[str]) -> list[str]:
    return [queue.pop(queue.next_account({})) for _ in range(len(queue))]


def test_an_account_with_many_requests_does_not_hold_up_one_with_few():
    queue: FairQueue[str] = FairQueue(256)
    for number in range(100):
        queue.push("greedy", f"g{number}")
    queue.push("modest", "m0")
    queue.push("modest", "m1")
    assert drained(queue)[:5] == ["g0", "m0", "g1", "m1", "g2"]


def test_within_an_account_the_first_comes_first():
    queue: FairQueue[str] = FairQueue(256)
    for number in range(5):
        queue.push("one", str(number))
    assert drained(queue) == ["0", "1", "2", "3", "4"]


def test_what_is_removed_does_not_come():
    queue: FairQueue[str] = FairQueue(3)
    for account, item in (("a", "a0"), ("a", "a1"), ("b", "b0")):
        queue.push(account, item)
    assert queue.is_full
    queue.remove("a", "a0")
    queue.remove("a", "a0")
    queue.remove("c", "c0")
    assert not queue.is_full
    assert drained(queue) == ["a1", "b0"]
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_while_accounts_wait_none_gets_two_turns_before_another_gets_one(steps):
    queue: FairQueue[tuple[str, int]] = FairQueue(1_000)
    waiting: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    turns_since = dict.fromkeys("abc", 0)  # turns of others since an account waits without one
    for number, (account, is_push) in enumerate(steps):
        if is_push:
            if not waiting[account]:
                turns_since[account] = 0
            waiting[account].append(number)
            queue.push(account, (account, number))
        elif len(queue):
            served, item = queue.pop(queue.next_account({}))
            assert item == waiting[served].pop(0)
            for other in "abc":
                turns_since[other] = 0 if other == served else turns_since[other] + bool(waiting[other])
            assert max(turns_since.values()) <= 2
    assert len(queue) == sum(len(items) for items in waiting.values())


def test_it_is_the_turn_of_the_account_that_holds_least():
    queue: FairQueue[str] = FairQueue(256)
    for account in ("greedy", "modest", "small"):
        queue.push(account, account)
    held = {"greedy": 7, "modest": 2}
    order = []
    while len(queue):
        account = queue.next_account(held)
        order.append(queue.pop(account))
        held[account] = held.get(account, 0) + 1
    assert order == ["small", "modest", "greedy"]
