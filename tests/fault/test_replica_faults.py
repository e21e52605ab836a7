"""What becomes of a replica, its callers and its parent when one of them is killed or stopped."""

import asyncio
import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.integration.replica.replica_process import command, replica_process
from tests.integration.replica.served_engine import until
from tests.processes import children_of, command_of, is_alive, kill_if_alive
from tests.scale import bound
from tidemill_services.domain.errors import ReplicaLostError
from tidemill_services.engine_client import EngineRequest, EngineStream, Patience, ReplicaClient, ReplicaRejectedError

pytestmark = pytest.mark.fault

LONG = EngineRequest(prompt_tokens=[40, 41], max_tokens=1000)
ROOT = Path(__file__).parents[2]


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    """A Python process of ours."""
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, cwd=ROOT)


@pytest.mark.parametrize("kill", range(5))
async def test_a_replica_killed_in_mid_stream_is_told_of_at_once(kill: int) -> None:
    async with (
        replica_process(slots=16, tick_ms=50) as replica,
        replica.client() as client,
    ):  # 50 s, unless it is killed
        streams = [client.generate(LONG) for _ in range(16)]
        for stream in streams:
            await anext(stream)
        await asyncio.sleep(kill * 0.03)  # so that it dies at different points
        replica.process.kill()
        killed = time.monotonic()
        for stream in streams:
            # What came before is still read: the loss is raised after it.
            with pytest.raises(ReplicaLostError, match=replica.address):
                await rest_of(stream)
        assert time.monotonic() - killed < bound(2, busy=60)
        assert not client.status.connected
        with pytest.raises(ReplicaLostError):
            client.generate(LONG)


async def rest_of(stream: EngineStream) -> int:
    """Read to the end; the number of tokens."""
    return sum([output.num_tokens async for output in stream])


async def test_a_replica_that_stands_still_ends_its_streams_and_is_lost_after_the_patience_of_its_caller() -> None:
    async with replica_process(tick_ms=50) as replica, replica.client(Patience(silence=6.0)) as client:
        stream = client.generate(LONG)
        await anext(stream)
        replica.process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        with pytest.raises(ReplicaLostError, match="it shows no life"):
            await rest_of(stream)
        assert time.monotonic() - stopped > 2  # and not at once; what was read last may have been said a while before
        await until(lambda: not client.status.connected)
        assert "it said nothing for 6 s" in client.status.detail
        assert time.monotonic() - stopped > 3


async def test_a_replica_that_stood_still_frees_the_slots_of_what_was_given_up() -> None:
    async with replica_process(slots=4, tick_ms=50) as replica, replica.client(Patience(stale=3.0)) as client:
        given_up = [client.generate(LONG) for _ in range(4)]  # 50 s, unless they are aborted
        for stream in given_up:
            await anext(stream)
        replica.process.send_signal(signal.SIGSTOP)
        for stream in given_up:
            with pytest.raises(ReplicaLostError):
                await rest_of(stream)
        replica.process.send_signal(signal.SIGCONT)
        await until(lambda: client.status.takes_generations and not client.status.load.num_running)
        outputs = [output async for output in client.generate(EngineRequest([40], 5))]
        assert outputs[-1].num_completion_tokens == 5


async def test_a_replica_that_stood_still_for_a_moment_goes_on() -> None:
    async with replica_process(tick_ms=5) as replica, replica.client() as client:
        stream = client.generate(EngineRequest([40], 300))
        await anext(stream)
        replica.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.0)
        replica.process.send_signal(signal.SIGCONT)
        outputs = [output async for output in stream]
        assert outputs[-1].num_completion_tokens == 300


@pytest.mark.parametrize("seed", range(3))
async def test_hundreds_of_cancels_at_random_points_leave_nothing_behind(seed: int) -> None:
    chance = random.Random(seed)
    ways = collections.Counter[str]()

    async def one(client: ReplicaClient) -> None:
        stream = client.generate(EngineRequest([40 + chance.randrange(100)], chance.randrange(1, 200)))
        num_read = chance.randrange(0, 60)
        way = chance.choice(("read", "abort", "close", "cancel"))
        try:
            with contextlib.closing(stream):
                async with asyncio.timeout(num_read / 200 if way == "cancel" else None):
                    async for _ in stream:
                        num_read -= 1
                        if num_read < 0 and way == "abort":
                            stream.abort()
                        if num_read < 0 and way == "close":
                            break
        except ReplicaRejectedError:
            way = "rejected"
        except TimeoutError:
            pass
        ways[way] += 1

    async with replica_process(slots=32, tick_ms=1) as replica, replica.client() as client:
        for _ in range(4):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(40):
                    tasks.create_task(one(client))
        assert set(ways) == {"read", "abort", "close", "cancel", "rejected"}
        assert client.num_streams == 0
        await until(lambda: (client.status.load.num_running, client.status.load.num_waiting) == (0, 0))
        assert await rest_of(client.generate(EngineRequest([40], 5))) == 5


CALLER = textwrap.dedent("""
    import asyncio, sys
    from tidemill_services.engine_client import EngineRequest, ReplicaClient

    async def main():
        client = ReplicaClient(sys.argv[1], sys.argv[2])
        await client.open()
        streams = [client.generate(EngineRequest([40, 41], 1000)) for _ in range(5)]
        for stream in streams:
            await anext(stream)
        print("streaming", flush=True)
        while True:
            for stream in streams:
                await anext(stream)

    asyncio.run(main())
""")


async def test_the_sequences_of_a_killed_control_process_end() -> None:
    async with replica_process(tick_ms=50) as replica, replica.client() as staying:  # 50 s, unless they are aborted
        stream = staying.generate(LONG)
        caller = start("-c", CALLER, replica.address, replica.token)
        assert caller.stdout is not None
        try:
            assert await asyncio.to_thread(caller.stdout.readline) == b"streaming\n"
            while staying.status.load.num_running != 6:
                await anext(stream)
            caller.kill()
            killed = time.monotonic()
            while staying.status.load.num_running != 1:
                await anext(stream)
            assert time.monotonic() - killed < bound(1, busy=30)
        finally:
            caller.kill()
            caller.wait()
            caller.stdout.close()
        stream.close()


# A launcher that starts a replica and then only lives; `via` puts a shell between them, so that it is no direct parent.
LAUNCHER = textwrap.dedent("""
    import os, subprocess, sys, time
    reading, writing = os.pipe()
    os.write(writing, b"0" * 64)
    arguments = [*sys.argv[2:], "--token-fd", str(reading), "--parent-pid", str(os.getpid())]
    if sys.argv[1] == "via":
        arguments = ["sh", "-c", '"$@"; exit $?', "sh", *arguments]
    subprocess.Popen(arguments, pass_fds=[reading], stderr=subprocess.DEVNULL)
    time.sleep(600)
""")


@pytest.mark.parametrize(
    ("relation", "state"),
    # Not ("via", "stopped"): a stopped process runs no code, and the kernel tells direct children only.
    [("direct", "loading"), ("direct", "serving"), ("direct", "stopped"), ("via", "loading"), ("via", "serving")],
)
async def test_a_replica_never_outlives_its_launcher(relation: str, state: str) -> None:
    launcher = start("-c", LAUNCHER, relation, *command(tick_ms=50))
    assert launcher.stdout is not None
    replica_pid = 0
    try:
        assert b"address" in await asyncio.to_thread(launcher.stdout.readline)
        replica_pid = _replica_below(launcher.pid)
        assert replica_pid
        if state != "loading":
            await asyncio.sleep(1.0)
        if state == "stopped":
            os.kill(replica_pid, signal.SIGSTOP)
        launcher.kill()
        await asyncio.to_thread(launcher.wait)
        await until(lambda: not is_alive(replica_pid))
    finally:
        launcher.kill()
        launcher.wait()
        launcher.stdout.close()
        if replica_pid:
            kill_if_alive(replica_pid)


async def test_a_replica_whose_launcher_has_gone_already_does_not_start(tmp_path: Path) -> None:
    gone = start("-c", "")
    gone.communicate()
    token = tmp_path / "token"
    token.write_text("0" * 64)
    options = ["--token-file", str(token), "--parent-pid", str(gone.pid)]
    ended = await asyncio.to_thread(subprocess.run, command(options=options), capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert "The replica cannot start" in ended.stderr.decode()


def _replica_below(pid: int) -> int:
    """The process below `pid` that is a replica, directly or through a shell."""
    for child in children_of(pid):
        if command_of(child).split(b"\0")[1:3] == [b"-m", b"tidemill_serving"]:
            return child
        if below := _replica_below(child):
            return below
    return 0
