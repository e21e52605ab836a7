"""What the bench measures, as something that takes a load and gives a turn's figures."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.common.figures import Sample
from tests.bench.common.processes import PEERS_PYTHON, Child, child, children_of, cpu_of, environment
from tests.bench.platform.load import Load
from tests.server_process import ServerProcess, server_process
from tidemill import Client

_READY_SECONDS = 300.0
_STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine called directly."""

    process: Child

    def measure(self, load: Load) -> Sample:
        """One turn; `cpu engine` is in microseconds a token."""
        found = self.process.ask(**load.as_json())
        return {**found, "cpu engine": 1e6 * found["cpu"] / found["tokens"]}


@contextmanager
def engine(package: Path, *, device: str, tick_ms: int = 0) -> Iterator[Engine]:
    """The engine in a process of its own, its model loaded."""
    arguments = ("--package", str(package), "--device", device, "--tick-ms", str(tick_ms))
    with child("tests.bench.platform.engine_process", *arguments) as process:
        yield Engine(process)


@dataclass(frozen=True, slots=True)
class Platform:
    """A client, a control plane and a replica, each a process."""

    client: Child
    server: ServerProcess
    replica_pids: list[int] = field(default_factory=list)

    def measure(self, load: Load) -> Sample:
        """One turn; the processor time of each process is in microseconds a token and a call."""
        spent: dict[str, float] = {}
        pids = {"control": [self.server.process.pid], "replica": self.replica_pids}
        with cpu_of(spent, **pids):
            found = self.client.ask(**load.as_json())
        spent["client"] = found["cpu"]
        return {**found, **_shared_out(spent, found)}


def _shared_out(spent: dict[str, float], found: Sample) -> Sample:
    """Processor time by token and by generation, and as a share of the machine while the turn ran."""
    machine = found["seconds"] * len(os.sched_getaffinity(0))
    shares = {f"share {name}": seconds / machine for name, seconds in spent.items()}
    calls = {f"call {name}": 1e6 * seconds / found["generations"] for name, seconds in spent.items()}
    return {f"cpu {name}": 1e6 * seconds / found["tokens"] for name, seconds in spent.items()} | calls | shares


@contextmanager
def platform(package: Path, *, device: str, tick_ms: int = 0, kinds: tuple[str, ...]) -> Iterator[list[Platform]]:
    """One running platform whose model is awake, with a client of each kind."""
    with ExitStack() as parts:
        folder = parts.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-"))
        arguments = ("--models", str(package), "--replica-device", device, "--replica-fake-tick-ms", str(tick_ms))
        server = parts.enter_context(server_process(Path(folder), *arguments, TIDEMILL_LOG_LEVEL="warning"))
        with Client(server.api_key, target=server.grpc, model=package.name) as client:
            client.start_session()
            client.wait_until_model_running(timeout=_READY_SECONDS)
        replicas = children_of(server.process.pid)
        os.environ["TIDEMILL_BENCH_KEY"] = server.api_key
        target = ("--target", server.grpc, "--model", package.name)
        clients = [
            parts.enter_context(child("tests.bench.platform.client_process", *target, "--kind", kind)) for kind in kinds
        ]
        yield [Platform(client, server, replicas) for client in clients]


@dataclass(frozen=True, slots=True)
class Floor:
    """A bare gRPC server with a client of the contract's stubs."""

    client: Child
    server: Child

    def measure(self, load: Load) -> Sample:
        """One turn."""
        spent: dict[str, float] = {}
        with cpu_of(spent, server=[self.server.pid]):
            found = self.client.ask(**load.as_json())
        spent["client"] = found["cpu"]
        return {**found, **_shared_out(spent, found)}


@contextmanager
def bare_grpc(*, tick_ms: int = 0) -> Iterator[Floor]:
    """The same messages as the platform's, and nothing behind them."""
    with child("tests.bench.platform.floor_process", "--tick-ms", str(tick_ms)) as server:
        os.environ.setdefault("TIDEMILL_BENCH_KEY", "")  # it asks for none
        arguments = ("--target", server.said["target"], "--model", "none", "--kind", "stubs")
        with child("tests.bench.platform.client_process", *arguments) as client:
            yield Floor(client, server)


@dataclass(frozen=True, slots=True)
class LitServe:
    """LitServe with its own client."""

    client: Child
    pids: list[int]

    def measure(self, load: Load) -> Sample:
        """One turn."""
        spent: dict[str, float] = {}
        with cpu_of(spent, litserve=self.pids):
            found = self.client.ask(**load.as_json())
        spent["client"] = found["cpu"]
        return {**found, **_shared_out(spent, found)}


def has_litserve() -> bool:
    """Whether `make bench-setup` was run."""
    return PEERS_PYTHON.exists()


@contextmanager
def litserve(package: Path, mode: str) -> Iterator[LitServe]:
    """LitServe before the same fake device, as fast as it can; the modes are its process's."""
    port = _free_port()
    command = [str(PEERS_PYTHON), "-m", "tests.bench.platform.litserve_process"]
    command += ["--package", str(package), "--port", str(port), "--mode", mode]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
        try:
            url = f"http://127.0.0.1:{port}"
            with child(
                "tests.bench.platform.litserve_client", "--url", url, "--mode", mode, python=PEERS_PYTHON
            ) as client:
                pids = [process.pid, *children_of(process.pid)]
                yield LitServe(client, pids)
        except AssertionError as error:
            log.seek(0)
            raise AssertionError(f"{error}; LitServe said:\n{log.read()[-2000:]}") from error
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """LitServe with its workers; SIGTERM reaches its parent only."""
    pids = [*children_of(process.pid), process.pid]
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in pids:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, 9)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def peer_versions() -> dict[str, str]:
    """The versions of the peers that run here; empty without them."""
    if not has_litserve():
        return {}
    script = "import importlib.metadata as m; print(*(m.version(name) for name in ('litserve', 'aiohttp')))"
    command = [str(PEERS_PYTHON), "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(("litserve", "aiohttp"), found, strict=True))
