"""What must be true of a scheduler and its device between two steps, whatever came before."""

import numpy as np

from tidemill_serving.decoder.devices.fake import FakeDevice
from tidemill_serving.decoder.prefix import extend_chain
from tidemill_serving.decoder.scheduler import Scheduler
from tidemill_serving.decoder.sequence import Sequence, State


def check_integrity(scheduler: Scheduler, device: FakeDevice) -> None:
    """No slot is lost or used twice, the budget is kept, and each slot holds exactly what its owner put there."""
    running, kept = scheduler.running, scheduler.slots.kept
    seated = [sequence for sequence in running if sequence.slot >= 0]
    check_slots(scheduler)
    assert sum(sequence.num_held for sequence in running) == scheduler.num_held_tokens <= scheduler.token_budget
    deadlines = [each.request.deadline for each in scheduler if each.request.deadline is not None]
    assert scheduler.earliest_deadline <= min(deadlines, default=scheduler.earliest_deadline)
    assert len(scheduler.waiting) == len(list(scheduler.waiting))
    held = sum(sequence.num_held for sequence in seated)
    assert held + sum(one.num_cached for one in kept) <= scheduler.token_budget
    for sequence in seated:
        assert device.tokens_in(sequence.slot)[: sequence.num_cached] == tokens_of(sequence)
    for sequence in scheduler.preempted:
        assert sequence.state is State.WAITING
        assert (sequence.saved is not None) == (sequence.num_cached > 0)
        assert sequence.saved is None or sequence.saved[1].tolist() == tokens_of(sequence)


def check_slots(scheduler: Scheduler) -> None:
    tenants = list(scheduler.slots)
    assert [sequence.slot for sequence in scheduler.decoding] == list(range(len(scheduler.decoding)))
    assert [sequence.slot for sequence in (*scheduler.prefilling,)][1:] == [-1] * (len(scheduler.prefilling) - 1)
    assert len(scheduler.running) <= scheduler.num_slots
    owners = [owner for owner in (*scheduler.running, *scheduler.slots.kept) if owner.slot >= 0]
    assert all(tenants[owner.slot] is owner for owner in owners)
    assert sum(tenant is not None for tenant in tenants) == len(owners)
    assert all(sequence.slot < 0 for sequence in (*scheduler.waiting, *scheduler.preempted))
    assert not scheduler.slots.orders
    assert len({id(sequence) for sequence in scheduler}) == len(list(scheduler))


def check_kept(scheduler: Scheduler, device: FakeDevice, salts: list[bytes]) -> None:
    """What is kept is what its name says: some account's tokens, and nothing else."""
    for one in scheduler.slots.kept:
        tokens = np.array(device.tokens_in(one.slot)[: one.num_cached], np.int64)
        assert one.chain in [extend_chain((), tokens, salt) for salt in salts]


def tokens_of(sequence: Sequence) -> list[int]:
    """What a sequence has in the cache."""
    return [*sequence.prompt.tolist(), *sequence.completion][: sequence.num_cached]


def check_at_rest(scheduler: Scheduler, device: FakeDevice) -> None:
    """For an engine's `on_idle`: what fails here fails the engine."""
    check_integrity(scheduler, device)
    assert not list(scheduler)
    assert scheduler.load().num_free_tokens == scheduler.token_budget
