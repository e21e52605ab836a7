"""Real pairs of certificate and key, and ports that present them."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.certificates import LOCAL, Authority, Files
from tidemill_services.doctor import handshake
from tidemill_services.doctor.certificates import check_certificates, trusted_by_settings
from tidemill_services.doctor.cli_config import check_cli_config
from tidemill_services.doctor.finding import Finding, Level
from tidemill_services.settings import Settings
from tidemill_services.tls.replica_tls import REPLICA_NAME
from tidemill_services.tls.self_signed import self_signed_files, self_signed_pair


def _settings(files: Files) -> Settings:
    return Settings.read({}, tls_certificate=files.certificate, tls_key=files.key)


def _found(settings: Settings) -> Finding:
    (finding,) = check_certificates(settings)
    return finding


def test_without_tls_nothing_is_said() -> None:
    assert list(check_certificates(Settings.read({}))) == []


def test_a_good_pair_is_right_and_its_names_and_end_are_told(tmp_path: Path) -> None:
    found = _found(_settings(Authority().write(tmp_path, "mill.example.org", days=20)))
    assert found.level is Level.OK
    assert "is for mill.example.org, and valid until 20" in found.sentence


def test_what_keeps_a_server_from_starting_is_wrong(tmp_path: Path) -> None:
    expired, good = Authority().write(tmp_path / "a", *LOCAL, days=-1), Authority().write(tmp_path / "b", *LOCAL)
    for files, sentence in (
        (expired, f"TIDEMILL_TLS_CERTIFICATE is {expired.certificate}, which expired at"),
        (replace(good, key=expired.key), f"TIDEMILL_TLS_KEY is {expired.key}, which is not the key of"),
    ):
        found = _found(_settings(files))
        assert found.level is Level.WRONG
        assert found.sentence.startswith(sentence)


def test_what_will_be_trouble_is_a_warning(tmp_path: Path) -> None:
    files = Authority().write(tmp_path, *LOCAL, days=10)
    found = _found(_settings(files))
    assert (found.level, "renew it" in found.sentence) == (Level.WARNING, True)
    files.key.chmod(0o644)
    found = _found(_settings(files))
    assert (found.level, f"chmod 600 {files.key}" in found.sentence) == (Level.WARNING, True)


def test_a_self_signed_pair_is_never_wrong_since_the_next_start_makes_one(tmp_path: Path) -> None:
    settings = Settings.read({}, data_dir=tmp_path, tls_self_signed=True)
    assert "the first start makes it" in _found(settings).sentence
    pair = self_signed_pair(tmp_path, frozenset(LOCAL))
    assert _found(settings).level is Level.OK
    trusted = trusted_by_settings(settings)
    assert trusted is not None
    assert (trusted.certificate_pem, trusted.name) == (pair.certificate_pem, "127.0.0.1")
    self_signed_files(tmp_path).key.write_text("")
    found = _found(settings)
    assert (found.level, found.sentence.endswith("The next start makes a new pair.")) == (Level.WARNING, True)


def test_the_pair_for_replicas_is_judged_too(tmp_path: Path) -> None:
    for name, level in ((REPLICA_NAME, Level.OK), ("mill", Level.WRONG)):
        files = Authority().write(tmp_path / name, name)
        settings = Settings.read(
            {}, replica_tls_ca=files.ca, replica_tls_certificate=files.certificate, replica_tls_key=files.key
        )
        found = _found(settings)
        assert (found.level, found.subject) == (level, "replica certificate")


@contextmanager
def tls_server(files: Files) -> Iterator[str]:
    """It makes handshakes, and says nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    def serve() -> None:
        with suppress(OSError):
            while True:
                with suppress(ssl.SSLError, ConnectionError):
                    context.wrap_socket(listening.accept()[0], server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.touch(0o600)
    return path


def test_a_config_file_whose_server_would_not_be_trusted_is_wrong(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 60.0)
    authority = Authority()
    files, other = authority.write(tmp_path / "a", *LOCAL), Authority().write(tmp_path / "b", *LOCAL)
    nameless = authority.write(tmp_path / "c", "mill.example.org")
    expired = authority.write(tmp_path / "d", *LOCAL, days=-1)
    for served, scheme, ca, level, words in (
        (files, "https", files.ca, Level.OK, "which answers"),
        (files, "https", files.certificate, Level.OK, "which answers"),
        (files, "https", other.ca, Level.WRONG, "unable to get local issuer certificate"),
        (nameless, "https", files.ca, Level.WRONG, "IP address mismatch"),
        (expired, "https", files.ca, Level.WRONG, "certificate has expired"),
        (files, "https", tmp_path / "none", Level.WRONG, "cannot be used"),
        (files, "http", "", Level.WRONG, "it speaks TLS, and the file says plaintext"),
    ):
        with tls_server(served) as place:
            config.write_text(f'target = "{scheme}://{place}"\napi_key = "key"\nca_file = "{ca}"\n')
            found = check_cli_config(config, "127.0.0.1:1")
        assert found.level is level, found
        assert words in found.sentence
