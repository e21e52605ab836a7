"""How fast the ledger settles, with 64 callers at once: `python -m tests.bench.ledger [--json FILE] [--quick]`.

A *settle* is one charge that is posted: a row of the ledger and its account's balance, durable before its caller hears
of it.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.store import NUM_CALLERS, measure, opened, urls
from tidemill_services.domain.ledger import Contra, EntryKind, Posting, Used
from tidemill_services.ledger_sealer import LedgerSealer
from tidemill_services.store import accounts, leader, ledger
from tidemill_services.store.database import Database, Transaction

PLENTY = 10**15  # microcredits
PRICE = 1_250
CHARGES_OF_A_UNIT = 16
SECONDS, QUICK_SECONDS = 5.0, 1.0
PROCESS_ID = "bench.1"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement. Latencies are what a caller waits."""

    database: str
    work: str
    settles_per_second: float
    p50_ms: float
    p99_ms: float
    processor_us: float  # of this process, a settle: what does not grow with the load of the machine


async def measured(
    name: str, work: str, call: Callable[[int, int], Awaitable[None]], seconds: float, rows: int
) -> Figure:
    """Let all callers repeat a unit of so many rows."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    _, rate, p50_ms, p99_ms = await measure(call, seconds=seconds, units=1, rows=rows)
    num_settles = rate * (time.perf_counter() - begin)
    return Figure(name, work, rate, p50_ms, p99_ms, (time.process_time() - begin_cpu) / num_settles * 1e6)


def fund(tx: Transaction, account_id: str) -> None:
    """Make an account with credits, most of them held."""
    accounts.create_account(tx, account_id, "")
    grant = Posting(EntryKind.GRANT, Contra.GRANTS, PLENTY, reason="a bench")
    ledger.post(tx, account_id, [grant, Posting(EntryKind.HOLD, Contra.HOLDS, hold_microcredits=PLENTY // 2)])


def settle(tx: Transaction, account_id: str, num_charges: int = 1) -> None:
    """Charge a minute of a session, so many times."""
    used = Used("m", tx.now_ms - 60_000, tx.now_ms, billed_seconds=60, price_microcredits_per_second=PRICE)
    cost = used.billed_seconds * PRICE
    charge = Posting(EntryKind.SESSION_CHARGE, Contra.SESSIONS, -cost, -cost, subject="sessions/bench", used=used)
    ledger.post(tx, account_id, [charge] * num_charges)


async def figures(name: str, database: Database, seconds: float) -> AsyncIterator[Figure]:
    """Measure one database: each caller with an account of its own, all with one, and while rows are sealed."""
    for caller in range(NUM_CALLERS):
        await database.write(fund, f"a{caller}")

    async def own_account(caller: int, _number: int) -> None:
        await database.write(settle, f"a{caller}")

    async def one_account(_caller: int, _number: int) -> None:
        await database.write(settle, "a0")

    async def many(caller: int, _number: int) -> None:
        await database.write(settle, f"a{caller}", CHARGES_OF_A_UNIT)

    for work, call, rows in (
        ("64 accounts", own_account, 1),
        ("one account", one_account, 1),
        (f"{CHARGES_OF_A_UNIT} charges a unit", many, CHARGES_OF_A_UNIT),
    ):
        yield await measured(name, work, call, seconds, rows)
    await database.write(leader.renew_leadership, PROCESS_ID)
    leading = asyncio.create_task(_lead(database), name="leader")
    sealer = LedgerSealer(database, PROCESS_ID)
    await sealer.seal_all()  # what the measurements before have left
    sealing = asyncio.create_task(sealer.run(), name="sealer")
    yield await measured(name, "64 accounts, sealing", own_account, seconds, 1)
    for task in (sealing, leading):
        task.cancel()
    await asyncio.wait([sealing, leading])


async def _lead(database: Database) -> None:
    while True:
        await database.write(leader.renew_leadership, PROCESS_ID)
        await asyncio.sleep(1)


async def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a second of each, in place of five")
    parser.add_argument("--json", type=argparse.FileType("w"), help="file for the figures")
    options = parser.parse_args()
    found: list[Figure] = []
    print(f"{NUM_CALLERS} callers", "settles with".ljust(25), "settles/s", "  p50 ms", "  p99 ms", "CPU µs")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder, urls(Path(folder)) as databases:
        for name, url in databases.items():
            async with opened(url) as database:
                async for figure in figures(name, database, QUICK_SECONDS if options.quick else SECONDS):
                    found.append(figure)
                    print(
                        f"{figure.database:10} {figure.work:25} {figure.settles_per_second:9,.0f} "
                        f"{figure.p50_ms:8.1f} {figure.p99_ms:8.1f} {figure.processor_us:6.0f}",
                        flush=True,
                    )
    if options.json:
        json.dump([asdict(figure) for figure in found], options.json, indent=2)


if __name__ == "__main__":
    asyncio.run(main())
