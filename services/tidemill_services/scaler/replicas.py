"""The lease primitive: wait for a place in a replica of a model, have it, give it back.

One bounded queue per model, cold and saturated alike. Whoever waits is counted as demand in the store, and that wakes
the model: nothing here ever starts a process.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache, partial

from tidemill_services.domain.errors import ModelColdError, QueueFullError, WaitExceededError
from tidemill_services.domain.generation import WaitPolicy
from tidemill_services.domain.model import ModelState, StartPhase
from tidemill_services.engine_client import ReplicaClient, ReplicaStats
from tidemill_services.scaler.demand_publisher import DemandPublisher
from tidemill_services.scaler.launcher import Connect
from tidemill_services.scaler.pool import ModelPool, PooledReplica, Pools, Waiter
from tidemill_services.scaler.pool_follower import PoolFollower
from tidemill_services.store.database import Database
from tidemill_services.store.model_views import get_model_view
from tidemill_services.store.models import want_model

MAX_WAITING = 256  # generations of one model
LOOK_SECONDS = 0.05  # for places that other processes gave back, while somebody waits
CONNECT_SECONDS = 5.0  # to a replica that is ready
FULL_RETRY_SECONDS = 1.0
MAX_SALTS = 10_000  # remembered, of the accounts that asked last: each lease needs one
COLD_RETRY_SECONDS = 5.0  # when no earlier start says how long one takes


class Lease:
    """A place in a replica, until it is given back."""

    def __init__(self, replica: PooledReplica, account_salt: bytes, queue_ms: int, free: Callable[[], None]) -> None:
        self.account_salt = account_salt  # stands for the account where nobody may know it
        self.replica_id = replica.replica_id
        self.client = replica.connection
        self.queue_ms = queue_ms  # how long it was waited for
        self.has_slot = not replica.is_over_full  # else it waits for one there, until its first token comes
        self._free: Callable[[], None] | None = free

    def give_back(self) -> None:
        """Let the next one have the place, before the block ends. Repeats are fine."""
        free, self._free = self._free, None
        if free is not None:
            free()


@dataclass(frozen=True, slots=True)
class WaitStatus:
    """What somebody who waits for a model is told."""

    model_state: ModelState
    phase: StartPhase | None
    progress: float  # 0 to 1 within the whole start
    time_to_ready_ms: int | None
    queue_position: int  # at most so many come before


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """One model in this process, for the metrics."""

    num_waiting: int
    num_leased: int
    num_ready_replicas: int
    num_slots: int  # of the ready ones
    num_slots_used: int  # by all processes, as the replicas said last
    num_buffered_bytes: int  # that came from replicas and wait for their readers


class Replicas:
    """All leases of this process. `run` for the process's life."""

    def __init__(
        self,
        database: Database,
        process_id: str,
        launcher_secret: bytes,
        *,
        connect: Connect = ReplicaClient,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._database = database
        self._salt_of = lru_cache(MAX_SALTS)(partial(_account_salt, launcher_secret))
        self._pools = Pools(max_waiting)
        self._publisher = DemandPublisher(database, process_id, self._pools)
        self._follower = PoolFollower(database, launcher_secret, connect, self._pools)
        self._max_waiting = max_waiting
        self._someone_waits = asyncio.Event()

    async def run(self) -> None:
        """Follow the store and the replicas, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publisher.run(), name="replicas-demand")
            group.create_task(self._follower.run(), name="replicas-follow")
            group.create_task(self._look_for_places(), name="replicas-look")

    def lease_now(self, model: str, account_id: str) -> Lease | None:
        """A place that is free and that nobody waits for; the caller must give it back. None when one must wait."""
        pool = self._pools.of(model)
        replica = self._take_free_place(pool, account_id)
        return None if replica is None else self._lease(pool, account_id, replica, queue_ms=0)

    @asynccontextmanager
    async def lease(self, model: str, account_id: str, *, wait: WaitPolicy) -> AsyncIterator[Lease]:
        """Have a place in a replica of a registered model, for one generation at a time.

        Raises ModelColdError and QueueFullError (by the wait policy, or when the queue is full), ModelFailedError,
        WaitExceededError, StoreUnavailableError.
        """
        lease = await self.wait_for_place(model, account_id, wait)
        try:
            yield lease
        finally:
            lease.give_back()

    async def wait_for_place(self, model: str, account_id: str, wait: WaitPolicy) -> Lease:
        """As `lease`, for a caller that must give it back itself."""
        arrived = time.monotonic()
        pool = self._pools.of(model)
        replica = await self._take_place(model, pool, account_id, wait)
        queue_ms = round((time.monotonic() - arrived) * 1000)
        return self._lease(pool, account_id, replica, queue_ms)

    async def require_ready(self, model: str) -> None:
        """Wake a model that sleeps, and refuse who does not wait for it; a place in it is another question.

        Raises ModelColdError, ModelFailedError, StoreUnavailableError.
        """
        pool = self._pools.of(model)
        if pool.is_ready:
            return
        if (failure := pool.failure()) is not None:
            raise failure
        await self._refuse_at_once(model, pool)

    def waiting_status(self, model: str) -> WaitStatus:
        """What a request that waits for `model` is told."""
        pool = self._pools.of(model)
        num_before = max(0, len(pool.queue) - 1)
        view = pool.view
        if view is None:
            return WaitStatus(ModelState.QUEUED, None, 0.0, None, num_before)
        return WaitStatus(view.state, view.phase, view.progress, view.time_to_ready_ms, num_before)

    def counts(self) -> Mapping[str, PoolCounts]:
        """What waits and runs now, by model."""
        return {model: _count(pool) for model, pool in self._pools.items()}

    def engine_stats(self) -> Mapping[str, Mapping[str, ReplicaStats]]:
        """What the engines of the ready replicas did, by model and replica."""
        return {
            model: {one.replica_id: one.connection.stats for one in pool.replicas.values() if one.is_ready}
            for model, pool in self._pools.items()
        }

    async def _take_place(self, model: str, pool: ModelPool, account_id: str, wait: WaitPolicy) -> PooledReplica:
        replica = self._take_free_place(pool, account_id)
        if replica is not None:
            return replica
        if not pool.is_ready and (failure := pool.failure()) is not None:
            raise failure
        fails_fast = wait.fail_fast or (wait.fail_cold and not pool.is_ready)
        if fails_fast:
            await self._refuse_at_once(model, pool)
        if pool.queue.is_full:
            raise QueueFullError(
                f"{self._max_waiting} requests wait for {model} already: try again.",
                retry_after_seconds=FULL_RETRY_SECONDS,
            )
        if not fails_fast:
            return await self._wait(model, pool, account_id, wait.max_wait_seconds)
        try:
            return await self._wait(model, pool, account_id, min(CONNECT_SECONDS, wait.max_wait_seconds))
        except WaitExceededError:
            sentence = f"{model} is ready and cannot be reached: try again."
            raise ModelColdError(sentence, retry_after_seconds=FULL_RETRY_SECONDS) from None

    async def _wait(self, model: str, pool: ModelPool, account_id: str, max_wait_seconds: float) -> PooledReplica:
        waiter: Waiter = asyncio.get_running_loop().create_future()
        pool.queue.push(account_id, waiter)
        pool.hand_out()  # one whose account holds nothing may find a place where the others before it do not
        self._someone_waits.set()
        if pool.is_ready:
            self._publisher.something_runs()
        elif len(pool.queue) == 1:
            self._publisher.somebody_waits()
        try:
            async with asyncio.timeout(max_wait_seconds):
                return await waiter
        except BaseException as error:
            pool.queue.remove(account_id, waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_back(pool, account_id, waiter.result())  # it came in the moment in which we went away
            if isinstance(error, TimeoutError):
                state = self.waiting_status(model).model_state
                raise WaitExceededError(f"{model} was waited for {max_wait_seconds:g} s and is {state}.") from None
            raise

    def _take_free_place(self, pool: ModelPool, account_id: str) -> PooledReplica | None:
        replica = None if len(pool.queue) else pool.take_place(account_id)
        if replica is not None:
            self._publisher.something_runs()
        return replica

    def _lease(self, pool: ModelPool, account_id: str, replica: PooledReplica, queue_ms: int) -> Lease:
        return Lease(replica, self._salt_of(account_id), queue_ms, partial(self._give_back, pool, account_id, replica))

    def _give_back(self, pool: ModelPool, account_id: str, replica: PooledReplica) -> None:
        pool.give_back(account_id, replica)
        pool.hand_out()

    async def _refuse_at_once(self, model: str, pool: ModelPool) -> None:
        """Say why there is no place now; a model that sleeps is woken first.

        Returns when the model is ready, and only this process is not connected to its replica yet.
        """
        if pool.is_ready:
            raise QueueFullError(f"All places of {model} are taken: try again.", retry_after_seconds=FULL_RETRY_SECONDS)
        view = await self._database.read(get_model_view, model)
        if view.state is ModelState.READY:
            return
        if view.state in (ModelState.STOPPED, ModelState.DRAINING):
            await self._database.write(want_model, model)
        retry_after = COLD_RETRY_SECONDS if view.time_to_ready_ms is None else view.time_to_ready_ms / 1000
        raise ModelColdError(
            f"{model} was {view.state} and is waking: try again, or wait for it.", retry_after_seconds=retry_after
        )

    async def _look_for_places(self) -> None:
        """While somebody waits, look for places that only a replica's reported load shows."""
        while True:
            await self._someone_waits.wait()
            await asyncio.sleep(LOOK_SECONDS)
            for pool in self._pools.values():
                pool.hand_out()
            if not any(len(pool.queue) for pool in self._pools.values()):
                self._someone_waits.clear()


def _account_salt(launcher_secret: bytes, account_id: str) -> bytes:
    """What stands for an account at its replicas."""
    return hmac.digest(launcher_secret, b"account-salt:" + account_id.encode(), hashlib.sha256)[:16]


def _count(pool: ModelPool) -> PoolCounts:
    loads = [replica.connection.status.load for replica in pool.replicas.values() if replica.is_ready]
    return PoolCounts(
        num_waiting=len(pool.queue),
        num_leased=pool.num_leased,
        num_ready_replicas=len(loads),
        num_slots=sum(load.num_slots for load in loads),
        num_slots_used=sum(load.num_running for load in loads),
        num_buffered_bytes=sum(replica.connection.num_buffered_bytes for replica in pool.replicas.values()),
    )
