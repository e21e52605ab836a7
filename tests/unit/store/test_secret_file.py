"""The platform's secret, on disk."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store.secret_file import (
    forget_old_secret,
    read_or_create_secret,
    read_or_create_secrets,
    rotate_secret,
)


@pytest.mark.rule("A6")
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


@pytest.mark.rule("A6")
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


@pytest.mark.rule("A6")
def test_two_secrets_are_valid_while_the_platforms_is_rotated(tmp_path: Path):
    path = tmp_path / "secret"
    before = read_or_create_secrets(path)
    assert before.old is None
    rotate_secret(path)
    during = read_or_create_secrets(path)
    assert during.old == before.current != during.current
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}
    assert forget_old_secret(path)
    assert not forget_old_secret(path)
    after = read_or_create_secrets(path)
    assert (after.current, after.old) == (during.current, None)
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_rotation_waits_for_the_end_of_the_first(tmp_path: Path):
    rotate_secret(tmp_path / "secret")
    before = read_or_create_secrets(tmp_path / "secret")
    with pytest.raises(CannotStartError, match="under way"):
        rotate_secret(tmp_path / "secret")
    assert read_or_create_secrets(tmp_path / "secret") == before


def test_a_rotation_that_was_cut_short_can_be_made_again(tmp_path: Path):
    path = tmp_path / "secret"
    before = read_or_create_secret(path)
    (tmp_path / "secret.old").hardlink_to(path)  # as far as it came
    rotate_secret(path)
    assert read_or_create_secrets(path).old == before != read_or_create_secret(path)


def test_an_old_secret_that_others_may_read_is_refused(tmp_path: Path):
    rotate_secret(tmp_path / "secret")
    (tmp_path / "secret.old").chmod(0o644)
    with pytest.raises(CannotStartError, match="may be read by others"):
        read_or_create_secrets(tmp_path / "secret")


def test_secrets_do_not_show_themselves(tmp_path: Path):
    rotate_secret(tmp_path / "secret")
    found = read_or_create_secrets(tmp_path / "secret")
    assert repr(found) == "PlatformSecrets()"
