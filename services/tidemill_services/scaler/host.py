"""The host: has this process's replicas be what the leader assigned to it."""

import asyncio
import logging
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.domain.scaling import StartPolicy
from tidemill_services.engine_client import ReplicaClient
from tidemill_services.scaler.keeper import HostPorts, OnStarted, ReplicaKeeper
from tidemill_services.scaler.launcher import Connect, Launcher, LaunchSpec, replica_token
from tidemill_services.store import hosts
from tidemill_services.store.database import REST_SECONDS, Database, Transaction
from tidemill_services.store.hosts import HOST_LEASE_MS, Assignment
from tidemill_services.store.replicas import remove_replica
from tidemill_services.store.topics import MODELS

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
RENEW_SECONDS = HOST_LEASE_MS / 1000 / 4
# With replicas more often: of a host that died, sessions are billed to its last sign of life.
RENEW_IN_USE_SECONDS = HOST_LEASE_MS / 1000 / 10


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What one host is."""

    host_id: str  # the same in the next life of this process, so that it can clear up after itself
    capacity: int  # replicas that run at once
    launcher_secret: bytes  # of the whole platform: the tokens of all replicas come from it
    drain_grace_seconds: float = 30.0  # for generations that run when their replica ends
    start_policy: StartPolicy = field(default_factory=StartPolicy)


class Host:
    """Runs replicas on this machine. `open` before anything is served, `run` for the process's life, then `drain`."""

    def __init__(
        self,
        database: Database,
        launcher: Launcher,
        settings: HostSettings,
        *,
        connect: Connect = ReplicaClient,
        on_started: OnStarted = lambda _seconds: None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._ports = HostPorts(database, launcher, connect, settings.start_policy, on_started)
        self._keepers: dict[asyncio.Task[None], ReplicaKeeper] = {}
        self._changed = asyncio.Event()
        self._is_as_ordered = True  # nothing has to be started that could not be until now
        self._draining = False
        self._ended = asyncio.Event()

    @property
    def _capacity(self) -> int:
        return 0 if self._draining else self._settings.capacity

    @property
    def num_replicas(self) -> int:
        """Replicas that this host runs, starting and draining ones included."""
        return len(self._keepers)

    async def open(self) -> None:
        """Clear up after a former life, whose replicas died with it, and announce the host.

        Raises StoreUnavailableError.
        """
        num_lost = await self._database.write(hosts.remove_host, self._settings.host_id)
        if num_lost:
            logger.warning("%d replicas of this host's former life were lost with it", num_lost)
        await self._database.write(hosts.renew_host, self._settings.host_id, self._settings.capacity)

    async def run(self) -> None:
        """Reconcile until drained. Cancelled, it kills its replicas."""
        try:
            async with asyncio.TaskGroup() as group:
                watchers = [
                    group.create_task(self._renew(), name="host-renew"),
                    group.create_task(self._watch(), name="host-watch"),
                ]
                while not self._draining or self._keepers:
                    await self._wait_for_change()
                    self._changed.clear()
                    self._is_as_ordered = False
                    await self._reconcile(group)
                for watcher in watchers:
                    watcher.cancel()
            await self._database.write(hosts.remove_host, self._settings.host_id)
        except StoreUnavailableError:
            logger.warning("the store is away: the host %s leaves its records behind", self._settings.host_id)
        finally:
            self._ended.set()

    async def drain(self) -> None:
        """End all replicas, those that answer within their grace; then `run` returns. Launches nothing any more."""
        self._draining = True
        try:
            # Other hosts take over what is needed while this one still drains.
            await self._database.write(hosts.renew_host, self._settings.host_id, 0)
        except StoreUnavailableError:
            logger.warning("the store is away: the host %s drains without saying so", self._settings.host_id)
        self._changed.set()
        await self._ended.wait()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_IN_USE_SECONDS if self._keepers else RENEW_SECONDS)
            try:
                await self._database.write(hosts.renew_host, self._settings.host_id, self._capacity)
            except StoreUnavailableError as error:
                logger.warning("the host could not give its sign of life: %s", error)

    async def _watch(self) -> None:
        changes = self._database.changes(MODELS)
        changes.rest_seconds = REST_SECONDS
        async for _ in changes:
            self._changed.set()

    async def _wait_for_change(self) -> None:
        """Wait until the orders or the replicas change; look again soon where a start is still to be made."""
        try:
            async with asyncio.timeout(None if self._is_as_ordered else LOOK_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _reconcile(self, group: asyncio.TaskGroup) -> None:
        if self._draining:
            for keeper in self._keepers.values():
                keeper.end()
            return
        registered = [keeper for keeper in self._keepers.values() if keeper.is_registered]
        ours = {keeper.replica_id for keeper in self._keepers.values()}
        before = list(self._keepers.values())
        try:
            assignments, known = await self._database.read(_orders, self._settings.host_id)
            for replica_id in known - ours:  # it ended while the store was away
                await self._database.write(remove_replica, replica_id)
        except StoreUnavailableError:
            return  # what runs goes on
        for keeper in registered:
            if keeper.replica_id not in known:
                keeper.end_now()
        for model in {keeper.model for keeper in self._keepers.values()} - {order.model for order in assignments}:
            self._end_surplus(model, 0)
        for assignment in assignments:
            self._end_surplus(assignment.model, assignment.replicas)
        for assignment in assignments:
            self._start_missing(group, assignment, before)
        self._is_as_ordered = all(len(self._kept(order.model)) >= order.replicas for order in assignments)

    def _has_lost_one(self, model: str, before: list[ReplicaKeeper]) -> bool:
        """Whether a replica ended while the orders were read: they do not know if it failed, and the next ones will."""
        lost = set(before) - set(self._keepers.values())
        return any(keeper.model == model for keeper in lost)

    def _end_surplus(self, model: str, replicas: int) -> None:
        """End what is too many: first what has not begun, then the newest."""
        kept = self._kept(model)
        kept.sort(key=lambda keeper: not keeper.was_ready)
        for keeper in kept[replicas:]:
            keeper.end()

    def _start_missing(self, group: asyncio.TaskGroup, assignment: Assignment, before: list[ReplicaKeeper]) -> None:
        if self._has_lost_one(assignment.model, before):
            return
        while (
            assignment.may_start
            and len(self._kept(assignment.model)) < assignment.replicas
            and len(self._keepers) < self._capacity
        ):
            replica_id = f"{assignment.model[:40]}-{secrets.token_hex(8)}"
            spec = LaunchSpec(
                replica_id=replica_id,
                package_path=Path(assignment.package_path),
                slots=assignment.slots,
                drain_grace_seconds=self._settings.drain_grace_seconds,
                token=replica_token(self._settings.launcher_secret, replica_id),
            )
            keeper = ReplicaKeeper(self._ports, self._settings.host_id, assignment, spec)
            task = group.create_task(self._keep(keeper), name=f"keep-{replica_id}")
            self._keepers[task] = keeper
            task.add_done_callback(self._forget)

    async def _keep(self, keeper: ReplicaKeeper) -> None:
        try:
            await keeper.run()
        except StoreUnavailableError:
            logger.warning("the store is away: replica %s leaves its record behind", keeper.replica_id)

    def _kept(self, model: str) -> list[ReplicaKeeper]:
        """The replicas of a model that are not ending, oldest first."""
        return [keeper for keeper in self._keepers.values() if keeper.model == model and not keeper.is_ending]

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._keepers[task]
        self._changed.set()


def _orders(tx: Transaction, host_id: str) -> tuple[tuple[Assignment, ...], frozenset[str]]:
    """What the host shall run, and the replicas that the store knows on it."""
    return hosts.assignments_of_host(tx, host_id), hosts.replicas_of_host(tx, host_id)
