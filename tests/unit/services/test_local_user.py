"""Which server the CLI's config file leads to, and how."""

import socket
import tomllib
from pathlib import Path

import pytest

from tidemill_services import local_user

CA = Path("/data/tls/certificate.pem")
NAMES = frozenset({"localhost", "127.0.0.1"})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("TIDEMILL_CONFIG", str(path))
    return path


def test_a_server_that_goes_over_to_tls_and_back_is_still_the_one_that_the_file_leads_to(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        place = f"127.0.0.1:{ours.getsockname()[1]}"
        plain = {"target": place, "api_key": "key"}
        secure = {"target": f"https://{place}", "api_key": "key", "ca_file": str(CA)}
        for ca_file, names, written in ((None, None, plain), (CA, NAMES, secure), (None, None, plain)):
            local_user.tell(place, "key", ca_file, names)
            assert tomllib.loads(config.read_text()) == written


def test_another_server_that_answers_keeps_the_file_with_tls_too(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        text = f'target = "https://127.0.0.1:{other.getsockname()[1]}"\n'
        config.write_text(text)
        local_user.tell("127.0.0.1:1", "key", CA, NAMES)
        assert config.read_text() == text
        assert "TIDEMILL_TARGET=https://127.0.0.1:1" in caplog.text
    local_user.tell("127.0.0.1:1", "key", CA, NAMES)
    assert tomllib.loads(config.read_text())["target"] == "https://127.0.0.1:1"


def test_the_file_calls_the_server_by_a_name_that_its_certificate_has(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local_user.tell("127.0.0.1:1", "key", CA, frozenset({"mill.example.org"}))
    assert not config.exists()
    assert "its certificate does not name 127.0.0.1" in caplog.text
    local_user.tell("127.0.0.1:1", "key", CA, frozenset({"mill.example.org", "localhost"}))
    assert tomllib.loads(config.read_text())["target"] == "https://localhost:1"
    local_user.tell("[::1]:1", "key", CA, frozenset({"::1"}))
    assert tomllib.loads(config.read_text())["target"] == "https://[::1]:1"


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("0.0.0.0:7", "127.0.0.1:7"),
        ("[::]:7", "[::1]:7"),
        ("localhost:7", "localhost:7"),
        ("127.0.0.2:7", "127.0.0.2:7"),
        ("192.0.2.1:7", None),
    ],
)
def test_a_server_that_listens_everywhere_is_found_by_loopback_and_one_elsewhere_is_not(
    config: Path, address: str, reached: str | None
) -> None:
    assert local_user.tell(address, "key", None, None) is (reached is not None)
    assert config.exists() is (reached is not None)
    if reached is not None:
        assert tomllib.loads(config.read_text())["target"] == reached


def test_whoever_is_not_led_to_is_told_so(config: Path) -> None:
    assert not local_user.tell("127.0.0.1:1", "key", CA, frozenset({"mill.example.org"}))
    with socket.create_server(("127.0.0.1", 0)) as other:
        config.write_text(f'target = "127.0.0.1:{other.getsockname()[1]}"\n')
        assert not local_user.tell("127.0.0.1:1", "key", None, None)
    assert local_user.tell("127.0.0.1:1", "key", None, None)
