"""`serve` as a command: what it writes, and what it refuses with a sentence."""

import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.databases import migrate
from tests.ports import kept_port
from tests.server_process import server_process
from tidemill_services.cli import application


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidemill_services", "serve", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_key_and_config_file_are_their_owners_alone_and_survive_a_restart_and_a_second_server_is_refused(
    tmp_path: Path,
) -> None:
    with kept_port() as port, server_process(tmp_path, "--port", str(port)) as server:
        first = server.api_key
        for name in ("api_key", "config.toml", "secret", "tidemill.db"):
            assert (tmp_path / name).stat().st_mode & 0o077 == 0, name
        server.terminate()
        with server_process(tmp_path) as restarted:
            assert restarted.api_key == first
            assert first in (tmp_path / "config.toml").read_text()
            assert restarted.grpc in (tmp_path / "config.toml").read_text()
            second = serve("--data-dir", str(tmp_path), "--port", "0", "--http-port", "0", "--admin-port", "0")
    assert second.returncode == 1
    assert "tidemill serve: " in second.stderr
    assert str(tmp_path / "tidemill.db") in second.stderr
    assert "Traceback" not in second.stderr


def test_a_start_without_the_secret_of_before_says_how_many_keys_do_not_work(tmp_path: Path) -> None:
    said = "made under another secret than the platform's: 1."
    with server_process(tmp_path, "--replica-spares", "0") as server:
        first = server.api_key
        assert said not in server.log.read_text()
    (tmp_path / "secret").unlink()
    with server_process(tmp_path, "--replica-spares", "0") as server:
        assert server.api_key != first
        assert said in server.log.read_text()


@pytest.mark.parametrize("option", ["--port", "--http-port", "--admin-port"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--port": "0", "--http-port": "0", "--admin-port": "0", option: str(port)}
        refused = serve("--data-dir", str(tmp_path), *(part for pair in ports.items() for part in pair))
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_two_ports_that_are_the_same_are_refused_by_their_number(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    refused = serve("--data-dir", str(tmp_path), "--port", "0", "--http-port", port, "--admin-port", port)
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("grace", ["nan", "inf", "-0.9"])
def test_a_grace_that_is_no_time_is_a_usage_error(tmp_path: Path, grace: str) -> None:
    refused = CliRunner().invoke(application, ["serve", "--data-dir", str(tmp_path), f"--stop-grace={grace}"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "stop_grace" in refused.stderr


def test_a_store_that_fails_while_the_server_starts_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "tidemill.db"
    migrate(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as database:
        (page_size,) = database.execute("PRAGMA page_size").fetchone()
        pages = database.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'models'").fetchall()
    with path.open("r+b") as file:
        for (page,) in pages:
            file.seek((page - 1) * page_size)
            file.write(b"\xff" * page_size)
    refused = serve("--data-dir", str(tmp_path), "--port", "0", "--http-port", "0", "--admin-port", "0")
    assert refused.returncode == 1
    assert "tidemill serve: The database file is damaged" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_admin_port_listens_where_it_is_told_and_else_on_loopback(tmp_path: Path) -> None:
    everywhere = ("--host", "0.0.0.0", "--allow-plaintext")
    with server_process(tmp_path, *everywhere) as server:
        assert server.grpc.startswith("0.0.0.0:")
        assert server.http.startswith("0.0.0.0:")
        assert server.admin.startswith("127.0.0.1:")
    with server_process(tmp_path, *everywhere, "--admin-host", "0.0.0.0") as server:
        assert server.admin.startswith("0.0.0.0:")


@pytest.mark.parametrize("tls", [(), ("--tls-self-signed",)], ids=["plain", "tls"])
def test_a_server_that_the_cli_cannot_find_says_what_to_type_instead(tmp_path: Path, tls: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("no folder")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    environ["TIDEMILL_CONFIG"] = str(tmp_path / "file" / "config.toml")
    ports = ("--port", "0", "--http-port", "0", "--admin-port", "0", "--replica-spares", "0")
    command = [sys.executable, "-m", "tidemill_services", "serve", "--data-dir", str(tmp_path / "data"), *ports, *tls]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ
    ) as process:
        try:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(4)]
            told, question = said[1].strip().removeprefix("Ask it from another terminal: ").split("; ")
            assert question == "tidemill complete 'What does Tidemill do?'"
            environ |= {"TIDEMILL_CONFIG": str(tmp_path / "none.toml"), "PYTHON": sys.executable}
            listed = subprocess.run(
                ["sh", "-ec", f'{told}; "$PYTHON" -m tidemill model list'],
                capture_output=True, text=True, env=environ, timeout=60, check=False,
            )  # fmt: skip
            assert "tide-nano" in listed.stdout, listed.stderr
            assert f"{'https' if tls else 'http'}://127.0.0.1:" in said[2]
            assert "/v1," in said[2]
            assert said[3] == "Ctrl-C drains and stops.\n"
        finally:
            process.terminate()
            process.wait(60)


def test_a_wrong_setting_is_a_usage_error_with_its_name(tmp_path: Path) -> None:
    refused = CliRunner().invoke(application, ["serve", "--data-dir", str(tmp_path)], env={"TIDEMILL_PORT": "many"})
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "TIDEMILL_PORT" in refused.stderr


def test_a_broken_model_package_is_refused_by_its_file(tmp_path: Path) -> None:
    package = tmp_path / "models" / "broken"
    package.mkdir(parents=True)
    (package / "model.toml").write_text("format = 1\n")
    refused = serve("--data-dir", str(tmp_path / "data"), "--models", str(package.parent), "--port", "0")
    assert refused.returncode == 1
    assert str(package) in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_home_that_cannot_be_written_to_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with server_process(tmp_path / "data", TIDEMILL_CONFIG=str(tmp_path / "file" / "config.toml")) as server:
        assert "will not find this server" in server.log.read_text()


def test_the_config_file_goes_on_leading_to_a_server_that_answers(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    with (
        kept_port() as port,
        server_process(tmp_path / "one", "--port", str(port), TIDEMILL_CONFIG=str(config)) as first,
    ):
        with server_process(tmp_path / "two", TIDEMILL_CONFIG=str(config)) as second:
            assert first.grpc in config.read_text()
            assert f"TIDEMILL_TARGET={second.grpc}" in second.log.read_text()
        first.terminate()
        with server_process(tmp_path / "two", TIDEMILL_CONFIG=str(config)) as third:
            assert third.grpc in config.read_text()
