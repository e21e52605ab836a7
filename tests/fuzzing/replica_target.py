"""A replica under fuzz: what is sent to it, and whether it took harm."""

import asyncio
from contextlib import AsyncExitStack

import grpc
import grpc.aio

from tests.fuzzing.calls import Metadata, call_with
from tests.fuzzing.methods import Method
from tests.integration.api.conftest import wait_until
from tests.integration.replica.replica_process import ReplicaProcess, read_all, replica_process
from tidemill_services.engine_client import EngineFinish, EngineRequest, ReplicaClient


class ReplicaTarget:
    """The process, its client, and a loop to speak to both."""

    def __init__(self, device: str = "cpu", tick_ms: int = 5) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._num_read = 0  # bytes of its stderr
        self._runner.run(self._open(device, tick_ms))

    async def _open(self, device: str, tick_ms: int) -> None:
        served = replica_process(device=device, tick_ms=tick_ms, options=("--threads", "1"))
        self.process: ReplicaProcess = await self._stack.enter_async_context(served)
        self.client: ReplicaClient = await self._stack.enter_async_context(self.process.client())
        self._channel = await self._stack.enter_async_context(grpc.aio.insecure_channel(self.process.address))

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    @property
    def token(self) -> Metadata:
        return (("authorization", f"Bearer {self.process.token}"),)

    def send(
        self,
        method: Method,
        contents: list[bytes],
        patience: float,
        *,
        metadata: Metadata | None = None,
        stays: bool = False,
    ) -> grpc.StatusCode:
        given = self.token if metadata is None else metadata
        return self._runner.run(call_with(self._channel, method, contents, given, patience, stays=stays))

    def send_each(self, method: Method, contents: list[bytes], patience: float) -> list[grpc.StatusCode]:
        """Call a method once for each of `contents`, all at once."""

        async def all_at_once() -> list[grpc.StatusCode]:
            calls = [call_with(self._channel, method, [content], self.token, patience) for content in contents]
            return await asyncio.gather(*calls)

        return self._runner.run(all_at_once())

    def stay_busy(self) -> None:
        """Begin a generation that nobody waits for."""

        async def begin() -> None:
            await anext(self.client.generate(EngineRequest(prompt_tokens=[5, 6], max_tokens=1_000)))

        self._runner.run(asyncio.wait_for(begin(), 60))

    def num_decode_tokens(self) -> int:
        """How many tokens it has generated, as it tells every second or so."""
        before = self.client.stats

        def told_again() -> bool:
            self._runner.run(asyncio.sleep(0.05))
            return self.client.stats is not before

        wait_until(told_again, "that the replica tells how it is", 60)
        return self.client.stats.num_decode_tokens

    def wait(self) -> int:
        """The exit code of a process that ends."""
        return self._runner.run(self.process.exit_code(60))

    def check_log(self) -> None:
        """It lives, and saw no fault."""
        assert self.process.process.poll() is None, "the replica ended"
        self.check_no_fault()

    def check_no_fault(self) -> None:
        """It told of no fault since the last time."""
        said = self.process.stderr_bytes(self._num_read)
        self._num_read += len(said)
        lines = said.decode(errors="replace").splitlines()
        assert [line for line in lines if "Traceback" in line or "ERROR" in line] == [], "\n".join(lines[-100:])

    def check(self) -> None:
        """It lives, it saw no fault, and another caller's generations work."""
        request = EngineRequest(prompt_tokens=[5, 6], max_tokens=3)
        _, _, end = self._runner.run(asyncio.wait_for(read_all(self.client.generate(request)), 60))
        assert end.finish_reason in (EngineFinish.STOP, EngineFinish.LENGTH)
        self.check_log()
