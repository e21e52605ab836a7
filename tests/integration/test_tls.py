"""TLS on all three ports of a real server, and what clients with the wrong idea of it are told."""

import http.client
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import openai
import pytest

import tidemill
from tests.certificates import LOCAL, Authority, Files
from tests.server_process import ServerProcess, server_process
from tidemill.connection import read_config_file
from tidemill_services.doctor.handshake import speaks_tls

MODEL = "tiny-llama"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls-server")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    """With a pair of its own making."""
    with server_process(folder, "--tls-self-signed", "--replica-device", "fake") as process:
        yield process


@pytest.fixture(scope="module")
def ca_file(server: ServerProcess) -> str:
    return str(server.data_dir / "tls" / "certificate.pem")


@pytest.fixture(autouse=True)
def _config_of_the_server(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("TIDEMILL_TARGET", "TIDEMILL_API_KEY", "TIDEMILL_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TIDEMILL_CONFIG", str(folder / "config.toml"))


def test_the_servers_own_user_finds_it_and_its_certificate_without_telling(server: ServerProcess) -> None:
    with tidemill.Client(model=MODEL, timeout=60) as client, client.session():
        assert client.complete_prompt("once upon a time", max_tokens=3, stream=False)
    saved = read_config_file(server.data_dir / "config.toml")
    assert saved is not None
    assert (saved.target, saved.is_tls) == (server.grpc, True)
    done = subprocess.run(
        [sys.executable, "-m", "tidemill", "model", "list"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert MODEL in done.stdout


async def test_every_client_takes_a_scheme_and_a_ca_file(
    server: ServerProcess, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tidemill.AsyncClient(
        server.api_key, target=f"https://{server.grpc}", ca_file=ca_file, timeout=60
    ) as client:
        assert await client.list_models()
    monkeypatch.setenv("TIDEMILL_TARGET", server.grpc.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("TIDEMILL_CA_FILE", ca_file)
    assert tidemill.OneLine.list_models(server.api_key)


def test_all_http_speaks_tls_too_and_nothing_older_than_1_2(
    server: ServerProcess, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, path in ((server.http, "/healthz"), (server.admin, "/readyz")):
        host, port = address.split(":")
        connection = http.client.HTTPSConnection(
            host, int(port), context=ssl.create_default_context(cafile=ca_file), timeout=60
        )
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        connection.close()
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    with openai.OpenAI(api_key=server.api_key, base_url=f"https://{server.http}/v1", max_retries=0) as client:
        assert MODEL in {model.id for model in client.models.list()}
    old = ssl.create_default_context(cafile=ca_file)
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    for address in (server.grpc, server.http, server.admin):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as plain, pytest.raises(OSError):  # noqa: PT011
            old.wrap_socket(plain, server_hostname=host).close()


def _refusal(target: str, key: str, ca_file: str = "") -> str:
    """What a client says; it gives up by itself, long before its timeout."""
    began = time.monotonic()
    with (
        tidemill.Client(key, target=target, ca_file=ca_file, timeout=100) as client,
        pytest.raises(tidemill.TlsError) as refused,
    ):
        client.list_models()
    assert time.monotonic() - began < 50
    assert isinstance(refused.value, tidemill.UnreachableError)
    assert refused.value.reason == "TLS"
    return str(refused.value)


def test_a_certificate_that_nobody_trusted_has_signed_is_refused_with_what_to_do(
    server: ServerProcess, tmp_path: Path
) -> None:
    other = str(Authority().write(tmp_path, *LOCAL).ca)
    assert f"only who is in {other}" in _refusal(f"https://{server.grpc}", server.api_key, other)
    said = _refusal(f"https://{server.grpc}", server.api_key)
    assert "signed by nobody that is trusted here (the public CAs): set TIDEMILL_CA_FILE" in said


def test_a_plaintext_client_at_a_port_with_tls_is_told_so(server: ServerProcess) -> None:
    said = _refusal(server.grpc, server.api_key)
    assert f"{server.grpc} does not take plaintext" in said
    assert f"https://{server.grpc}" in said


async def test_asyncio_clients_are_told_the_same(server: ServerProcess) -> None:
    for target, words in ((server.grpc, "does not take plaintext"), (f"https://{server.grpc}", "TIDEMILL_CA_FILE")):
        async with tidemill.AsyncClient(server.api_key, target=target, timeout=100) as client:
            with pytest.raises(tidemill.TlsError, match=words):
                await client.list_models()


def test_the_command_line_says_it_in_one_sentence(server: ServerProcess) -> None:
    environ = {**os.environ, "TIDEMILL_API_KEY": server.api_key}
    command = [sys.executable, "-m", "tidemill", "model", "list", "--target", f"https://{server.grpc}"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"Error: The certificate of {server.grpc} is signed by nobody")


def test_a_client_with_tls_at_a_plaintext_port_is_told_so(tmp_path: Path) -> None:
    ca_file = str(Authority().write(tmp_path / "ca").ca)
    with server_process(tmp_path / "data") as server:
        said = _refusal(server.grpc, server.api_key, ca_file)
    assert said.startswith(f"{server.grpc} does not speak TLS: ")
    assert said.endswith(f"write http://{server.grpc}.")


def _serve_with(files: Files, folder: Path) -> AbstractContextManager[ServerProcess]:
    return server_process(folder, "--tls-certificate", str(files.certificate), "--tls-key", str(files.key))


def test_a_certificate_for_another_name_is_refused_and_the_config_file_left_alone(tmp_path: Path) -> None:
    files = Authority().write(tmp_path / "tls", "mill.example.org")
    with _serve_with(files, tmp_path / "data") as server:
        assert "is for another name" in _refusal(f"https://{server.grpc}", server.api_key, str(files.ca))
        assert not (server.data_dir / "config.toml").exists()
        assert "its certificate does not name 127.0.0.1" in server.log.read_text()


def test_a_certificate_of_a_ca_serves_and_the_config_file_trusts_just_it(tmp_path: Path) -> None:
    files = Authority().write(tmp_path / "tls", "localhost")
    with _serve_with(files, tmp_path / "data") as server:
        place = server.grpc.replace("127.0.0.1", "localhost")
        with tidemill.Client(server.api_key, target=f"https://{place}", ca_file=str(files.ca), timeout=60) as client:
            assert client.list_models()
        saved = read_config_file(server.data_dir / "config.toml")
        assert saved is not None
        assert (saved.target, saved.ca_file) == (place, str(files.certificate))
        with tidemill.Client(saved.api_key, target=saved.url, ca_file=saved.ca_file, timeout=60) as client:
            assert client.list_models()


def test_a_pair_that_cannot_be_used_stops_the_start_with_its_variable(tmp_path: Path) -> None:
    expired = Authority().write(tmp_path / "expired", *LOCAL, days=-1)
    command = [sys.executable, "-m", "tidemill_services", "serve", "--data-dir", str(tmp_path / "data")]
    command += ["--tls-certificate", str(expired.certificate), "--tls-key", str(expired.key)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"tidemill serve: TIDEMILL_TLS_CERTIFICATE is {expired.certificate}, which expired at" in done.stderr
    assert "Traceback" not in done.stderr


def test_silent_and_slow_handshakes_hold_up_neither_callers_nor_the_stop(tmp_path: Path) -> None:
    with server_process(tmp_path, "--tls-self-signed", "--stop-grace", "1") as server, ExitStack() as silent:
        for address in (server.grpc, server.http, server.admin):
            host, port = address.split(":")
            for number in range(20):
                opened = silent.enter_context(socket.create_connection((host, int(port)), timeout=60))
                opened.sendall(b"\x16\x03\x01\x02\x00"[: number % 6])  # the beginning of a greeting, or nothing
        ca_file = str(tmp_path / "tls" / "certificate.pem")
        with tidemill.Client(server.api_key, target=server.grpc, ca_file=ca_file, timeout=60) as client:
            assert client.list_models()
        assert speaks_tls("127.0.0.1", int(server.http.rpartition(":")[2]))
        assert server.terminate() == 0
