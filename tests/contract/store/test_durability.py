"""What was acknowledged is there, however the process ended."""

import asyncio
import sys
from asyncio.subprocess import PIPE

import pytest
from sqlalchemy import select

from tidemill_services.store.opening import open_database
from tidemill_services.store.tables import accounts

NUM_KILLS = 2
NUM_ACKNOWLEDGED = 100
WRITER = """
import asyncio, sys
from tidemill_services.store import accounts
from tidemill_services.store.opening import open_database

async def write(database, prefix, writer):
    number = 0
    while True:
        account_id = f"{prefix}-{writer}-{number}"
        await database.write(accounts.create_account, account_id, "")
        print(account_id, flush=True)
        number += 1

async def main(url, prefix):
    database = open_database(url)
    await database.open()
    await asyncio.gather(*(write(database, prefix, writer) for writer in range(16)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.fault
async def test_a_process_killed_in_the_middle_of_its_writes_loses_nothing_acknowledged(database_url: str):
    acknowledged: set[str] = set()
    for kill in range(NUM_KILLS):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, database_url, str(kill), stdout=PIPE)
        for _ in range(NUM_ACKNOWLEDGED + 37 * kill):
            acknowledged.add((await child.stdout.readline()).decode().strip())
        child.kill()
        rest = (await child.communicate())[0].decode().splitlines(keepends=True)
        acknowledged |= {line.strip() for line in rest if line.endswith("\n")}
    database = open_database(database_url)
    await database.open()
    stored = set(await database.read(lambda tx: tx.connection.execute(select(accounts.c.account_id)).scalars().all()))
    await database.close()
    assert "" not in acknowledged
    assert len(acknowledged) >= NUM_ACKNOWLEDGED * NUM_KILLS
    assert acknowledged <= stored
