"""The data directory: there, ours, and closed to others where it holds secrets."""

import os
import stat
from pathlib import Path

from tidemill_services.doctor.finding import Finding, Level, ok, warning, wrong

_NUM_SECRET_BYTES = 32
# How bad it is when others can read a file: those hold keys as they are, these only hashes and names.
_PRIVATE = {
    "secret": Level.WRONG,
    "secret.old": Level.WRONG,
    "api_key": Level.WRONG,
    "tidemill.db": Level.WARNING,
    "tidemill.db-wal": Level.WARNING,
    "tidemill.db-shm": Level.WARNING,
}


def check_data_directory(folder: Path, *, user_id: int | None = None) -> list[Finding]:
    """The folder and the files in it, for a server that runs as `user_id`, by default the caller's.

    Says nothing of what is right in a file; a folder that is not there yet is right when it can be made.
    """
    user_id = os.geteuid() if user_id is None else user_id
    if not folder.exists():
        return [_can_be_made(folder)]
    if not folder.is_dir():
        return [wrong("data directory", f"{folder} is no folder: move it, or choose another --data-dir.")]
    problems = _folder_problems(folder, user_id)
    for name, level in _PRIVATE.items():
        if (folder / name).exists():
            problems += _file_problems(folder / name, level, user_id)
    problems += _secret_problems(folder)
    return problems or [ok("data directory", f"{folder} is its owner's alone.")]


def _can_be_made(folder: Path) -> Finding:
    parent = next(parent for parent in folder.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return wrong(
            "data directory", f"{folder} is not there and cannot be made in {parent}: choose another --data-dir."
        )
    return ok("data directory", f"{folder} is not there yet; the first start makes it.")


def _folder_problems(folder: Path, user_id: int) -> list[Finding]:
    facts = folder.stat()
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid != user_id:
        return [_foreign(folder, facts.st_uid, user_id)]
    if mode & 0o700 != 0o700:
        return [
            wrong(
                "data directory", f"{folder} has mode {mode:04o}, too little for its owner: run `chmod 700 {folder}`."
            )
        ]
    if mode & 0o022:
        return [wrong("data directory", f"Others can write to {folder} (mode {mode:04o}): run `chmod 700 {folder}`.")]
    if mode & 0o077:
        return [
            warning("data directory", f"Others can look into {folder} (mode {mode:04o}): run `chmod 700 {folder}`.")
        ]
    return []


def _file_problems(path: Path, level: Level, user_id: int) -> list[Finding]:
    facts = path.stat()
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid != user_id:
        return [_foreign(path, facts.st_uid, user_id)]
    if mode & 0o077:
        level = Level.WRONG if mode & 0o022 else level
        return [Finding(level, path.name, f"Others can reach {path} (mode {mode:04o}): run `chmod 600 {path}`.")]
    return []


def _secret_problems(folder: Path) -> list[Finding]:
    secret = folder / "secret"
    if not secret.exists():
        if (folder / "tidemill.db").exists():
            sentence = (
                f"{secret} is missing, and no API key of the database works without it: restore it from the backup."
            )
            return [wrong("secret", sentence)]
        return []
    size = secret.stat().st_size
    if size != _NUM_SECRET_BYTES:
        sentence = f"{secret} has {size} bytes, not {_NUM_SECRET_BYTES}: restore it, no API key works without it."
        return [wrong("secret", sentence)]
    return []


def _foreign(path: Path, owner_id: int, user_id: int) -> Finding:
    if user_id == 0:
        sentence = f"{path} belongs to user {owner_id}, and root asks: examine and serve as that user."
        return warning(path.name or "data directory", sentence)
    sentence = f"{path} belongs to user {owner_id}, and this is user {user_id}: serve as that user, or `chown` it."
    return wrong(path.name or "data directory", sentence)
