"""What `serve` leaves for the user who runs it: an API key, and the CLI's config file that names it."""

import json
import logging
import os
import socket
import tomllib
from ipaddress import ip_address
from pathlib import Path

from platformdirs import user_config_path

_ANSWER_SECONDS = 0.5

logger = logging.getLogger(__name__)


def tell(address: str, api_key: str, ca_file: Path | None, names: frozenset[str] | None) -> bool:
    """Write the CLI's config file for the server that listens at `address`; returns whether the CLI finds it by that.

    It does not where loopback does not lead to it, or where the file leads to another server that answers. `ca_file`
    and `names` are of the server's certificate; None for plaintext. A home that cannot be written to is no reason not
    to serve.
    """
    if (reachable := on_loopback(address)) is None:
        return False
    if (place := _place_by_name(reachable, names)) is None:
        logger.warning("the CLI will not find this server by itself: its certificate does not name %s", reachable)
        return False
    target = place if ca_file is None else f"https://{place}"
    path = client_config_path()
    other = config_target(path)
    if other is not None and _without_scheme(other) != place and answers(other):
        logger.warning("the CLI goes on using %s, which answers: name this server by TIDEMILL_TARGET=%s", other, target)
        return False
    try:
        write_private(path, client_config(target, api_key, ca_file))
    except OSError as error:
        logger.warning("the CLI will not find this server by itself: %s cannot be written: %s", path, error.strerror)
        return False
    return True


def on_loopback(address: str) -> str | None:
    """Where this machine reaches what listens at `address` by its loopback; None when it does not."""
    host, _, port = address.rpartition(":")
    if host == "localhost":
        return address
    ip = ip_address(host.strip("[]"))
    if ip.is_unspecified:
        return f"127.0.0.1:{port}" if ip.version == 4 else f"[::1]:{port}"
    return address if ip.is_loopback else None


def _place_by_name(address: str, names: frozenset[str] | None) -> str | None:
    """`address`, of loopback, as a client may call it that looks at the certificate's names; None when it may not."""
    host, _, port = address.rpartition(":")
    if names is None or host.strip("[]") in names:
        return address
    return f"localhost:{port}" if "localhost" in names else None


def client_config_path() -> Path:
    """The CLI's config file: `TIDEMILL_CONFIG`, else `config.toml` in the user's configuration folder."""
    given = os.environ.get("TIDEMILL_CONFIG")
    return Path(given) if given else user_config_path("tidemill") / "config.toml"


def read_api_key(path: Path) -> str | None:
    """The key that an earlier run left; None when there is none."""
    try:
        return path.read_text("ascii").strip() or None
    except FileNotFoundError:
        return None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def config_target(path: Path) -> str | None:
    """The server that the CLI's config file names; None when there is none."""
    try:
        target = tomllib.loads(path.read_text("utf-8")).get("target")
    except (OSError, ValueError):
        return None
    return target if isinstance(target, str) else None


def answers(target: str) -> bool:
    """Whether something listens at a target on this machine."""
    host, _, port = _without_scheme(target).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def _without_scheme(target: str) -> str:
    return target.rpartition("://")[2]


def client_config(target: str, api_key: str, ca_file: Path | None) -> str:
    """The text of the CLI's config file; TOML strings without control characters are JSON strings."""
    ca = "" if ca_file is None else f"ca_file = {json.dumps(str(ca_file))}\n"
    return (
        "# Written by `tidemill serve` for its own user; it is written anew at each start.\n"
        f"target = {json.dumps(target)}\n"
        f"api_key = {json.dumps(api_key)}\n{ca}"
    )
