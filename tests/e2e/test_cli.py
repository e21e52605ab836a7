"""The CLI and the client library against a real `tidemill serve`."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

import tidemill
from tidemill.cli.local_server import Addresses, LocalServer, ServerDiedError, started

MODELS = Path(__file__).parent.parent / "models"
MODEL = "tiny-llama"
SERVES = "The platform serves until Ctrl-C. In a second terminal:\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Addresses]:
    server = LocalServer(
        folder / "data", (0, 0, 0), config_path=folder / "config.toml", arguments=["--models", str(MODELS)]
    )
    with server:
        yield server.wait_until_ready()


@pytest.fixture
def client(served: Addresses) -> Iterator[tidemill.Client]:
    with tidemill.Client(served.read_key(), target=served.grpc, model=MODEL, timeout=60) as found:
        yield found
        found.stop_session(all_holders=True)


@pytest.fixture
def run(served: Addresses, folder: Path):
    """Runs a command line; key and target come from the file that the server wrote."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    environ["TIDEMILL_CONFIG"] = str(folder / "config.toml")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "tidemill", *arguments]
        return subprocess.run(line, capture_output=True, text=True, env=environ, timeout=100, check=False)

    return command


def test_the_server_writes_a_config_file_that_the_client_accepts(served: Addresses, folder: Path) -> None:
    written = tomllib.loads((folder / "config.toml").read_text())
    assert (written["target"], written["api_key"]) == (served.grpc, served.read_key())
    assert (folder / "config.toml").stat().st_mode & 0o777 == 0o600


def test_one_prompt_goes_through_the_whole_wire_and_its_session_is_billed(run) -> None:
    started = run("model", "start", MODEL, "--wait", "--json")
    assert json.loads(started.stdout)["state"] == "ready", started.stderr
    session = json.loads(run("session", "start", "--model", MODEL, "--json").stdout)
    assert session["model"] == f"models/{MODEL}"
    arguments = ["complete", "The tide", "--model", MODEL, "--max-tokens", "8", "--temperature", "0", "--json"]
    answers = [json.loads(run(*arguments).stdout) for _ in range(2)]
    assert answers[0]["text"] == answers[1]["text"]
    assert answers[0]["finish_reason"] in {"length", "stop"}
    assert 0 < answers[0]["usage"]["completion_tokens"] <= 8
    bill = json.loads(run("session", "stop", "--model", MODEL, "--json").stdout)
    assert bill["final"] is True
    assert bill["billed_seconds"] >= 1
    assert bill["cost_microcredits"] == bill["billed_seconds"] * bill["price_microcredits_per_second"]
    assert json.loads(run("session", "stop", "--model", MODEL, "--json").stdout) == bill


def test_several_answers_that_begin_with_their_prompt_have_seeds_of_their_own(run) -> None:
    asked = ["complete", "The tide", "--model", MODEL, "--raw", "--echo", "--exact", "--max-tokens", "6", "--json"]
    chosen = [*asked, "--temperature", "1.5", "--seed", "7"]
    ran = run(*chosen, "--n", "3")
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [answer["index"] for answer in answers] == [0, 1, 2], ran.stderr
    assert "cost" in ran.stderr
    assert all(answer["text"].startswith("The tide") for answer in answers)
    assert len({answer["text"] for answer in answers}) == 3
    assert [answer["usage"]["prompt_tokens"] > 0 for answer in answers] == [True, False, False]
    assert json.loads(run(*chosen).stdout)["text"] == answers[0]["text"]


def test_log_probabilities_are_printed_with_each_answer(run) -> None:
    asked = ["complete", "The tide", "--model", MODEL, "--raw", "--max-tokens", "3", "--ignore-eos", "--json"]
    for more in ([], ["--n", "2"]):
        answers = [json.loads(line) for line in run(*asked, "--logprobs", "2", *more).stdout.splitlines()]
        assert all([len(one["top"]) for one in answer["logprobs"]] == [2, 2, 2] for answer in answers)


def test_complete_pays_for_itself_when_no_session_is_open(run) -> None:
    done = run("complete", "The tide", "--model", MODEL, "--max-tokens", "4")
    assert done.returncode == 0
    assert " cost " in done.stderr
    assert run("session", "list", "--open", "--json").stdout == ""
    refused = run("complete", "The tide", "--model", MODEL, "--no-session", "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stderr)["error"]["reason"] == "NO_SESSION"


def test_a_stream_gives_the_same_text_as_no_stream(client: tidemill.Client) -> None:
    client.start_session()
    client.wait_until_model_running()
    stream = client.complete_prompt("The tide", 16, 0.0)
    assert "".join(stream) == client.complete_prompt("The tide", 16, 0.0, stream=False)
    assert stream.usage is not None
    assert stream.usage.completion_tokens <= 16
    texts = client.complete_prompt(["The tide", "A mill"], 16, 0.0, stream=False)
    assert texts[0] == stream.text
    chat = [{"role": "user", "content": "Hello"}]
    assert client.complete_chat(chat, max_tokens=4, temperature=0, stream=False) == "".join(
        client.complete_chat(chat, max_tokens=4, temperature=0)
    )


def test_32_threads_share_one_client_and_one_session(client: tidemill.Client) -> None:
    with client.session() as session:
        with ThreadPoolExecutor(32) as threads:
            texts = list(threads.map(lambda _: client.complete_prompt("The tide", 6, 0.0, stream=False), range(64)))
        assert len(set(texts)) == 1
    assert session.bill.final


async def test_the_asyncio_client_speaks_to_the_same_server(served: Addresses) -> None:
    async with (
        tidemill.AsyncClient(served.read_key(), target=served.grpc, model=MODEL, timeout=60) as client,
        client.session() as session,
    ):
        texts = await asyncio.gather(*(client.complete_prompt("The tide", 6, 0.0, stream=False) for _ in range(8)))
        assert len(set(texts)) == 1
    assert session.bill.final


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (tidemill.PromptEmptyError, lambda client: client.complete("")),
        (tidemill.PromptEmptyError, lambda client: client.complete_chat([], stream=False)),
        (tidemill.ContextExceededError, lambda client: client.complete("tide " * 3_000)),
        (tidemill.FieldInvalidError, lambda client: client.complete("x", temperature=9)),
        (tidemill.FieldInvalidError, lambda client: client.complete("x", top_p=0)),
        (tidemill.FieldInvalidError, lambda client: client.complete("x", max_tokens=0)),
        (tidemill.RoleUnknownError, lambda client: client.complete([{"role": "pirate", "content": "x"}])),
        (
            tidemill.ChatTemplateRefusedError,
            lambda client: client.complete_chat([{"role": "user", "content": "x"}], template_type="no", stream=False),
        ),
        (tidemill.ModelNotFoundError, lambda client: client.complete("x", model="spring-tide")),
        (tidemill.ModelNotFoundError, lambda client: client.start_session("spring-tide")),
        (tidemill.SessionNotFoundError, lambda client: client.get_session("sessions/none")),
        (tidemill.ModelRequiredError, lambda client: client.complete("x", model="")),
    ],
)
def test_bad_input_gets_its_own_typed_error(client: tidemill.Client, error: type, call) -> None:
    client.start_session()
    with pytest.raises(error) as caught:
        call(client)
    assert type(caught.value) is error


def test_a_generation_without_a_session_and_a_wrong_key_are_typed(served: Addresses, client: tidemill.Client) -> None:
    with pytest.raises(tidemill.NoSessionError):
        client.complete("x")
    with tidemill.Client("tm_wrong", target=served.grpc) as stranger, pytest.raises(tidemill.ApiKeyInvalidError):
        stranger.list_models()


def test_the_demo_answers_shows_its_bill_and_stops_everything(tmp_path: Path) -> None:
    environ = {**os.environ, "TIDEMILL_CONFIG": str(tmp_path / "user.toml")}
    line = [
        sys.executable,
        "-m",
        "tidemill",
        "demo",
        "--model",
        MODEL,
        "--models",
        str(MODELS),
        "--data-dir",
        str(tmp_path),
    ]
    done = subprocess.run(line, capture_output=True, text=True, env=environ, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{MODEL}: ready" in done.stderr
    assert " tokens, the first after " in done.stderr
    assert " cost " in done.stderr
    assert len(done.stdout.splitlines()) >= 2
    assert not (tmp_path / "user.toml").exists()


def test_a_demo_that_stays_serves_until_ctrl_c_and_then_leaves_nothing_also_with_tls(tmp_path: Path) -> None:
    environ = {**os.environ, "TIDEMILL_CONFIG": str(tmp_path / "user.toml"), "TIDEMILL_TLS_SELF_SIGNED": "true"}
    arguments = ["--stay", "--model", MODEL, "--models", str(MODELS), "--data-dir", str(tmp_path / "data")]
    line = [sys.executable, "-m", "tidemill", "demo", *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as demo:
        try:
            said = list(iter(demo.stderr.readline, "The platform serves until Ctrl-C. In a second terminal:\n"))
            assert any(" cost " in sentence for sentence in said)
            second = [sys.executable, "-m", "tidemill", "model", "status", MODEL]
            asked = subprocess.run(second, capture_output=True, text=True, env=environ, timeout=60, check=False)
            assert asked.stdout == f"{MODEL} is ready (1 replica)\n"
            assert 'target = "https://' in (tmp_path / "user.toml").read_text()
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=60)
            assert demo.returncode == 0
        finally:
            demo.kill()
    gone = subprocess.run(second, capture_output=True, text=True, env=environ, timeout=60, check=False)
    assert gone.returncode == 4


def test_a_demo_beside_a_server_that_answers_prints_what_a_second_terminal_needs(
    tmp_path: Path, served: Addresses, folder: Path
) -> None:
    kept = (folder / "config.toml").read_text()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    environ |= {"TIDEMILL_CONFIG": str(folder / "config.toml"), "PATH": "/usr/bin:/bin"}
    arguments = ["--stay", "--model", MODEL, "--models", str(MODELS), "--data-dir", str(tmp_path / "data")]
    line = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "tidemill", "demo", *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as demo:
        try:
            before = _lines_until(demo.stderr, SERVES)
            assert before[-1:] == [SERVES], before
            said = [demo.stderr.readline() for _ in range(4)]
            second = subprocess.run(
                ["sh", "-ec", "".join([*said[:2], said[3]])],
                capture_output=True, text=True, env=environ, timeout=60, check=False,
            )  # fmt: skip
            assert second.returncode == 0, second.stderr
            assert said[0].split("=")[1].strip() != served.grpc
            assert " cost " in second.stderr
            assert " chat " in said[2]
            demo.send_signal(signal.SIGTERM)  # as Ctrl-C, which is ignored as behind a `&`
            demo.communicate(timeout=60)
            assert demo.returncode == 0
        finally:
            demo.kill()
    assert (folder / "config.toml").read_text() == kept


def test_a_port_that_somebody_took_after_we_looked_is_given_way_to(tmp_path: Path) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server, addresses = started(
            stack, tmp_path / "data", (port, 0, 0), config_path=tmp_path / "config.toml", arguments=[]
        )
        assert server.is_running
        assert addresses.grpc.rpartition(":")[2] != str(port)


def test_a_server_that_dies_for_another_reason_is_not_started_again(tmp_path: Path) -> None:
    arguments = ["--models", str(tmp_path / "nowhere")]
    with ExitStack() as stack, pytest.raises(ServerDiedError, match="nowhere"):
        started(stack, tmp_path / "data", (0, 0, 0), config_path=tmp_path / "config.toml", arguments=arguments)


def test_a_demo_that_is_killed_takes_its_server_along(tmp_path: Path) -> None:
    environ = {**os.environ, "TIDEMILL_CONFIG": str(tmp_path / "user.toml")}
    arguments = ["--stay", "--model", MODEL, "--models", str(MODELS), "--data-dir", str(tmp_path / "data")]
    line = [sys.executable, "-m", "tidemill", "demo", *arguments]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environ) as demo:
        assert _lines_until(demo.stderr, SERVES)[-1:] == [SERVES]
        demo.kill()
    target = tomllib.loads((tmp_path / "user.toml").read_text())["target"]
    assert _is_free_within(target, seconds=60)


def _lines_until(stream: IO[str], last: str) -> list[str]:
    """What a program says until that line, or its end."""
    lines: list[str] = []
    for line in iter(stream.readline, ""):
        lines.append(line)
        if line == last:
            break
    return lines


def _is_free_within(target: str, seconds: float) -> bool:
    host, _, port = target.rpartition(":")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) != 0:
                return True
        time.sleep(0.1)
    return False


def test_a_demo_whose_server_dies_shows_why_and_fails(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file, not a folder")
    line = [sys.executable, "-m", "tidemill", "demo", "--data-dir", str(tmp_path / "occupied")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "The server ended with status" in done.stderr
    assert "occupied" in done.stderr
