"""Which server, with which key."""

import os
from pathlib import Path

import pytest

from tests.certificates import Authority
from tidemill import ApiKeyMissingError, Client, ConfigError
from tidemill.connection import DEFAULT_TARGET, resolve


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text('target = "127.0.0.1:7500"\napi_key = "from_file"\n')
    path.chmod(0o600)
    return path


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(Authority().certificate_pem)
    return path


@pytest.mark.rule("A11")
def test_the_key_comes_from_the_first_place_that_has_one(config: Path) -> None:
    environ = {"TIDEMILL_CONFIG": str(config), "TIDEMILL_API_KEY": "from_variable", "TEAM_KEY": "from_named"}
    assert resolve("from_argument", environ=environ).api_key == "from_argument"
    assert resolve(custom_env_var="TEAM_KEY", environ=environ).api_key == "from_named"
    assert resolve(environ=environ).api_key == "from_variable"
    assert resolve(environ={"TIDEMILL_CONFIG": str(config)}).api_key == "from_file"


def test_the_target_comes_from_the_first_place_that_has_one(config: Path, tmp_path: Path) -> None:
    environ = {"TIDEMILL_CONFIG": str(config), "TIDEMILL_TARGET": "127.0.0.1:7600"}
    assert resolve("k", target="127.0.0.1:7700", environ=environ).target == "127.0.0.1:7700"
    assert resolve("k", environ=environ).target == "127.0.0.1:7600"
    assert resolve("k", environ={"TIDEMILL_CONFIG": str(config)}).target == "127.0.0.1:7500"
    assert resolve("k", environ={"TIDEMILL_CONFIG": str(tmp_path / "none.toml")}).target == DEFAULT_TARGET


def test_both_ways_to_give_a_key_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="api_key and custom_env_var"):
        Client("key", custom_env_var="TEAM_KEY")


@pytest.mark.rule("A11")
def test_a_named_variable_that_is_not_set_is_an_error_and_no_other_key_is_taken(config: Path) -> None:
    with pytest.raises(ApiKeyMissingError, match="TEAM_KEY is not set"):
        resolve(custom_env_var="TEAM_KEY", environ={"TIDEMILL_CONFIG": str(config), "TIDEMILL_API_KEY": "other"})


def test_without_any_key_the_error_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(ApiKeyMissingError, match="TIDEMILL_API_KEY"):
        resolve(environ={"TIDEMILL_CONFIG": str(tmp_path / "none.toml")})


def test_the_files_key_is_used_for_its_own_target_only(config: Path) -> None:
    environ = {"TIDEMILL_CONFIG": str(config)}
    assert resolve(target="localhost:7500", environ=environ).api_key == "from_file"
    with pytest.raises(ApiKeyMissingError):
        resolve(target="127.0.0.1:7600", environ=environ)


def test_a_key_for_another_server_is_named_when_there_is_none_for_this(config: Path) -> None:
    with pytest.raises(ApiKeyMissingError) as caught:
        resolve(target="127.0.0.1:7600", environ={"TIDEMILL_CONFIG": str(config)})
    assert "There is no API key for 127.0.0.1:7600" in str(caught.value)
    assert f"the one in {config} is for 127.0.0.1:7500" in str(caught.value)
    assert "from_file" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_reach_is_refused(config: Path, mode: int) -> None:
    config.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        resolve(environ={"TIDEMILL_CONFIG": str(config)})


def test_a_file_of_another_user_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: config.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="another user"):
        resolve(environ={"TIDEMILL_CONFIG": str(config)})


@pytest.mark.parametrize("text", ["target = ", "target = 7", "target = 'none'", "api_key = ['a']", "ca_file = true"])
def test_a_file_that_is_not_understood_is_named(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.toml"):
        resolve(environ={"TIDEMILL_CONFIG": str(config)})


def test_the_file_is_not_needed_when_everything_is_given(config: Path) -> None:
    config.chmod(0o644)
    assert resolve("key", target="127.0.0.1:7400", environ={"TIDEMILL_CONFIG": str(config)}).api_key == "key"


@pytest.mark.parametrize("target", ["127.0.0.1:7400", "localhost:1", "[::1]:7400", "127.9.9.9:65535"])
def test_loopback_targets_may_be_plaintext(target: str) -> None:
    assert resolve("key", target=target, environ={}).target == target


@pytest.mark.parametrize("target", ["10.0.0.1:7400", "example.org:7400", "[2001:db8::1]:7400"])
def test_the_key_is_never_shown_to_a_network(target: str) -> None:
    assert resolve("key", target=target, environ={}).is_tls
    with pytest.raises(ConfigError, match="plaintext"):
        resolve("key", target=f"http://{target}", environ={})


def test_loopback_is_spoken_to_with_tls_when_the_scheme_or_a_ca_file_says_so(ca_file: Path) -> None:
    place, ca = "127.0.0.1:7400", str(ca_file)
    assert not resolve("key", target=place, environ={}).is_tls
    found = resolve("key", target=f"https://{place}", environ={})
    assert (found.target, found.is_tls, found.ca_file, found.url) == (place, True, "", f"https://{place}")
    for asked in (
        resolve("key", target=place, ca_file=ca, environ={}),
        resolve("key", target=place, environ={"TIDEMILL_CA_FILE": ca}),
        resolve("key", target=place, ca_file=ca, environ={"TIDEMILL_CA_FILE": "/nowhere"}),
    ):
        assert (asked.is_tls, asked.ca_file) == (True, ca)
    plain = resolve("key", target=f"http://{place}/", environ={"TIDEMILL_CA_FILE": ca})
    assert (plain.target, plain.is_tls, plain.url) == (place, False, f"http://{place}")


def test_the_files_ca_is_used_for_its_own_target_only(config: Path, ca_file: Path) -> None:
    config.write_text(f'target = "https://127.0.0.1:7500"\napi_key = "from_file"\nca_file = "{ca_file}"\n')
    environ = {"TIDEMILL_CONFIG": str(config)}
    for asked in (resolve(environ=environ), resolve("key", environ=environ)):
        assert (asked.target, asked.is_tls, asked.ca_file) == ("127.0.0.1:7500", True, str(ca_file))
    assert resolve(target="localhost:7500", environ=environ).is_tls
    assert not resolve("key", target="127.0.0.1:7600", environ=environ).is_tls
    assert resolve("key", target="mill.example.org:7400", environ=environ).ca_file == ""


def test_a_ca_file_for_another_server_changes_nothing_for_the_files_target(config: Path, ca_file: Path) -> None:
    environ = {"TIDEMILL_CONFIG": str(config), "TIDEMILL_CA_FILE": str(ca_file)}
    assert not resolve(environ=environ).is_tls
    assert resolve(ca_file=str(ca_file), target="127.0.0.1:7500", environ=environ).is_tls


@pytest.mark.parametrize(
    ("name", "sentence"), [("none.pem", "cannot be read"), ("config.toml", "holds no certificate")]
)
def test_a_ca_file_that_cannot_be_used_is_named(config: Path, name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=rf"The CA file .*{name} {sentence}") as caught:
        Client("key", target="127.0.0.1:7400", ca_file=str(config.parent / name))
    assert caught.value.field == "ca_file"


@pytest.mark.parametrize("target", ["7400", "localhost", "localhost:", "localhost:0", "localhost:70000", ":7400"])
def test_a_target_needs_host_and_port(target: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        resolve("key", target=target, environ={})


@pytest.mark.parametrize("target", ["grpcs://127.0.0.1:7400", "grpc://127.0.0.1:7400/"])
def test_a_target_with_another_scheme_is_told_to_leave_it_out(target: str) -> None:
    with pytest.raises(ConfigError, match=r"host:port without grpcs?://, such as 127\.0\.0\.1:7400, or https://"):
        resolve("key", target=target, environ={})


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_with_strange_characters_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(key, target=DEFAULT_TARGET, environ={})
    assert key not in str(caught.value)


def test_an_empty_key_is_no_key(config: Path) -> None:
    with pytest.raises(ApiKeyMissingError, match="empty"):
        resolve("", environ={"TIDEMILL_CONFIG": str(config)})


def test_the_key_is_not_shown_by_repr() -> None:
    assert "secret" not in repr(resolve("secret", target=DEFAULT_TARGET, environ={}))
