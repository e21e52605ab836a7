"""What `serve` leaves for the user who runs it on loopback: an API key, and the CLI's config file that names it."""

import json
import os
import socket
import tomllib
from pathlib import Path

from platformdirs import user_config_path

_ANSWER_SECONDS = 0.5


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
    """Whether something listens at `host:port` on this machine."""
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def client_config(target: str, api_key: str) -> str:
    """The text of the CLI's config file; TOML strings without control characters are JSON strings."""
    return (
        "# Written by `tidemill serve` for its own user; it is written anew at each start.\n"
        f"target = {json.dumps(target)}\n"
        f"api_key = {json.dumps(api_key)}\n"
    )
