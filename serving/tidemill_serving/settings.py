"""What a replica is told at its start. Frozen, checked once, passed in."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from tidemill_serving.launcher_token import TokenInvalidError, token_from_fd, token_from_file
from tidemill_serving.native import KernelsChoice
from tidemill_serving.start_cache.settings import StartCacheSettings
from tidemill_serving.tls import TlsFiles, TlsInvalidError, check_files

DeviceName = Literal["cpu", "cuda", "fake"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_MAX_SLOTS = 1024
_MAX_THREADS = 256
_MAX_GRACE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Times and sizes of the asyncio side of a replica."""

    drain_grace_seconds: float = 30.0  # what still runs is cut after it
    heartbeat_seconds: float = 0.25  # how often the engine is asked whether it lives
    status_seconds: float = 1.0  # callers hear a Status so often; 5 s of silence mean that this process stands still
    failed_linger_seconds: float = 1.0  # after a failure, so that callers hear of it
    cut_seconds: float = 2.0  # for the last messages of what was cut, and for closing streams
    max_pending_size: int = 4 << 20  # characters and token ids that wait for one caller


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """The command line of a replica, checked."""

    package: Path
    token: str = field(repr=False)
    listen: str = "127.0.0.1:0"
    tls: TlsFiles | None = None  # None: plaintext
    slots: int | None = None  # None: as the package says
    threads: int | None = None  # None: as many as this process has cores
    parent_pid: int | None = None
    device: DeviceName = "cpu"
    kernels: KernelsChoice = "auto"  # whose products and attention compute
    fake_tick_ms: int = 5  # how long a run of the fake device takes
    start_cache: StartCacheSettings | None = None  # None: nothing is kept for the next start
    replica_id: str = ""  # its name in the log and in traces
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    server: ServerSettings = ServerSettings()


def read_settings(arguments: Sequence[str]) -> ReplicaSettings:
    """Read and check a command line; a wrong one ends the program with code 2 and the option's name."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        token = token_from_fd(given.token_fd) if given.token_fd is not None else token_from_file(given.token_file)
    except (OSError, TokenInvalidError) as error:
        option = "--token-fd" if given.token_fd is not None else "--token-file"
        parser.error(f"argument {option}: {error}")
    try:
        tls = check_files(given.tls_certificate, given.tls_key, given.tls_client_ca)
    except TlsInvalidError as error:
        parser.error(f"argument {error}")
    return ReplicaSettings(
        package=given.package,
        token=token,
        listen=given.listen,
        tls=tls,
        slots=given.slots,
        threads=given.threads,
        parent_pid=given.parent_pid,
        device=given.device,
        kernels=given.kernels,
        fake_tick_ms=given.fake_tick_ms,
        start_cache=_start_cache(given.start_cache, given.start_cache_mib),
        replica_id=given.replica_id,
        log_level=given.log_level,
        log_format=given.log_format,
        server=ServerSettings(drain_grace_seconds=given.drain_grace_seconds),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tidemill_serving",
        description="One replica: serves one model package to the control processes that know its token.",
    )
    parser.add_argument("--package", type=Path, required=True, help="the model package's folder")
    parser.add_argument("--listen", type=_address, default="127.0.0.1:0", help="HOST:PORT; port 0 picks a free one")
    token = parser.add_mutually_exclusive_group(required=True)
    token.add_argument("--token-fd", type=_number(0, 1 << 20), help="file descriptor that holds the token")
    token.add_argument("--token-file", type=Path, help="file that holds the token: 64 hexadecimal digits")
    parser.add_argument("--tls-certificate", type=Path, help="PEM certificate of this replica; it then speaks TLS only")
    parser.add_argument("--tls-key", type=Path, help="PEM key of the certificate")
    parser.add_argument("--tls-client-ca", type=Path, help="PEM certificate of the CA that callers must show one of")
    parser.add_argument("--slots", type=_number(1, _MAX_SLOTS), help="generations that run at once")
    parser.add_argument("--threads", type=_number(1, _MAX_THREADS), help="threads that compute")
    parser.add_argument("--parent-pid", type=_number(1, 1 << 22), help="end when this process ends")
    parser.add_argument("--device", choices=get_args(DeviceName), default="cpu", help="what runs the tensors")
    parser.add_argument("--kernels", choices=get_args(KernelsChoice), default="auto", help="whose kernels compute")
    parser.add_argument("--fake-tick-ms", type=_number(0, 60_000), default=5, help="how long the fake device runs")
    parser.add_argument("--start-cache", type=Path, help="folder for what makes the next start faster; none: nothing")
    parser.add_argument("--start-cache-mib", type=_number(0, 1 << 24), default=8192, help="how large it may become")
    parser.add_argument("--drain-grace-seconds", type=_seconds, default=30.0, help="on SIGTERM, before running ends")
    parser.add_argument("--replica-id", type=_name, default="", help="its name in the log and in traces")
    parser.add_argument("--log-level", choices=get_args(LogLevel), default="info")
    parser.add_argument("--log-format", choices=get_args(LogFormat), default="text", help="json: one object a line")
    return parser


def _start_cache(folder: Path | None, mebibytes: int) -> StartCacheSettings | None:
    return StartCacheSettings(folder, mebibytes << 20) if folder is not None and mebibytes else None


def _address(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):\d{1,5}", text) or int(text.rpartition(":")[2]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT with a port from 0 to 65535")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,128}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits, dots, dashes and underscores")
    return text


def _number(least: int, most: int) -> Callable[[str], int]:
    def checked(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return checked


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MAX_GRACE_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {_MAX_GRACE_SECONDS:.0f}")
    return seconds
