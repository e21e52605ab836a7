from datetime import timedelta
from pathlib import Path

import pytest

from tidemill_services.settings import Settings, SettingsError, seconds


def test_what_is_given_wins_over_the_environment_and_that_over_the_default() -> None:
    settings = Settings.read({"TIDEMILL_PORT": "1", "TIDEMILL_HTTP_PORT": "2"}, port=3, host=None)
    assert (settings.port, settings.http_port, settings.admin_port, settings.host) == (3, 2, 7490, "127.0.0.1")


def test_each_kind_of_setting_is_read_from_the_environment(tmp_path: Path) -> None:
    folders = (tmp_path / "a", tmp_path / "b")
    for folder in folders:
        folder.mkdir()
    settings = Settings.read(
        {
            "TIDEMILL_DATA_DIR": "/data",
            "TIDEMILL_MODELS": f"{folders[0]}:{folders[1]}",
            "TIDEMILL_STOP_GRACE": "1.5",
            "TIDEMILL_ALLOW_PLAINTEXT": "true",
            "TIDEMILL_AUTO_SESSION": "1",
            "TIDEMILL_DATABASE": "postgresql://x/y",
            "TIDEMILL_HTTP_ORIGINS": "http://localhost:3000, https://chat.example.org",
        }
    )
    assert settings.data_dir == Path("/data")
    assert settings.models == folders
    assert settings.stop_grace == timedelta(seconds=1.5)
    assert settings.allow_plaintext
    assert settings.auto_session
    assert settings.database_url == "postgresql://x/y"
    assert settings.http_origins == ("http://localhost:3000", "https://chat.example.org")


def test_the_database_is_a_file_in_the_data_directory_unless_named() -> None:
    assert Settings.read({}, data_dir=Path("/data")).database_url == "sqlite:////data/tidemill.db"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "many"),
        ("PORT", "65536"),
        ("HTTP_PORT", "-1"),
        ("HTTP_ORIGINS", "chat.example.org"),
        ("HTTP_ORIGINS", "https://chat.example.org/"),
        ("HTTP_ORIGINS", "https://*.example.org"),
        ("REPLICA_CAPACITY", "0"),
        ("STOP_GRACE", "soon"),
        ("STOP_GRACE", "3601"),
        ("STOP_GRACE", "nan"),
        ("STOP_GRACE", "inf"),
        ("STOP_GRACE", "1e300"),
        ("STOP_GRACE", "-0.9"),
        ("STOP_GRACE", "3600.5"),
        ("MODELS", "/no/such/folder"),
        ("ADMIN_HOST", "example.org"),
        ("ALLOW_PLAINTEXT", "perhaps"),
        ("AUTO_SESSION", "sometimes"),
        ("HOST", "example.org"),
        ("LOG_LEVEL", "loud"),
        ("REPLICA_DEVICE", "abacus"),
        ("REPLICA_KERNELS", "popcorn"),
        ("TLS_CERTIFICATE", "/no/such/file"),
        ("TLS_KEY", "/no/such/file"),
        ("TLS_SELF_SIGNED", "perhaps"),
        ("REPLICA_TLS_CA", "/no/such/file"),
        ("MAX_STREAMS_PER_CONNECTION", "0"),
        ("MAX_CONNECTION_AGE", "0"),
        ("MAX_CONNECTION_AGE", "1e300"),
        ("MAX_HTTP_CONNECTIONS", "0"),
        ("REPLICA_FAKE_TICK_MS", "-1"),
        ("REPLICA_SPARES", "-1"),
        ("REPLICA_SPARES", "65"),
        ("START_CACHE_MIB", "-1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=name.lower() if text.lstrip("-").isdigit() else "(?i)" + name):
        Settings.read({f"TIDEMILL_{name}": text})


def test_an_address_that_others_can_reach_needs_a_word() -> None:
    with pytest.raises(SettingsError, match="not encrypted"):
        Settings.read({}, host="0.0.0.0")
    assert not Settings.read({}, host="0.0.0.0", allow_plaintext=True).is_loopback


def test_the_admin_port_stays_on_loopback_unless_its_own_host_is_set() -> None:
    assert Settings.read({}, host="0.0.0.0", allow_plaintext=True).admin_host == "127.0.0.1"
    with pytest.raises(SettingsError, match=r"admin_host is 0\.0\.0\.0, which others can reach"):
        Settings.read({}, admin_host="0.0.0.0")
    settings = Settings.read({"TIDEMILL_ADMIN_HOST": "0.0.0.0"}, allow_plaintext=True)
    assert (settings.host, settings.admin_host, settings.is_loopback) == ("127.0.0.1", "0.0.0.0", True)


def test_with_tls_an_address_that_others_can_reach_needs_no_word() -> None:
    settings = Settings.read({"TIDEMILL_TLS_SELF_SIGNED": "true"}, host="0.0.0.0", admin_host="0.0.0.0")
    assert settings.is_tls
    assert not settings.is_loopback


def test_the_files_of_a_certificate_go_together(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("certificate", "key", "ca")}
    for path in files.values():
        path.touch()
    assert Settings.read({}, tls_certificate=files["certificate"], tls_key=files["key"]).is_tls
    with pytest.raises(SettingsError, match=r"TIDEMILL_TLS_KEY is missing: .* TIDEMILL_TLS_CERTIFICATE"):
        Settings.read({}, tls_certificate=files["certificate"])
    with pytest.raises(SettingsError, match=r"TIDEMILL_REPLICA_TLS_KEY is missing"):
        Settings.read({}, replica_tls_ca=files["ca"], replica_tls_certificate=files["certificate"])
    with pytest.raises(SettingsError, match=r"TIDEMILL_TLS_KEY is .*; it may be a file"):
        Settings.read({}, tls_certificate=files["certificate"], tls_key=tmp_path)
    with pytest.raises(SettingsError, match=r"TIDEMILL_TLS_SELF_SIGNED and TIDEMILL_TLS_CERTIFICATE are both given"):
        Settings.read({}, tls_certificate=files["certificate"], tls_key=files["key"], tls_self_signed=True)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_what_is_no_number_of_seconds_is_refused_with_the_settings_name(number: float) -> None:
    with pytest.raises(SettingsError, match=r"stop_grace is .* it may be 0 to 3,600 seconds"):
        seconds("stop_grace", number, 3_600)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_needs_none(host: str) -> None:
    assert Settings.read({}, host=host).is_loopback
