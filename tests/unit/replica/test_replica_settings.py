"""A replica's command line: what it takes, and the sentence for what it does not."""

import os
import re
from pathlib import Path

import pytest

from tests.certificates import Authority
from tidemill_serving.settings import read_settings
from tidemill_serving.start_cache.settings import StartCacheSettings
from tidemill_serving.tls import TlsFiles

TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


def test_only_package_and_token_are_needed(token_file: Path) -> None:
    settings = read_settings(["--package", "models/x", "--token-file", str(token_file)])
    assert settings.package == Path("models/x")
    assert settings.token == TOKEN
    assert settings.listen == "127.0.0.1:0"
    assert (settings.slots, settings.threads, settings.parent_pid) == (None, None, None)
    assert settings.device == "cpu"
    assert settings.server.drain_grace_seconds == 30.0


def test_every_option_reaches_its_setting(token_file: Path) -> None:
    options = "--package p --listen [::1]:7000 --slots 3 --threads 2 --parent-pid 1 --device fake --fake-tick-ms 0"
    more = f"--drain-grace-seconds 2.5 --log-level debug --token-file {token_file} --start-cache c --start-cache-mib 3"
    settings = read_settings([*options.split(), *more.split()])
    assert (settings.listen, settings.slots, settings.threads) == ("[::1]:7000", 3, 2)
    assert (settings.parent_pid, settings.device, settings.fake_tick_ms) == (1, "fake", 0)
    assert (settings.log_level, settings.server.drain_grace_seconds) == ("debug", 2.5)
    assert settings.start_cache == StartCacheSettings(Path("c"), 3 << 20)


def test_a_start_cache_of_no_size_is_none(token_file: Path) -> None:
    options = ["--package", "p", "--token-file", str(token_file), "--start-cache"]
    assert read_settings([*options, "c", "--start-cache-mib", "0"]).start_cache is None


def test_the_token_comes_through_a_pipe_whose_writer_keeps_it_open() -> None:
    reading, writing = os.pipe()
    os.write(writing, TOKEN.encode())
    assert read_settings(["--package", "p", "--token-fd", str(reading)]).token == TOKEN
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)
    os.close(writing)


def test_the_files_for_tls_go_together_and_are_checked(
    token_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, other = Authority().write(tmp_path / "a", "x"), Authority().write(tmp_path / "b", "x")

    def read(certificate: Path, key: Path | None, ca: Path | None) -> TlsFiles | None:
        options = {"--tls-certificate": certificate, "--tls-key": key, "--tls-client-ca": ca}
        given = [word for option, path in options.items() if path for word in (option, str(path))]
        return read_settings(["--package", "p", "--token-file", str(token_file), *given]).tls

    assert read(files.certificate, files.key, files.ca) == TlsFiles(files.certificate, files.key, files.ca)
    for given, sentence in (
        ((files.certificate, files.key, None), "argument --tls-client-ca: is missing"),
        ((files.certificate, None, files.ca), "argument --tls-key: is missing"),
        ((files.certificate, other.key, files.ca), "argument --tls-certificate: .* are no certificate and its key"),
        ((files.key, files.key, files.ca), "argument --tls-certificate: .* are no certificate and its key"),
        ((files.certificate, files.key, files.key), "argument --tls-client-ca: .* holds no certificate"),
        ((tmp_path / "none", files.key, files.ca), "argument --tls-certificate: .* cannot be read"),
    ):
        with pytest.raises(SystemExit, match="2"):
            read(*given)
        assert re.search(sentence, capsys.readouterr().err)


def test_the_token_is_not_shown_with_the_settings(token_file: Path) -> None:
    assert TOKEN not in repr(read_settings(["--package", "p", "--token-file", str(token_file)]))


@pytest.mark.parametrize("content", ["", "abc", TOKEN[:-1], TOKEN.upper(), TOKEN[:-1] + "g", "\x00" * 64])
def test_a_wrong_token_stops_the_program_without_showing_it(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(SystemExit, match="2"):
        read_settings(["--package", "p", "--token-file", str(path)])
    said = capsys.readouterr().err
    assert "argument --token-file: The launcher's token must be 64 lower-case hexadecimal digits." in said
    assert TOKEN[:32] not in said.lower()


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--slots", "0", "'0' is not a number from 1 to 1024"),
        ("--slots", "1.5", "'1.5' is not a number from 1 to 1024"),
        ("--threads", "-1", "'-1' is not a number from 1 to 256"),
        ("--parent-pid", "0", "'0' is not a number from 1 to 4194304"),
        ("--listen", "7000", "'7000' is not HOST:PORT"),
        ("--listen", "localhost:70000", "a port from 0 to 65535"),
        ("--device", "tpu", "invalid choice: 'tpu'"),
        ("--drain-grace-seconds", "nan", "'nan' is not a number of seconds from 0 to 3600"),
        ("--drain-grace-seconds", "soon", "'soon' is not a number of seconds from 0 to 3600"),
        ("--token-file", "/does/not/exist", "No such file or directory"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_may_be(
    token_file: Path, option: str, value: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_settings(["--package", "p", "--token-file", str(token_file), option, value])
    said = capsys.readouterr().err
    assert f"argument {option}" in said
    assert sentence in said
