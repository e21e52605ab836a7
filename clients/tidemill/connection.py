"""Which server to ask and with which key: from arguments, the environment, or the file that `tidemill serve` writes.

The file is TOML with the keys `target`, `api_key` and `ca_file`, at `tidemill/config.toml` in the user's configuration
folder or where `TIDEMILL_CONFIG` says. Its key and its CA are for its own target only; it is refused unless it is the
user's alone (0600).

A target is `host:port`, or `https://host:port` for TLS, or `http://host:port` for plaintext. Without a scheme it is
TLS, but plaintext on loopback when no CA is given for it. Nothing but loopback is ever spoken to in plaintext.
"""

import os
import ssl
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from platformdirs import user_config_path

from tidemill.errors import ApiKeyMissingError, ConfigError

DEFAULT_TARGET = "127.0.0.1:7400"


@dataclass(frozen=True, slots=True)
class Connection:
    """A server and the key for it."""

    target: str
    """host:port."""
    api_key: str = field(repr=False)
    is_tls: bool = False
    ca_file: str = ""
    """Who may have signed the server's certificate, in PEM; empty for the public CAs."""

    @property
    def url(self) -> str:
        """The target with how it is spoken to."""
        return f"https://{self.target}" if self.is_tls else f"http://{self.target}"


def resolve(
    api_key: str | None = None,
    custom_env_var: str | None = None,
    target: str | None = None,
    ca_file: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Connection:
    """Find target, key and CA.

    The key: the argument, else the variable `custom_env_var` (an error when it is not set: another key might be
    somebody else's money), else `TIDEMILL_API_KEY`, else the file's. The target: the argument, else `TIDEMILL_TARGET`,
    else the file's, else 127.0.0.1:7400. The CA: the argument, else `TIDEMILL_CA_FILE`, else the file's.

    Raises ConfigError for settings that contradict each other or may not be, ApiKeyMissingError when there is no key.
    """
    for name, value in (
        ("api_key", api_key),
        ("custom_env_var", custom_env_var),
        ("target", target),
        ("ca_file", ca_file),
    ):
        check_text(value, name)
    environ = os.environ if environ is None else environ
    if api_key is not None and custom_env_var is not None:
        raise ConfigError("api_key and custom_env_var are both given: give one of them.")
    key = _given_key(api_key, custom_env_var, environ)
    where = target or environ.get("TIDEMILL_TARGET", "")
    ca = ca_file or environ.get("TIDEMILL_CA_FILE", "")
    saved = None if key and where else read_config_file(config_path(environ))
    where = where or (saved.url if saved else DEFAULT_TARGET)
    scheme, place = _parse_target(where)
    if saved and _same_place(saved.target, place):
        key, ca = key or saved.api_key, ca or saved.ca_file
        scheme = scheme or ("https" if saved.is_tls or ca_file else "http")
    if not key:
        raise ApiKeyMissingError(_missing_key(place, saved, config_path(environ)))
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError("The API key has characters that no key has; was something else pasted?")
    is_tls = _is_tls(scheme, place, ca)
    return Connection(target=place, api_key=key, is_tls=is_tls, ca_file=ca if is_tls else "")


def check_text(value: object, name: str) -> None:
    """Raises ConfigError naming an argument that is neither a text nor None."""
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} is of type {type(value).__name__}; it must be a str.", field=name)


def config_path(environ: Mapping[str, str]) -> Path:
    """Where the configuration file lies for this user."""
    given = environ.get("TIDEMILL_CONFIG", "")
    return Path(given) if given else user_config_path("tidemill") / "config.toml"


def read_config_file(path: Path) -> Connection | None:
    """Read the file; None when there is none. Raises ConfigError when it is not the user's alone, or not understood."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid != os.geteuid():
                raise ConfigError(f"{path} belongs to another user, so its key is not used: remove it.")
            if stat.S_IMODE(facts.st_mode) & 0o077:
                raise ConfigError(f"{path} holds a key and others can reach it: run `chmod 600 {path}`.")
            table = tomllib.load(file)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    target, api_key, ca_file = table.get("target", DEFAULT_TARGET), table.get("api_key", ""), table.get("ca_file", "")
    if not isinstance(target, str) or not isinstance(api_key, str) or not isinstance(ca_file, str):
        raise ConfigError(f"{path}: target, api_key and ca_file must be strings.")
    try:
        scheme, place = _parse_target(target)
        return Connection(target=place, api_key=api_key, is_tls=_is_tls(scheme, place, ca_file), ca_file=ca_file)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _given_key(api_key: str | None, custom_env_var: str | None, environ: Mapping[str, str]) -> str:
    if api_key is not None:
        if not api_key:
            raise ApiKeyMissingError("api_key is empty.")
        return api_key
    if custom_env_var is not None:
        if not environ.get(custom_env_var):
            raise ApiKeyMissingError(f"The environment variable {custom_env_var} is not set.")
        return environ[custom_env_var]
    return environ.get("TIDEMILL_API_KEY", "")


def _missing_key(target: str, saved: Connection | None, path: Path) -> str:
    """The sentence; empty for the usual one."""
    if saved is None or not saved.api_key or _same_place(saved.target, target):
        return ""
    return (
        f"There is no API key for {target}: the one in {path} is for {saved.target} and goes nowhere else. Set "
        "TIDEMILL_API_KEY to a key of this server, or leave the target out."
    )


def _parse_target(target: str) -> tuple[str, str]:
    """The scheme, empty when there is none, and host:port."""
    scheme, separator, rest = target.rpartition("://")
    place = rest.removesuffix("/") if separator else rest
    if separator and scheme not in {"http", "https"}:
        example = place or DEFAULT_TARGET
        raise ConfigError(
            f"The target is {target!r}: write host:port without {scheme}://, such as {example}, "
            f"or https://{example} for TLS."
        )
    host, port = _parts(place)
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ConfigError(f"The target is {target!r}; it may be host:port, such as {DEFAULT_TARGET}.")
    return scheme, place


def _is_tls(scheme: str, place: str, ca_file: str) -> bool:
    """Raises ConfigError for plaintext to anything but this machine."""
    on_this_machine = _is_loopback(_parts(place)[0])
    if scheme == "http" and not on_this_machine:
        raise ConfigError(
            f"The target {place} is not on this machine, and http:// asks for plaintext, which would show the key to "
            f"the network: write https://{place}, or use a tunnel to a loopback address."
        )
    return scheme == "https" or not on_this_machine or (not scheme and bool(ca_file))


def check_ca_file(path: str) -> None:
    """Raises ConfigError when the file cannot be read, or holds no certificate; an empty path is none."""
    if not path:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ConfigError(f"The CA file {path} holds no certificate in PEM.", field="ca_file") from None
    except OSError as error:
        raise ConfigError(f"The CA file {path} cannot be read: {error.strerror}.", field="ca_file") from error


def _parts(target: str) -> tuple[str, str]:
    host, _, port = target.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _same_place(one: str, other: str) -> bool:
    return one.replace("localhost", "127.0.0.1") == other.replace("localhost", "127.0.0.1")
