"""`doctor` as a command, on data directories of real servers."""

import json
import os
import subprocess
import sys
from inspect import signature
from pathlib import Path

from typer.testing import CliRunner

from tests.databases import PostgresServer, postgres_server
from tests.server_process import MODELS, server_process
from tidemill_services.cli import application, serve
from tidemill_services.doctor.command import doctor as doctor_command

__all__ = ["postgres_server"]


def doctor(data_dir: Path, *arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit code, and the findings by level."""
    command = [sys.executable, "-m", "tidemill_services", "doctor", "--json", "--data-dir", str(data_dir), *arguments]
    environ = {**os.environ, "TIDEMILL_CONFIG": str(data_dir / "config.toml")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    levels: dict[str, list[dict[str, str]]] = {"ok": [], "warning": [], "wrong": []}
    for line in done.stdout.splitlines():
        finding = json.loads(line)
        assert finding["sentence"].endswith("."), finding
        levels[finding["level"]].append(finding)
    return done.returncode, levels


def test_the_doctor_takes_every_option_of_the_server() -> None:
    assert signature(serve).parameters.keys() == signature(doctor_command).parameters.keys()


FREE = ("--port", "0", "--http-port", "0", "--admin-port", "0")


def test_the_data_of_a_server_that_runs_and_then_stopped_is_healthy_and_untouched(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    with server_process(data_dir) as server:
        places = ("--port", server.grpc, "--http-port", server.http, "--admin-port", server.admin)
        ports = [place.rpartition(":")[2] for place in places]
        code, found = doctor(data_dir, *ports, "--models", str(MODELS))
        assert (code, found["wrong"]) == (0, [])
        said = " ".join(finding["sentence"] for finding in found["ok"])
        assert f"process {server.process.pid}" in said
        for address in (server.grpc, server.http, server.admin):
            assert f"A Tidemill answers on {address}" in said
        assert f"leads to {server.grpc}, which answers" in said
        assert "tiny-llama" in said
        assert [found for found in found["ok"] if found["subject"] == "spares"] == [
            {
                "level": "ok",
                "subject": "spares",
                "sentence": "The server keeps none: the first second of each start goes into imports.",
            }
        ]
        assert server.terminate() == 0
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data_dir.rglob("*")}
    code, found = doctor(data_dir, *FREE)
    assert (code, found["wrong"]) == (0, [])
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data_dir.rglob("*")} == before


def test_a_server_with_tls_is_known_by_its_certificate_and_another_idea_of_it_is_told(tmp_path: Path) -> None:
    with server_process(tmp_path, "--tls-self-signed") as server:
        tmp_path.chmod(0o700)
        places = ("--port", server.grpc, "--http-port", server.http, "--admin-port", server.admin)
        ports = [place.rpartition(":")[2] for place in places]
        code, found = doctor(tmp_path, *ports, "--tls-self-signed")
        assert (code, found["wrong"]) == (0, [])
        said = " ".join(finding["sentence"] for finding in found["ok"])
        for address in (server.grpc, server.http, server.admin):
            assert f"A Tidemill answers on {address}" in said
        assert f"leads to {server.grpc}, which answers" in said
        assert f"{tmp_path / 'tls' / 'certificate.pem'} is for 127.0.0.1, ::1, " in said
        code, found = doctor(tmp_path, *ports)
        assert code == 1
        for finding in found["wrong"]:
            assert "is held by a server that speaks TLS: give the doctor its settings" in finding["sentence"]
        assert {finding["subject"] for finding in found["wrong"]} == {"--port", "--http-port", "--admin-port"}


def test_a_sick_data_directory_is_told_in_sentences_and_the_command_fails(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    (data_dir / "models" / "broken").mkdir(parents=True, mode=0o700)
    data_dir.chmod(0o777)
    (data_dir / "models" / "broken" / "model.toml").write_text("format = 99\n")
    (data_dir / "secret").write_bytes(b"too short")
    (data_dir / "secret").chmod(0o644)
    (data_dir / "tidemill.db").write_bytes(b"no database " * 400)
    (data_dir / "config.toml").write_text('target = "127.0.0.1:1"\napi_key = "key"\n')
    (data_dir / "config.toml").chmod(0o644)
    code, found = doctor(data_dir, *FREE)
    assert code == 1
    subjects = {finding["subject"] for finding in found["wrong"]}
    assert subjects >= {"data directory", "secret", "database", "models", "CLI config"}


def test_a_postgres_that_answers_is_right_and_its_version_is_told(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    code, found = doctor(tmp_path / "data", *FREE, "--database", postgres_server.url)
    assert (code, found["wrong"]) == (0, [])
    (said,) = [finding["sentence"] for finding in found["ok"] if finding["subject"] == "database"]
    assert "answers: PostgreSQL " in said
    (schema,) = [finding["sentence"] for finding in found["ok"] if finding["subject"] == "schema"]
    assert "no tables yet" in schema


def test_a_wrong_setting_is_named_as_serve_names_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(application, ["doctor", "--models", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert done.stderr.startswith("tidemill doctor: models is ")


def test_without_the_servers_packages_it_runs_and_names_them(tmp_path: Path) -> None:
    """A program that finds none of them, as in a base install, where `tidemill doctor` loads the command alone."""
    program = (
        "import sys\n"
        "for name in ('onnxruntime', 'sqlalchemy', 'tokenizers', 'jinja2', 'numpy', 'starlette', 'uvloop', 'uvicorn',\n"
        "             'alembic', 'grpc_health', 'psycopg'): sys.modules[name] = None\n"
        "import typer\n"
        "from tidemill_services.doctor.command import doctor\n"
        "typer.run(doctor)\n"
    )
    command = [sys.executable, "-c", program, "--data-dir", str(tmp_path / "data"), *FREE]
    environ = {**os.environ, "TIDEMILL_CONFIG": str(tmp_path / "config.toml")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert "Packages cannot be checked without tokenizers: install it." in done.stdout
