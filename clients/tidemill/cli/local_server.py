"""A server of our own for a while: a child process that ends with us."""

import ctypes
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tidemill.errors import TidemillError

DEFAULT_PORTS = (7400, 7480, 7490)
"""gRPC, HTTP, admin."""
_TAIL_LINES = 20
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class ServerDiedError(TidemillError):
    """The server ended by itself; the message holds the last lines that it wrote."""

    reason = "SERVER_DIED"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens, and where its key and the certificate to trust lie."""

    grpc: str
    http: str
    admin: str
    api_key_file: Path
    ca_file: Path | None
    """None: it speaks plaintext."""

    @property
    def target(self) -> str:
        """For a client."""
        return f"http://{self.grpc}" if self.ca_file is None else f"https://{self.grpc}"

    def read_key(self) -> str:
        """The key of the server's own user."""
        return self.api_key_file.read_text("ascii").strip()


class LocalServer:
    """`python -m tidemill_services serve` in a `with` block.

    Its log is kept and shown only when it dies. The end of the block drains and stops it.
    """

    def __init__(
        self, data_dir: Path, ports: Sequence[int], *, config_path: Path | None, arguments: Sequence[str]
    ) -> None:
        """Ports are gRPC, HTTP, admin; 0 takes a free one. `config_path` is where it writes what the CLI reads next."""
        grpc, http, admin = (str(port) for port in ports)
        self._command = [sys.executable, "-m", "tidemill_services", "serve", "--host", "127.0.0.1"]
        self._command += ["--port", grpc, "--http-port", http, "--admin-port", admin]
        self._command += ["--data-dir", str(data_dir), "--json", *arguments]
        self._environ = dict(os.environ)
        if config_path is not None:
            self._environ["TIDEMILL_CONFIG"] = str(config_path)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def __enter__(self) -> Self:
        # A group of its own, so that Ctrl-C reaches us alone and we decide when it drains.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environ,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 -- no thread of ours runs yet
        )
        self._reader = threading.Thread(target=self._keep_tail, name="server-log", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_ready(self) -> Addresses:
        """Wait for its line with the addresses. Raises ServerDiedError."""
        assert self._process.stdout is not None  # noqa: S101 -- it is a pipe by construction
        line = self._process.stdout.readline()
        if not line:
            self.raise_dead()
        found = json.loads(line)
        ca_file = Path(found["ca_file"]) if found["ca_file"] else None
        return Addresses(found["grpc"], found["http"], found["admin"], Path(found["api_key_file"]), ca_file)

    def wait(self) -> None:
        """Wait until it ends, which it should not by itself. Raises ServerDiedError."""
        self._process.wait()
        self.raise_dead()

    @property
    def is_running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def raise_dead(self) -> None:
        """Raise ServerDiedError with the last lines that it wrote."""
        status = self._process.wait()
        self._reader.join(timeout=5)
        raise ServerDiedError("\n".join([f"The server ended with status {status}. Its last lines:", *self._tail]))

    def stop(self) -> None:
        """Drain and stop it; a second Ctrl-C meanwhile stops it at once."""
        try:
            if self.is_running:
                self._process.send_signal(signal.SIGTERM)
            self._process.wait()
        except KeyboardInterrupt:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=5)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _keep_tail(self) -> None:
        if self._process.stderr is not None:
            self._tail.extend(line.rstrip() for line in self._process.stderr)


def _end_with_parent() -> None:
    """Have the kernel end this new process in order when its parent is gone, kill -9 included."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def program() -> str:
    """What to type in another terminal to run this same CLI."""
    script = Path(sys.executable).with_name("tidemill")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m tidemill"
    found = shutil.which("tidemill")
    return "tidemill" if found is not None and script.samefile(found) else shlex.quote(str(script))


def free_or_any(ports: Sequence[int]) -> tuple[int, ...]:
    """These ports where they are free; 0, for any, where not."""
    return tuple(port if _is_free(port) else 0 for port in ports)


def started(
    stack: ExitStack, data_dir: Path, ports: Sequence[int], *, config_path: Path | None, arguments: Sequence[str]
) -> tuple[LocalServer, Addresses]:
    """A server that is ready, in `stack`. Raises ServerDiedError.

    It is on these ports, or, where somebody took one after we looked, on any.
    """
    server = stack.enter_context(LocalServer(data_dir, ports, config_path=config_path, arguments=arguments))
    try:
        return server, server.wait_until_ready()
    except ServerDiedError:
        if free_or_any(ports) == tuple(ports):
            raise
    return started(stack, data_dir, (0, 0, 0), config_path=config_path, arguments=arguments)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def scratch_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for a server that leaves nothing behind."""
    return tempfile.TemporaryDirectory(prefix="tidemill-demo-")
