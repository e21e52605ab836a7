"""Starts the real server as a user would: `python -m tidemill_services serve`, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.books import assert_books_fit

ROOT = Path(__file__).parents[1]
MODELS = Path(__file__).parent / "models"
START_SECONDS = 60.0
STOP_SECONDS = 60.0


@dataclass
class ServerProcess:
    """A server that answers."""

    process: subprocess.Popen[str]
    grpc: str
    http: str
    admin: str
    api_key: str
    data_dir: Path
    log: Path

    def terminate(self) -> int:
        """Stop it in order; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)


@contextmanager
def server_process(
    data_dir: Path, *arguments: str, program: str = "tidemill_services", **environment: str
) -> Iterator[ServerProcess]:
    """A server on free ports with its data in `data_dir`, the test models registered; stopped at the end.

    Whatever was done to it, its books must fit then.
    """
    command = [sys.executable, "-m", program, "serve", "--json", "--data-dir", str(data_dir)]
    command += ["--port", "0", "--http-port", "0", "--admin-port", "0", "--models", str(MODELS), *arguments]
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "server.log"
    # A spare costs each server of the tests half a second of processor time; those who want one say so.
    usual = {"TIDEMILL_CONFIG": str(data_dir / "config.toml"), "TIDEMILL_REPLICA_SPARES": "0"}
    environ = {**os.environ, **usual, **environment}
    with log.open("a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environ, cwd=ROOT)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the server did not start (exit {process.wait(STOP_SECONDS)}):\n{log.read_text()}")
        said = json.loads(line)
        yield ServerProcess(
            process=process,
            grpc=said["grpc"],
            http=said["http"],
            admin=said["admin"],
            api_key=Path(said["api_key_file"]).read_text().strip(),
            data_dir=data_dir,
            log=log,
        )
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert_books_fit(data_dir, _database_of(arguments))


def _database_of(arguments: Sequence[str]) -> str | None:
    return arguments[arguments.index("--database") + 1] if "--database" in arguments else None
