"""Keeps the pools of this process in line with the store, and connected to the replicas that it knows."""

import asyncio
import logging
import time
from dataclasses import dataclass

from tidemill_services.domain.errors import ModelColdError, ReplicaLostError, StoreUnavailableError
from tidemill_services.domain.model import ModelState, ModelView
from tidemill_services.domain.replica import ReplicaRecord, ReplicaState
from tidemill_services.scaler.launcher import Connect, replica_token
from tidemill_services.scaler.pool import ModelPool, PooledReplica, Pools
from tidemill_services.store.database import REST_SECONDS, Database, Transaction
from tidemill_services.store.model_views import list_model_views
from tidemill_services.store.replicas import list_replicas
from tidemill_services.store.topics import MODELS

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read on one snapshot."""

    now_ms: int
    views: tuple[ModelView, ...]
    replicas: tuple[ReplicaRecord, ...]


def _look(tx: Transaction) -> _Seen:
    return _Seen(tx.now_ms, list_model_views(tx), list_replicas(tx))


class PoolFollower:
    """Brings new replicas into their pools, takes ended ones out, and tells who waits what became of their model."""

    def __init__(self, database: Database, launcher_secret: bytes, connect: Connect, pools: Pools) -> None:
        self._database = database
        self._launcher_secret = launcher_secret
        self._connect = connect
        self._pools = pools
        self._followed: dict[str, tuple[ModelPool, asyncio.Task[None]]] = {}  # by replica

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            changes = self._database.changes(MODELS)
            async for _ in changes:
                changes.rest_seconds = 0.0
                try:
                    seen = await self._database.read(_look)
                except StoreUnavailableError:
                    continue  # what is connected goes on
                self._take_out({record.replica_id for record in seen.replicas})
                for record in seen.replicas:
                    self._take_in(record, group)
                for view in seen.views:
                    self._tell(view, seen.now_ms)
                if self._is_at_rest(seen.views):
                    changes.rest_seconds = REST_SECONDS

    def _is_at_rest(self, views: tuple[ModelView, ...]) -> bool:
        """Whether nobody waits here, and what becomes of each model is told by commits alone."""
        nobody_waits = not any(pool.queue for _, pool in self._pools.items())
        return nobody_waits and all(view.state in (ModelState.STOPPED, ModelState.READY) for view in views)

    def _take_out(self, present: set[str]) -> None:
        for replica_id in self._followed.keys() - present:
            pool, task = self._followed.pop(replica_id)
            del pool.replicas[replica_id]
            task.cancel()

    def _take_in(self, record: ReplicaRecord, group: asyncio.TaskGroup) -> None:
        if record.address is None:
            return
        pool = self._pools.of(record.model)
        replica = pool.replicas.get(record.replica_id)
        if replica is None:
            token = replica_token(self._launcher_secret, record.replica_id)
            replica = PooledReplica(record.replica_id, self._connect(record.address, token))
            pool.replicas[record.replica_id] = replica
            task = group.create_task(
                self._follow(pool, replica, record.address, token), name=f"replica-{record.replica_id}"
            )
            self._followed[record.replica_id] = (pool, task)
        replica.is_in_service = record.state is ReplicaState.READY
        pool.hand_out()

    async def _follow(self, pool: ModelPool, replica: PooledReplica, address: str, token: str) -> None:
        """Stay connected to a replica until cancelled; hand out its places when its status changes."""
        while True:
            try:
                await replica.connection.open()
            except ReplicaLostError as error:
                logger.debug("replica %s: %s", replica.replica_id, error)  # its host says what became of it
            else:
                try:
                    async for _ in replica.connection.statuses():
                        pool.hand_out()
                finally:
                    await replica.connection.close()
            await asyncio.sleep(RECONNECT_SECONDS)
            replica.connection = self._connect(address, token)

    def _tell(self, view: ModelView, now_ms: int) -> None:
        """Keep what was read, and send away those whose model failed or was stopped."""
        pool = self._pools.of(view.name)
        before, pool.view = pool.view, view
        pool.retry_at = time.monotonic() + ((view.retry_ms or now_ms) - now_ms) / 1000
        if pool.is_ready:
            return
        if (failure := pool.failure()) is not None:
            pool.refuse_waiters(failure)
        elif before is not None and view.record.is_stopped and not before.record.is_stopped:
            pool.refuse_waiters(ModelColdError(f"{view.name} was stopped while this waited for it."))
