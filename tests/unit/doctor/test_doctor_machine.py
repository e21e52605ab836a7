"""Ports, clock, limits, variables, packages of models and the CLI's file."""

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.ports import kept_port
from tidemill_models.package import bundled_packages
from tidemill_services.doctor import ports
from tidemill_services.doctor import spares as spares_module
from tidemill_services.doctor.cli_config import check_cli_config
from tidemill_services.doctor.clock import check_clock, check_time_zone
from tidemill_services.doctor.finding import Level
from tidemill_services.doctor.handshake import Trusted
from tidemill_services.doctor.models import check_models
from tidemill_services.doctor.ports import Port, check_port
from tidemill_services.doctor.process import check_file_limit, check_grpc_variables
from tidemill_services.doctor.spares import SparesNow, ask_spares, check_spares

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


@contextmanager
def http_server(body: bytes) -> Iterator[int]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_free_port_is_right_and_stays_free() -> None:
    with kept_port() as number:
        assert check_port(Port("port", "127.0.0.1", number), runs_here=False).level is Level.OK
        socket.create_server(("127.0.0.1", number)).close()
    assert check_port(Port("http_port", "127.0.0.1", 0), runs_here=False).level is Level.OK


@pytest.mark.parametrize("setting", ["port", "http_port", "admin_port"])
def test_a_port_that_another_program_holds_is_wrong(setting: str) -> None:
    with http_server(b"hello") as number:
        found = check_port(Port(setting, "127.0.0.1", number), runs_here=True)  # type: ignore[arg-type]
    assert found.level is Level.WRONG
    assert f"127.0.0.1:{number} is held by another program" in found.sentence
    assert f"--{setting.replace('_', '-')}" in found.sentence


def test_a_port_whose_holder_never_answers_is_wrong() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = Port("http_port", "127.0.0.1", silent.getsockname()[1])
        assert check_port(port, runs_here=True).level is Level.WRONG


def test_a_tidemill_is_right_where_it_has_this_data_and_else_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_ANSWER_SECONDS", 60.0)
    with http_server(b"ok\n") as number:
        port = Port("http_port", "127.0.0.1", number)
        assert check_port(port, runs_here=True).level is Level.OK
        assert check_port(port, runs_here=False).level is Level.WARNING


@pytest.mark.parametrize("setting", ["port", "http_port", "admin_port"])
def test_a_tidemill_without_tls_where_there_should_be_is_wrong(setting: str) -> None:
    trusted = Trusted(Authority().certificate_pem, "localhost")
    with http_server(b"ok\n") as number:
        found = check_port(Port(setting, "127.0.0.1", number, trusted), runs_here=True)  # type: ignore[arg-type]
    assert found.level is Level.WRONG
    assert "does not speak TLS, as these settings say it should" in found.sentence


def test_an_address_that_this_machine_does_not_have_is_wrong() -> None:
    found = check_port(Port("port", "203.0.113.7", 7400), runs_here=False)
    assert found.level is Level.WRONG


@pytest.mark.parametrize(
    ("high_water_ms", "level"),
    [(None, Level.OK), (NOW_MS - 1, Level.OK), (NOW_MS + 4_000, Level.OK), (NOW_MS + 7_200_000, Level.WARNING)],
)
def test_a_clock_behind_the_database_is_a_warning(high_water_ms: int | None, level: Level) -> None:
    found = check_clock(NOW, high_water_ms)
    assert found.level is level
    assert ("2:00:00 behind" in found.sentence) == (level is Level.WARNING)


def test_a_clock_that_was_never_set_is_wrong() -> None:
    assert check_clock(datetime(1970, 1, 1, tzinfo=UTC), None).level is Level.WRONG


@pytest.mark.parametrize(
    ("zone", "level"),
    [
        ("", Level.OK),
        ("Europe/Berlin", Level.OK),
        (":UTC", Level.OK),
        ("CET-1CEST", Level.OK),
        ("Europe/Atlantis", Level.WARNING),
    ],
)
def test_a_time_zone_that_nobody_knows_is_a_warning(zone: str, level: Level) -> None:
    assert check_time_zone({"TZ": zone}).level is level


@pytest.mark.parametrize(
    ("limit", "level"), [(64, Level.WRONG), (256, Level.WARNING), (1024, Level.OK), (-1, Level.OK)]
)
def test_few_open_files_are_told(limit: int, level: Level) -> None:
    assert check_file_limit(limit).level is level


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, Level.OK),
        ({"GRPC_VERBOSITY": "ERROR"}, Level.OK),
        ({"GRPC_TRACE": "all"}, Level.WARNING),
        ({"GRPC_VERBOSITY": "debug"}, Level.WARNING),
        ({"GRPC_ENABLE_FORK_SUPPORT": "1"}, Level.WARNING),
    ],
)
def test_variables_that_harm_grpc_are_told(environ: dict[str, str], level: Level) -> None:
    assert check_grpc_variables(environ).level is level


def test_bundled_packages_are_whole() -> None:
    assert {found.level for found in check_models([])} == {Level.OK}


def test_a_changed_package_is_wrong_and_one_found_twice_a_warning(tmp_path: Path) -> None:
    original = bundled_packages()[0]
    copy = tmp_path / original.name
    shutil.copytree(original, copy)
    assert Level.WARNING in {found.level for found in check_models([tmp_path])}
    template = copy / "chat.jinja"
    template.write_text(template.read_text().swapcase())
    assert any("was changed" in found.sentence for found in check_models([tmp_path]) if found.level is Level.WRONG)


def test_large_packages_are_opened_and_not_read(tmp_path: Path) -> None:
    found = check_models([tmp_path], max_read_bytes=1000)
    assert {finding.level for finding in found} == {Level.OK}
    assert "a replica checks their content" in found[0].sentence


@pytest.fixture
def free_port() -> Iterator[int]:
    with kept_port() as number:
        yield number


def test_the_clis_file_is_judged_as_the_client_reads_it(tmp_path: Path, free_port: int) -> None:
    path = tmp_path / "config.toml"
    own = f"127.0.0.1:{free_port}"
    assert check_cli_config(path, own).level is Level.OK
    path.write_text(f'target = "{own}"\napi_key = "key"\n')
    path.chmod(0o644)
    found = check_cli_config(path, own)
    assert found.level is Level.WRONG
    assert f"chmod 600 {path}" in found.sentence
    path.chmod(0o600)
    assert check_cli_config(path, own).level is Level.OK
    assert check_cli_config(path, "127.0.0.1:7400").level is Level.WARNING
    with socket.create_server(("127.0.0.1", free_port)):
        assert "which answers" in check_cli_config(path, "127.0.0.1:7400").sentence


@pytest.mark.parametrize(
    ("wanted", "now", "level", "sentence"),
    [
        (2, None, Level.OK, "A server keeps 2, each for one start."),
        (0, None, Level.OK, "A server keeps none."),
        (1, SparesNow(0, 0), Level.OK, "The server keeps none: the first second of each start goes into imports."),
        (1, SparesNow(2, 1), Level.OK, "1 of 2 ready."),
        (1, SparesNow(1, 1, "noon: It died."), Level.OK, "1 of 1 ready. One failed at noon: It died."),
        (
            1,
            SparesNow(1, 0, "noon: It died."),
            Level.WARNING,
            (
                "0 of 1 ready. One failed at noon: It died. Replicas start without one, a second later; "
                "the server's log says more."
            ),
        ),
    ],
)
def test_spares_are_told_of_as_the_running_server_has_them(
    wanted: int, now: SparesNow | None, level: Level, sentence: str
) -> None:
    finding = check_spares(wanted, now)
    assert (finding.level, finding.sentence) == (level, sentence)


@pytest.mark.parametrize(
    "page", [b"", b"Not Found", b"[]", b'{"wanted": 1}', b'{"wanted":1,"ready":1,"last_failure":3}']
)
def test_a_page_that_does_not_tell_of_spares_says_nothing(page: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares_module, "read_page", lambda _port, _path, num_bytes: page)
    assert ask_spares(Port("admin_port", "127.0.0.1", 1)) is None
