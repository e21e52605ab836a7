"""The platform's secret, on disk."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store.secret_file import read_or_create_secret


def test_a_missing_secret_is_made_for_its_owner_alone_and_kept(tmp_path: Path):
    path = tmp_path / "data" / "secret"
    secret = read_or_create_secret(path)
    assert len(secret) == 32
    assert read_or_create_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_many_that_make_it_at_once_get_the_same_one(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: read_or_create_secret(tmp_path / "secret"), range(32)))
    assert len(secrets) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int):
    path = tmp_path / "secret"
    read_or_create_secret(path)
    path.chmod(mode)
    with pytest.raises(CannotStartError, match=f"mode {mode:04o}.*chmod 600"):
        read_or_create_secret(path)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_secret_of_another_length_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(CannotStartError, match="does not hold 32 bytes"):
        read_or_create_secret(path)


def test_a_secret_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(CannotStartError, match="cannot be read or made"):
        read_or_create_secret(tmp_path / "file" / "secret")
