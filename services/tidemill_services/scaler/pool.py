"""The replicas of one model as this process sees them, and who waits for a place in them."""

import asyncio
import time
from collections import Counter
from collections.abc import ItemsView, ValuesView
from dataclasses import dataclass, field

from tidemill_services.domain.errors import ModelFailedError
from tidemill_services.domain.model import ModelState, ModelView
from tidemill_services.engine_client import ReplicaStatus
from tidemill_services.scaler.launcher import ReplicaConnection
from tidemill_services.scaler.queue import FairQueue

NUM_EXTRA_LEASES = 2  # above a replica's slots, so that a free slot finds work there already
NUM_FIRST_LEASES = 1  # above these, for an account that has none: the replica then gives it the next free slot


@dataclass(eq=False, slots=True)
class PooledReplica:
    """One replica that this process is, or will be, connected to."""

    replica_id: str
    connection: ReplicaConnection
    is_in_service: bool = False  # the store has it READY, so its sessions are billed
    num_leased: int = 0  # by this process

    @property
    def is_ready(self) -> bool:
        """Whether generations may be sent there."""
        return self.is_in_service and self.connection.status.takes_generations

    @property
    def load(self) -> int:
        """Generations there: those that it reported, of all processes, or ours where the report is behind."""
        return max(_reported(self.connection.status), self.num_leased)

    def has_place(self, *, is_first: bool) -> bool:
        """Whether one more generation finds a slot, or nearly; `is_first`: its account holds nothing yet."""
        num_extra = NUM_EXTRA_LEASES + (NUM_FIRST_LEASES if is_first else 0)
        return self.is_ready and self.load < self.connection.status.load.num_slots + num_extra

    @property
    def is_over_full(self) -> bool:
        """Whether the last generation that was sent there has to wait for a slot."""
        others = max(_reported(self.connection.status), self.num_leased - 1)
        return others >= self.connection.status.load.num_slots


def _reported(status: ReplicaStatus) -> int:
    return status.load.num_running + status.load.num_waiting


Waiter = asyncio.Future[PooledReplica]


@dataclass(eq=False, slots=True)
class ModelPool:
    """One model: its replicas, its queue, and what was last read of it."""

    queue: FairQueue[Waiter]
    replicas: dict[str, PooledReplica] = field(default_factory=dict)
    num_held: Counter[str] = field(default_factory=Counter)  # places that this process holds, by account
    view: ModelView | None = None  # None: not read yet
    retry_at: float = 0.0  # when a failed start is tried again, on the clock of `time.monotonic`

    @property
    def is_ready(self) -> bool:
        """Whether some replica answers."""
        return any(replica.is_ready for replica in self.replicas.values())

    @property
    def num_leased(self) -> int:
        """Generations that this process runs."""
        return sum(replica.num_leased for replica in self.replicas.values())

    def failure(self) -> ModelFailedError | None:
        """The error of who asks for a model that could not be started; None when it could, or is tried again."""
        if self.view is None or self.view.state is not ModelState.FAILED:
            return None
        return ModelFailedError(
            f"{self.view.name} could not be started: {self.view.failure}",
            retry_after_seconds=max(0.0, self.retry_at - time.monotonic()),
        )

    def take_place(self, account_id: str) -> PooledReplica | None:
        """Take a place in the replica with the least load; None when there is none."""
        is_first = not self.num_held[account_id]
        places = [replica for replica in self.replicas.values() if replica.has_place(is_first=is_first)]
        if not places:
            return None
        replica = min(places, key=lambda replica: replica.load)
        replica.num_leased += 1
        self.num_held[account_id] += 1
        return replica

    def give_back(self, account_id: str, replica: PooledReplica) -> None:
        """Let go of a place that was taken."""
        replica.num_leased -= 1
        self.num_held[account_id] -= 1
        if not self.num_held[account_id]:
            del self.num_held[account_id]

    def hand_out(self) -> None:
        """Give the free places to those that wait, in fair turns."""
        while len(self.queue):
            account_id = self.queue.next_account(self.num_held)
            replica = self.take_place(account_id)
            if replica is None:
                return
            waiter = self.queue.pop(account_id)
            if waiter.done():  # it has just gone away
                self.give_back(account_id, replica)
            else:
                waiter.set_result(replica)

    def refuse_waiters(self, error: Exception) -> None:
        """Let all that wait go away with an error."""
        while len(self.queue):
            waiter = self.queue.pop(self.queue.next_account(self.num_held))
            if not waiter.done():
                waiter.set_exception(error)


class Pools:
    """The pools of all models that this process has heard of."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._pools: dict[str, ModelPool] = {}

    def of(self, model: str) -> ModelPool:
        """The pool of a model."""
        if model not in self._pools:
            self._pools[model] = ModelPool(FairQueue(self._max_waiting))
        return self._pools[model]

    def values(self) -> ValuesView[ModelPool]:
        """All of them."""
        return self._pools.values()

    def items(self) -> ItemsView[str, ModelPool]:
        """All of them, by model."""
        return self._pools.items()
