"""The page `/metrics/billing`: the ledger's totals, complete until the end of the block that it names.

They come from the store alone, so they survive restarts, and every process shows the same.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.domain.ledger import CHARGES, EntryKind
from tidemill_services.domain.ledger_totals import Totals, TotalsKey
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.ledger_seal import count_unsealed, read_totals

STORE_SECONDS = 10.0

_OF_MODEL = ("account", "model")


class BillingPage:
    """Reads the page."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> bytes:
        """The page's text, in Prometheus' format. Raises StoreUnavailableError: an old page would be a wrong one."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await self._database.read(_write_page)
        except TimeoutError:
            raise StoreUnavailableError from None


class LedgerTotals(Collector):
    """The series of some totals."""

    def __init__(self, block: int, totals: Mapping[TotalsKey, Totals], num_unsealed: int) -> None:
        self._block = block
        self._totals = totals
        self._num_unsealed = num_unsealed

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield GaugeMetricFamily(
            "tidemill_ledger_block",
            "Number of the ledger's newest block; all that is here holds until its end.",
            self._block,
        )
        yield GaugeMetricFamily(
            "tidemill_ledger_unsealed_entries",
            "Rows that wait for their block and are not counted here yet.",
            self._num_unsealed,
        )
        yield from self._charges()
        yield from self._refunds()
        yield from self._accounts()

    def _charges(self) -> Iterator[Metric]:
        """A model that an account has used is there from its first hold on, so that the first charge is seen."""
        seconds = CounterMetricFamily(
            "tidemill_session_billed_seconds", "Seconds of sessions that were charged.", labels=_OF_MODEL
        )
        charged = CounterMetricFamily(
            "tidemill_charged_microcredits", "Microcredits that were charged.", labels=(*_OF_MODEL, "kind")
        )
        used = {(account, model) for account, model, _ in self._totals if model}
        keys = {(*pair, EntryKind.SESSION_CHARGE.value) for pair in used}
        for account, model, kind in sorted(keys | {key for key in self._totals if key[2] in CHARGES}):
            total = self._totals.get((account, model, kind), Totals())
            charged.add_metric([account, model, kind], -total.amount_microcredits)
            if kind == EntryKind.SESSION_CHARGE:
                seconds.add_metric([account, model], total.billed_seconds)
        yield seconds
        yield charged

    def _refunds(self) -> Iterator[Metric]:
        refunded = CounterMetricFamily(
            "tidemill_refunded_microcredits", "Microcredits of charges that were given back.", labels=_OF_MODEL
        )
        seconds = CounterMetricFamily(
            "tidemill_session_refunded_seconds", "Charged seconds of sessions that were given back.", labels=_OF_MODEL
        )
        for account, model in sorted({(account, model) for account, model, _ in self._totals if model}):
            total = self._totals.get((account, model, EntryKind.REFUND.value), Totals())
            refunded.add_metric([account, model], total.amount_microcredits)
            seconds.add_metric([account, model], -total.billed_seconds)
        yield refunded
        yield seconds

    def _accounts(self) -> Iterator[Metric]:
        granted: defaultdict[str, int] = defaultdict(int)
        balance: defaultdict[str, int] = defaultdict(int)
        held: defaultdict[str, int] = defaultdict(int)
        for (account, _, kind), total in self._totals.items():
            granted[account] += total.amount_microcredits if kind == EntryKind.GRANT else 0
            balance[account] += total.amount_microcredits
            held[account] += total.hold_microcredits
        families = (
            (
                CounterMetricFamily(
                    "tidemill_granted_microcredits", "Microcredits that accounts were given.", labels=("account",)
                ),
                granted,
            ),
            (GaugeMetricFamily("tidemill_balance_microcredits", "What accounts have.", labels=("account",)), balance),
            (GaugeMetricFamily("tidemill_held_microcredits", "What of that is held.", labels=("account",)), held),
        )
        for family, amounts in families:
            for account, amount in sorted(amounts.items()):
                family.add_metric([account], amount)
            yield family


def _write_page(tx: Transaction) -> bytes:
    """A unit of work, so that a long page is written in a reader's thread."""
    return generate_latest(LedgerTotals(*read_totals(tx), count_unsealed(tx)))
