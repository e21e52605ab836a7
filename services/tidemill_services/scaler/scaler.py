"""The scaler: on one control process at a time, the leader, decides what every host shall run."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.domain.scaling import ModelFacts, replicas_for_demand
from tidemill_services.store.database import REST_SECONDS, Database
from tidemill_services.store.hosts import HOST_LEASE_MS
from tidemill_services.store.leader import LEADER_LEASE_MS, release_leadership, renew_leadership
from tidemill_services.store.scaling import carry_out_plan, make_plan
from tidemill_services.store.topics import MODELS

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0  # replicas that demand asked for so lately are kept
RENEW_SECONDS = LEADER_LEASE_MS / 1000 / 3
ACT_SECONDS = LEADER_LEASE_MS / 1000 / 2  # a leader that renewed longer ago acts no more
WATCH_SECONDS = HOST_LEASE_MS / 1000  # of unbroken watching before a silent host counts as lost
GAP_SECONDS = 4.0  # between two looks: the watching was broken


class Scaler:
    """Decides while it leads; `tick` is one look."""

    def __init__(self, database: Database, process_id: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._process_id = process_id
        self._monotonic = monotonic
        self._epoch: int | None = None  # None: another process leads, or nobody
        self._renewed_at = -float("inf")
        self._watching_since: float | None = None
        self._looked_at = -float("inf")
        self._rests_since = 0  # the database's moment of the last plan
        self._rests_until = -float("inf")  # nothing runs, nobody needs anything: nothing to decide but by a change
        self._memory = DemandMemory(PATIENCE_SECONDS)

    @property
    def leads(self) -> bool:
        """Whether this process decides now."""
        return self._epoch is not None and self._monotonic() - self._renewed_at < ACT_SECONDS

    async def run(self) -> None:
        """Look at each change and every second, more seldom where nothing is needed, until cancelled."""
        changes = self._database.changes(MODELS)
        try:
            async for _ in changes:
                changes.rest_seconds = 0.0
                try:
                    if await self.tick():
                        changes.rest_seconds = RENEW_SECONDS
                except StoreUnavailableError as error:
                    self._watching_since = None  # what changed meanwhile is unknown
                    logger.warning("the scaler waits for the store: %s", error)
        finally:
            if self._epoch is not None:
                await self._release()

    async def tick(self) -> bool:
        """Renew the lease if it is time; decide, and write what is different. Raises StoreUnavailableError.

        Returns whether there is nothing to decide until something changes.
        """
        await self._renew()
        if not self.leads or self._epoch is None:
            self._watching_since = None
            return True  # what changes is the leader's
        may_lose_hosts = self._may_lose_hosts()
        if self._rests_until > self._monotonic() and not self._database.changed_since(MODELS, self._rests_since):
            return True
        self._rests_since, self._rests_until = self._database.moment, -float("inf")
        recently = self._memory.most(self._monotonic())
        plan = await self._database.read(make_plan, recently, may_lose_hosts=may_lose_hosts)
        self._memory.note(plan.facts, self._monotonic())
        if plan.changes_anything and self.leads:
            recently = self._memory.most(self._monotonic())
            still_leads = await self._database.write(
                carry_out_plan, self._process_id, self._epoch, recently, may_lose_hosts=may_lose_hosts
            )
            if not still_leads:
                self._epoch = None
            return False
        if plan.is_at_rest and not plan.placement:
            self._rests_until = self._monotonic() + REST_SECONDS
        return plan.is_at_rest

    async def _renew(self) -> None:
        now = self._monotonic()
        if self._epoch is not None and now - self._renewed_at < RENEW_SECONDS:
            return
        epoch = await self._database.write(renew_leadership, self._process_id)
        if epoch != self._epoch:
            logger.info("process %s %s", self._process_id, "follows" if epoch is None else f"leads, epoch {epoch}")
            self._memory = DemandMemory(PATIENCE_SECONDS)
        self._epoch = epoch
        self._renewed_at = now  # from before the write, so never later than the store's own clock began

    def _may_lose_hosts(self) -> bool:
        now = self._monotonic()
        if self._watching_since is None or now - self._looked_at > GAP_SECONDS:
            self._watching_since = now
        self._looked_at = now
        return now - self._watching_since >= WATCH_SECONDS

    async def _release(self) -> None:
        self._epoch = None
        try:
            async with asyncio.timeout(1.0):
                await self._database.write(release_leadership, self._process_id)
        except (StoreUnavailableError, TimeoutError):
            logger.warning("the leader's lease could not be given back; it runs out by itself")


class DemandMemory:
    """The most replicas that each model's demand asked for lately, so that a short lull ends none.

    A model that is seen for the first time is taken to have needed all that it has.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._needed: dict[str, deque[tuple[float, int]]] = {}

    def note(self, facts: tuple[ModelFacts, ...], now: float) -> None:
        """Remember what is needed now."""
        for model in facts:
            needed = replicas_for_demand(model)
            if model.model not in self._needed:
                self._needed[model.model] = deque([(now, max(needed, model.num_assigned))])
                continue
            history = self._needed[model.model]
            while history and history[-1][1] <= needed:
                history.pop()  # it never will be the most again
            history.append((now, needed))

    def most(self, now: float) -> dict[str, int]:
        """Return the most of each model."""
        for history in self._needed.values():
            while len(history) > 1 and now - history[0][0] > self._patience_seconds:
                history.popleft()
        return {model: history[0][1] for model, history in self._needed.items()}
