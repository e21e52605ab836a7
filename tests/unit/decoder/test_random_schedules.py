"""Random schedules on the fake device, whose answers tell of every token that was in the wrong place."""

import random
from dataclasses import dataclass, field

import pytest

from tests.scale import count
from tests.unit.decoder.integrity import check_integrity, check_kept
from tests.unit.decoder.recorder import LoopRig
from tidemill_serving.decoder.devices.fake import FakeDevice, fake_answer
from tidemill_serving.decoder.sequence import Limits
from tidemill_serving.engine import FinishReason

NUM_SCHEDULES = count(120, full=20_000)
NUM_PARTS = 4
CONTEXT = 384
SALTS = [b"ada", b"bob", b"eve"]


@dataclass
class Wish:
    """One generation, and what becomes of it."""

    step: int
    prompt: list[int]
    max_tokens: int
    salt: bytes
    exact: bool
    cancelled: int | None
    deadline: int | None
    answer: list[int] = field(default_factory=list)


def make_prompt(dice: random.Random, openings: list[list[int]], earlier: list[Wish]) -> list[int]:
    """Often one that begins as others do; at times the next turn of an earlier one's chat."""
    tail = [dice.randrange(3, 500) for _ in range(dice.choice([1, 5, 20, 70]))]
    kind = dice.random()
    if kind < 0.5:
        opening = dice.choice(openings)
        return (opening[: dice.choice([len(opening), dice.randrange(1, len(opening) + 1)])] + tail)[: CONTEXT - 60]
    if kind < 0.7 and earlier:
        other = dice.choice(earlier)
        return (other.prompt + other.answer + tail)[: CONTEXT - 60]
    if kind < 0.8 and earlier:
        return dice.choice(earlier).prompt
    return tail


def make_wishes(dice: random.Random, *, is_crowded: bool) -> list[Wish]:
    openings = [[dice.randrange(3, 500) for _ in range(dice.randrange(64, 200))] for _ in range(2)]
    pause = dice.choice([0, 1, 4, 12])
    wishes: list[Wish] = []
    step = 0
    for _ in range(dice.randrange(4, 16)):
        step += dice.randrange(pause + 1)
        prompt = make_prompt(dice, openings, wishes)[: 40 if is_crowded else CONTEXT]
        wish = Wish(
            step,
            prompt,
            max_tokens=min(dice.choice([60, 100] if is_crowded else [1, 2, 9, 40, 80]), CONTEXT - len(prompt)),
            salt=dice.choice(SALTS[: dice.choice([1, 3])]),
            exact=dice.random() < 0.2,
            cancelled=dice.randrange(60) if dice.random() < 0.15 else None,
            deadline=dice.randrange(60) if dice.random() < 0.1 else None,
        )
        wish.answer = fake_answer(prompt, wish.max_tokens)
        wishes.append(wish)
    return wishes


def run_schedule(seed: int) -> LoopRig:
    dice = random.Random(seed)
    device, is_crowded = FakeDevice(), dice.random() < 0.4
    rig = LoopRig(
        device,
        num_slots=dice.randrange(1, 9),
        num_cache_slots=dice.choice([0, 1, 4]),
        token_budget=CONTEXT if is_crowded else dice.choice([CONTEXT, CONTEXT + 100, 4000]),
        headroom=dice.choice([1, 4, 16]),
        max_chunk_length=dice.randrange(16, 80),
        limits=Limits(CONTEXT, frozenset({2})),
    )
    wishes = make_wishes(dice, is_crowded=is_crowded)
    step, coming = 0, list(enumerate(wishes))
    while coming or rig.scheduler.has_work:
        rig.now = float(step)
        while coming and coming[0][1].step <= step:
            i, wish = coming.pop(0)
            due = None if wish.deadline is None else float(step + wish.deadline)
            rig.add(i, wish.prompt, wish.max_tokens, deadline=due, account_salt=wish.salt, exact=wish.exact)
        rig.step(*(i for i, wish in enumerate(wishes) if wish.cancelled == step - wish.step))
        check_integrity(rig.scheduler, device)
        step += 1
        assert step < 20_000, "somebody is not served"
    check_kept(rig.scheduler, device, SALTS)
    assert rig.scheduler.load().num_free_tokens == rig.scheduler.token_budget
    for i, wish in enumerate(wishes):
        end, made = rig.recorder.ends[i], rig.recorder.tokens[i]
        assert made == wish.answer[: len(made)]
        assert end.num_completion_tokens == len(made)
        assert end.num_cached_prompt_tokens <= max(0, len(wish.prompt) - 2)
        if wish.cancelled is None and wish.deadline is None:
            assert (len(made), end.finish_reason) == (wish.max_tokens, FinishReason.LENGTH)
    return rig


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_no_slot_is_lost_or_used_twice_budgets_are_kept_and_everybody_is_served(part):
    num_cached = num_preemptions = 0
    for seed in range(part, NUM_SCHEDULES, NUM_PARTS):
        try:
            rig = run_schedule(seed)
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}: {error}") from error
        num_cached += rig.loop.counters.num_cached_prompt_tokens
        num_preemptions += rig.scheduler.num_preemptions
    assert num_cached > 100, "these schedules must hit the prefix cache"
    assert num_preemptions > 0, "and be short of room"
