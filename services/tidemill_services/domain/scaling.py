"""How many replicas each model should have, and on which host. Facts in, decision out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

WANTED_MS = 600_000  # how long a StartModel alone keeps a model up
STOP_REST_MS = 2_000  # after a StopModel, in which the processes send away who waited and say so


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """What the operator decided for one model."""

    min_replicas: int = 0
    max_replicas: int = 1
    target_generations_per_replica: int = 8
    idle_timeout_ms: int = 7_200_000  # rests when it was not used for so long
    slots: int = 8  # generations that one replica runs at once

    @classmethod
    @lru_cache(maxsize=1024)
    def from_manifest(cls, manifest_json: str) -> "ScalingPolicy":
        """Take the policy out of a manifest's canonical JSON."""
        scaling = json.loads(manifest_json)["scaling"]
        return cls(
            min_replicas=scaling["min_replicas"],
            max_replicas=scaling["max_replicas"],
            target_generations_per_replica=scaling["target_generations_per_replica"],
            idle_timeout_ms=scaling["idle_timeout_seconds"] * 1000,
            slots=scaling["slots"],
        )


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """How often and when a failing start is tried again."""

    retry_delays_ms: tuple[int, ...] = (1_000, 5_000)  # after the first, the second failure in a row, ...
    failed_delay_ms: int = 60_000  # after the last of them the model is FAILED, and rests for so long
    max_failed_delay_ms: int = 600_000  # each further failure doubles the rest, up to this

    @property
    def max_tries(self) -> int:
        """Starts that may fail in a row before the model is FAILED."""
        return len(self.retry_delays_ms) + 1

    def retry_delay_ms(self, failed_starts: int) -> int:
        """How long to wait after so many failed starts in a row (at least 1)."""
        if failed_starts < self.max_tries:
            return self.retry_delays_ms[failed_starts - 1]
        num_doublings = min(failed_starts - self.max_tries, 32)
        return min(self.failed_delay_ms << num_doublings, self.max_failed_delay_ms)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of one model when it is decided how many replicas it should have."""

    model: str
    policy: ScalingPolicy
    num_running: int = 0  # generations in replicas
    num_waiting: int = 0  # generations in the queue
    open_sessions: int = 0
    wanted_ms: int | None = None  # the last StartModel; None: never, or stopped since
    last_used_ms: int | None = None  # None: never, or stopped since
    num_starting: int = 0
    ready_ms: int | None = None  # when the newest READY replica became so; None: there is none
    num_assigned: int = 0
    failed_starts: int = 0  # in a row
    retry_ms: int | None = None  # not to be started before
    num_recently_needed: int = 0  # the most replicas that its demand asked for within the patience to scale down

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped, or never used: what still runs then is only finishing."""
        return self.wanted_ms is None and self.last_used_ms is None


class Need(StrEnum):
    """Why a model is up; the order is that in which models get room."""

    USE = "USE"  # somebody uses it, waits for it, or the operator wants it up always
    WARM = "WARM"  # it was used lately; gives its room to those in use
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Desire:
    """How many replicas a model should have, and why."""

    model: str
    replicas: int
    need: Need


def is_in_use(facts: ModelFacts, now_ms: int) -> bool:
    """Whether somebody uses the model or waits for it: the time until it rests starts anew."""
    if _was_just_stopped(facts, now_ms):
        return False
    runs = facts.num_running > 0 and not facts.is_stopped
    return runs or facts.num_waiting > 0 or facts.open_sessions > 0


def is_at_rest(facts: ModelFacts, now_ms: int) -> bool:
    """Whether nobody needs the model or waits for its start: of time only its own rest may come."""
    return not (is_in_use(facts, now_ms) or _is_wanted(facts, now_ms) or facts.num_starting)


def replicas_for_demand(facts: ModelFacts) -> int:
    """How many replicas the generations that run or wait ask for."""
    demand = facts.num_running + facts.num_waiting
    return min(-(-demand // facts.policy.target_generations_per_replica), facts.policy.max_replicas)


def desired_replicas(facts: ModelFacts, now_ms: int) -> Desire:
    """Decide how many replicas a model should have now."""
    policy = facts.policy
    if _was_just_stopped(facts, now_ms):
        return Desire(facts.model, 0, Need.NONE)
    if is_in_use(facts, now_ms) or _is_wanted(facts, now_ms):
        least = max(1, policy.min_replicas)
        replicas = max(least, replicas_for_demand(facts), facts.num_recently_needed)
        return Desire(facts.model, min(replicas, policy.max_replicas), Need.USE)
    if policy.min_replicas:
        return Desire(facts.model, policy.min_replicas, Need.USE)
    if facts.num_assigned and _was_used_lately(facts, now_ms):
        return Desire(facts.model, 1, Need.WARM)
    return Desire(facts.model, 0, Need.NONE)


def _was_just_stopped(facts: ModelFacts, now_ms: int) -> bool:
    """What is counted as demand then may still be that of before the stop; an open session is newer than it."""
    return (
        not facts.failed_starts and not facts.open_sessions and facts.retry_ms is not None and now_ms < facts.retry_ms
    )


def _is_wanted(facts: ModelFacts, now_ms: int) -> bool:
    """A StartModel keeps a model up while it starts and some minutes after."""
    if facts.wanted_ms is None:
        return False
    since_ms = max(facts.wanted_ms, facts.ready_ms or 0)
    return facts.num_starting > 0 or now_ms < since_ms + WANTED_MS


def _was_used_lately(facts: ModelFacts, now_ms: int) -> bool:
    """A model that cannot be started is not kept warm."""
    if facts.last_used_ms is None or facts.failed_starts:
        return False
    return now_ms < facts.last_used_ms + facts.policy.idle_timeout_ms


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A control process with a launcher."""

    host_id: str
    capacity: int  # replicas


Placement = Mapping[tuple[str, str], int]
"""Replicas by (model, host_id); none of them 0."""


def assign(desires: Sequence[Desire], current: Placement, hosts: Sequence[HostFacts]) -> Placement:
    """Place the desired replicas on hosts. What has a place keeps it; what finds none is left out.

    Models in use get room before those that are only kept warm, and those that have replicas before those that have
    none; among equals the name decides.
    """
    free = {host.host_id: host.capacity for host in hosts}
    placed: dict[tuple[str, str], int] = {}
    for need in (Need.USE, Need.WARM):
        ranked = sorted((desire for desire in desires if desire.need is need), key=lambda desire: desire.model)
        missing = {desire.model: _keep(desire, current, free, placed) for desire in ranked}
        for model, num_missing in missing.items():
            _place(model, num_missing, free, placed)
    return placed


def _keep(desire: Desire, current: Placement, free: dict[str, int], placed: dict[tuple[str, str], int]) -> int:
    """Keep what the model has, as far as it is desired and there is room; return how many replicas are missing."""
    num_missing = desire.replicas
    for host_id in sorted(free):
        kept = min(current.get((desire.model, host_id), 0), num_missing, free[host_id])
        if kept:
            placed[desire.model, host_id] = kept
            free[host_id] -= kept
            num_missing -= kept
    return num_missing


def _place(model: str, num_missing: int, free: dict[str, int], placed: dict[tuple[str, str], int]) -> None:
    """Place missing replicas one by one, each on the host with the most room."""
    for _ in range(num_missing):
        host_id = max(sorted(free), key=lambda host_id: free[host_id], default=None)
        if host_id is None or not free[host_id]:
            return
        placed[model, host_id] = placed.get((model, host_id), 0) + 1
        free[host_id] -= 1
