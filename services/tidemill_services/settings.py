"""Everything that can be set, with its unit and its reason. Read once at start, checked, and passed in."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, get_args

from platformdirs import user_data_path

DeviceName = Literal["cpu", "cuda", "fake"]
KernelsChoice = Literal["auto", "own", "stock"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
_ORIGIN = re.compile(r"\*|https?://[^\s/,*]+")  # a scheme, a host and perhaps a port, as browsers send it
MAX_STOP_GRACE_SECONDS = 3_600
MAX_READER_PATIENCE_SECONDS = 3_600
MAX_CONNECTION_AGE_SECONDS = 30 * 24 * 3_600


class SettingsError(Exception):
    """A setting has a value that it may not have; the sentence names it and says what it may be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one control process. Each is also the environment variable `TIDEMILL_<NAME>`."""

    host: str = "127.0.0.1"  # where gRPC and HTTP listen
    port: int = 7400  # gRPC; 0 takes a free one
    http_port: int = 7480  # 0 takes a free one
    http_origins: tuple[str, ...] = ()  # pages in a browser that may use the OpenAI door, as http://host:port; *: all
    admin_host: str = "127.0.0.1"  # where the admin port listens, which asks for no key
    admin_port: int = 7490  # metrics and readiness; 0 takes a free one
    data_dir: Path = field(default_factory=lambda: user_data_path("tidemill"))
    database: str = ""  # URL of a Postgres database; empty: a SQLite file in data_dir
    models: tuple[Path, ...] = ()  # folders of model packages, besides data_dir/models and the bundled ones
    replica_capacity: int = 4  # replicas that this host runs at once
    replica_device: DeviceName = "cpu"  # fake: answers without a model, to test and measure what surrounds it
    replica_fake_tick_ms: int = 5  # how long each step of the fake device takes
    replica_kernels: KernelsChoice = "auto"  # own: Tidemill's or nothing; stock: ONNX Runtime's
    replica_threads: int = 0  # threads of one replica's engine; 0: as many as there are cores
    replica_spares: int = 1  # processes that have done a replica's imports, and wait to be one; 75 MiB each
    start_cache_mib: int = 8_192  # of data_dir/start-cache, from which replicas start faster; 0: none is kept
    auto_session: bool = False  # the OpenAI door opens sessions of the local user's key by itself
    stop_grace: timedelta = timedelta(seconds=30)  # for streams that run when the server or their session stops
    reader_patience: timedelta = timedelta(seconds=60)  # for a caller that takes nothing of its stream
    allow_plaintext: bool = False  # plaintext on an address that is not loopback
    tls_certificate: Path | None = None  # PEM, with what leads to its CA; all three ports then speak TLS
    tls_key: Path | None = None  # PEM, of the certificate
    tls_self_signed: bool = False  # TLS with a pair that we make, in data_dir/tls
    replica_tls_ca: Path | None = None  # PEM; what signs the certificates of replicas and of who calls them
    replica_tls_certificate: Path | None = None  # PEM; this process shows it to replicas, and its own replicas to it
    replica_tls_key: Path | None = None  # PEM, of that certificate
    max_streams_per_connection: int = 1_000  # calls that one gRPC connection runs at once
    max_connection_age: timedelta = timedelta(hours=1)  # then a client connects anew; what runs goes on
    max_http_connections: int = 1_000  # at once, to each of the two HTTP ports
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    access_log: bool = True  # one line for each call; some 50 µs of a core

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> "Settings":
        """Take what was given, else the environment, else the default; refuse what may not be."""
        values = {name: value for name, value in given.items() if value is not None}
        for setting in fields(cls):
            text = environ.get(f"TIDEMILL_{setting.name.upper()}", "")
            if setting.name not in values and text:
                values[setting.name] = _parse(setting.name, text)
        settings = cls(**values)
        settings._check()
        return settings

    @property
    def database_url(self) -> str:
        """The database to open."""
        return self.database or f"sqlite:///{self.data_dir / 'tidemill.db'}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach gRPC and HTTP."""
        return _is_loopback("host", self.host)

    @property
    def is_tls(self) -> bool:
        """Whether all ports speak TLS."""
        return self.tls_self_signed or self.tls_certificate is not None

    def _check(self) -> None:
        self._check_tls()
        for name, host in (("host", self.host), ("admin_host", self.admin_host)):
            if not _is_loopback(name, host) and not self.allow_plaintext and not self.is_tls:
                raise SettingsError(
                    f"{name} is {host}, which others can reach, and the ports are not encrypted: give a certificate "
                    "(--tls-certificate and --tls-key, or --tls-self-signed), listen on 127.0.0.1, or say "
                    "--allow-plaintext (TIDEMILL_ALLOW_PLAINTEXT=true)"
                )
        for name in ("port", "http_port", "admin_port"):
            _check_range(name, getattr(self, name), 0, 65_535)
        _check_range("replica_capacity", self.replica_capacity, 1, 1_024)
        _check_range("replica_fake_tick_ms", self.replica_fake_tick_ms, 0, 60_000)
        _check_range("replica_threads", self.replica_threads, 0, 1_024)
        _check_range("replica_spares", self.replica_spares, 0, 64)
        _check_range("start_cache_mib", self.start_cache_mib, 0, 1 << 24)
        _check_range("stop_grace", self.stop_grace.total_seconds(), 0, MAX_STOP_GRACE_SECONDS)
        _check_range("reader_patience", self.reader_patience.total_seconds(), 1, MAX_READER_PATIENCE_SECONDS)
        for origin in self.http_origins:
            if not _ORIGIN.fullmatch(origin):
                raise SettingsError(f"http_origins is {origin!r}; it may be * or such as https://chat.example.org")
        for folder in self.models:
            if not folder.is_dir():
                raise SettingsError(f"models is {folder}; it may be folders, and this is none")
        _check_choice("log_level", self.log_level, get_args(LogLevel))
        _check_choice("log_format", self.log_format, get_args(LogFormat))
        _check_choice("replica_device", self.replica_device, get_args(DeviceName))
        _check_choice("replica_kernels", self.replica_kernels, get_args(KernelsChoice))
        _check_range("max_streams_per_connection", self.max_streams_per_connection, 1, 1_000_000)
        _check_range("max_connection_age", self.max_connection_age.total_seconds(), 1, MAX_CONNECTION_AGE_SECONDS)
        _check_range("max_http_connections", self.max_http_connections, 1, 1_000_000)

    def _check_tls(self) -> None:
        _check_files_together(self, "tls_certificate", "tls_key")
        _check_files_together(self, "replica_tls_ca", "replica_tls_certificate", "replica_tls_key")
        if self.tls_self_signed and self.tls_certificate is not None:
            raise SettingsError(
                "TIDEMILL_TLS_SELF_SIGNED and TIDEMILL_TLS_CERTIFICATE are both given: the ports have one certificate"
            )


def seconds(name: str, number: float, highest: int) -> timedelta:
    """A setting's duration from its number. Raises SettingsError for what is no number of seconds."""
    try:
        return timedelta(seconds=number)
    except (ValueError, OverflowError):  # not a number, or beyond all times
        raise SettingsError(f"{name} is {number}; it may be 0 to {highest:,} seconds") from None


def _is_loopback(name: str, host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        raise SettingsError(f"{name} is {host!r}; it may be an IP address or localhost") from None


def _check_range(name: str, value: float, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise SettingsError(f"{name} is {value}; it may be {lowest} to {highest}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}; it may be {', '.join(choices)}")


def _check_files_together(settings: Settings, *names: str) -> None:
    """All of these files are given, and are files, or none is."""
    given = {name: path for name in names if (path := getattr(settings, name)) is not None}
    missing = [name for name in names if name not in given]
    if given and missing:
        raise SettingsError(
            f"TIDEMILL_{missing[0].upper()} is missing: it goes together with TIDEMILL_{next(iter(given)).upper()}"
        )
    for name, path in given.items():
        if not path.is_file():
            raise SettingsError(f"TIDEMILL_{name.upper()} is {path}; it may be a file, and this is none")


def _boolean(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "port": (int, "a number"),
    "http_port": (int, "a number"),
    "http_origins": (lambda text: tuple(part.strip() for part in text.split(",") if part.strip()), "origins"),
    "admin_port": (int, "a number"),
    "replica_capacity": (int, "a number"),
    "replica_fake_tick_ms": (int, "a number"),
    "replica_threads": (int, "a number"),
    "replica_spares": (int, "a number"),
    "start_cache_mib": (int, "a number"),
    "data_dir": (Path, "a folder"),
    "models": (lambda text: tuple(Path(part) for part in text.split(os.pathsep) if part), "folders"),
    "stop_grace": (
        lambda text: seconds("TIDEMILL_STOP_GRACE", float(text), MAX_STOP_GRACE_SECONDS),
        "a number of seconds",
    ),
    "reader_patience": (
        lambda text: seconds("TIDEMILL_READER_PATIENCE", float(text), MAX_READER_PATIENCE_SECONDS),
        "a number of seconds",
    ),
    "auto_session": (_boolean, "true or false"),
    "allow_plaintext": (_boolean, "true or false"),
    "access_log": (_boolean, "true or false"),
    "tls_certificate": (Path, "a file"),
    "tls_key": (Path, "a file"),
    "tls_self_signed": (_boolean, "true or false"),
    "replica_tls_ca": (Path, "a file"),
    "replica_tls_certificate": (Path, "a file"),
    "replica_tls_key": (Path, "a file"),
    "max_streams_per_connection": (int, "a number"),
    "max_connection_age": (
        lambda text: seconds("TIDEMILL_MAX_CONNECTION_AGE", float(text), MAX_CONNECTION_AGE_SECONDS),
        "a number of seconds",
    ),
    "max_http_connections": (int, "a number"),
}


def _parse(name: str, text: str) -> Any:
    parse, expected = _PARSERS.get(name, (str, "text"))
    try:
        return parse(text)
    except (ValueError, KeyError):
        raise SettingsError(f"TIDEMILL_{name.upper()} is {text!r}; it may be {expected}") from None
