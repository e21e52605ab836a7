"""The built wheel in an empty virtual environment, outside any checkout."""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(*command: object, cwd: Path, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "PYTHON"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expect, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, cwd=folder)
    (built,) = folder.glob("tidemill-*.whl")
    return built


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder)
    return folder / "bin"


def install(environment: Path, what: str) -> None:
    # Nearly all that compiling would take goes into modules that no test imports.
    run(*PIP, "--python", environment / "python", "install", "--quiet", "--no-compile", what, cwd=environment.parent)


@pytest.fixture(scope="module")
def base(empty_environment: Path, wheel: Path) -> Path:
    install(empty_environment, str(wheel))
    return empty_environment


def test_the_base_install_has_the_client_and_the_stubs_and_no_server(base: Path, tmp_path: Path) -> None:
    program = (
        "import tidemill, tidemill.v1.session_pb2, tidemill.v1.inference_pb2_grpc, importlib.util\n"
        "assert tidemill.Client and tidemill.AsyncClient and tidemill.OneLine\n"
        "assert importlib.util.find_spec('onnxruntime') is None\n"
        "assert importlib.util.find_spec('sqlalchemy') is None\n"
    )
    run(base / "python", "-W", "error", "-c", program, cwd=tmp_path)


def test_the_base_install_says_which_extra_serve_needs(base: Path, tmp_path: Path) -> None:
    assert "serve" in run(base / "tidemill", "--help", cwd=tmp_path).stdout
    refused = run(base / "tidemill", "serve", cwd=tmp_path, expect=3)
    assert "tidemill[cpu]" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_base_install_has_a_doctor_that_says_what_a_server_lacks(base: Path, tmp_path: Path) -> None:
    told = run(base / "tidemill", "doctor", "--data-dir", tmp_path / "data", cwd=tmp_path, expect=1)
    assert "onnxruntime is not installed" in told.stdout
    assert "sqlalchemy is not installed: run `pip install 'tidemill[cpu]'`." in told.stdout
    assert told.stderr == ""


@pytest.fixture(scope="module")
def serving(base: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    install(base, f"{wheel}[cpu]")
    folder = tmp_path_factory.mktemp("serving")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "PYTHON"))}
    command = [base / "tidemill", "serve", "--json", "--port", "0", "--http-port", "0", "--admin-port", "0"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", folder / "data"],
            cwd=folder,
            env={**clean, "TIDEMILL_CONFIG": str(folder / "config.toml")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "log").read_text()
        yield {**json.loads(line), "config": str(folder / "config.toml")}
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()


def test_the_installed_server_serves_the_demo_model(base: Path, serving: dict[str, str], tmp_path: Path) -> None:
    key = Path(serving["api_key_file"]).read_text().strip()
    access = {"TIDEMILL_TARGET": serving["grpc"], "TIDEMILL_API_KEY": key}
    tidemill = base / "tidemill"
    run(tidemill, "session", "start", "--model", "tide-nano", "--json", cwd=tmp_path, **access)
    asked = ("What is Tidemill?", "--model", "tide-nano", "--max-tokens", "32", "--temperature", "0", "--json")
    answer = json.loads(run(tidemill, "complete", *asked, cwd=tmp_path, **access).stdout)
    assert answer["text"]
    assert answer["finish_reason"] in ("stop", "length")
    assert 1 <= answer["usage"]["completion_tokens"] <= 32
    bill = json.loads(run(tidemill, "session", "stop", "--model", "tide-nano", "--json", cwd=tmp_path, **access).stdout)
    assert bill["billed_seconds"] >= 1
    assert bill["cost_microcredits"] > 0


def test_the_config_file_of_the_server_is_enough_for_its_own_user(
    base: Path, serving: dict[str, str], tmp_path: Path
) -> None:
    assert Path(serving["config"]).stat().st_mode & 0o777 == 0o600
    listed = run(base / "tidemill", "model", "list", "--json", cwd=tmp_path, TIDEMILL_CONFIG=serving["config"])
    assert "tide-nano" in listed.stdout
