"""Ctrl-C and closed pipes, as the processes of the CLI meet them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.unit.client.mill import KEY, Hold, Mill


@pytest.fixture
def mill() -> Iterator[Mill]:
    found = Mill()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def start(mill: Mill, tmp_path: Path):
    """Starts a command line of the CLI as a process of its own, and ends it when the test does."""
    started: list[subprocess.Popen[str]] = []
    environ = {**os.environ, "TIDEMILL_TARGET": mill.target, "TIDEMILL_API_KEY": KEY}

    def run(*arguments: str, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidemill", *arguments],
            stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environ, cwd=tmp_path,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_ctrl_c_in_mid_answer_cancels_it_stops_its_session_and_exits_with_130(mill: Mill, start) -> None:
    hold = Hold()
    mill.script("long", "some", hold, " more")
    process = start("complete", "long", "--raw")
    assert process.stdout.read(4) == "some"
    assert hold.reached.wait(60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert hold.abandoned.wait(60)
    assert mill.sessions["sessions/1"].bill.final
    assert errors == "sessions/1 of tide-nano cost 0.002100 credits for 3 seconds.\n"


def test_ctrl_c_in_a_chat_stops_the_answer_and_the_chat_goes_on(mill: Mill, start) -> None:
    hold = Hold()
    mill.script("user:long", "some", hold, " more")
    process = start("chat")
    process.stdin.write("long\n")
    process.stdin.flush()
    assert process.stdout.read(4) == "some"
    assert hold.reached.wait(60)
    process.send_signal(signal.SIGINT)
    assert hold.abandoned.wait(60)
    out, errors = process.communicate("next\n", timeout=60)
    assert process.returncode == 0
    assert "The answer was stopped." in errors
    assert out == "\nYou said: user:long|assistant:some|user:next\n"
    assert mill.sessions["sessions/1"].bill.final


def test_ctrl_c_ends_a_watch(mill: Mill, start) -> None:
    process = start("model", "watch")
    assert process.stdout.readline() == "tide-nano is stopped\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


def test_a_reader_that_went_away_ends_the_command_without_a_traceback(mill: Mill, start) -> None:
    hold = Hold()
    mill.script("long", "some", hold, " more")
    process = start("complete", "long", "--raw")
    assert process.stdout.read(4) == "some"
    process.stdout.close()
    hold.released.set()
    process.wait(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr.read()
    assert mill.sessions["sessions/1"].bill.final


@pytest.mark.parametrize(
    "arguments", [["complete", "hi", "--raw"], ["chat"], ["model", "list"], ["model", "list", "--json"]]
)
def test_a_full_disk_is_a_sentence_and_exit_code_1(mill: Mill, start, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(*arguments, stdout=full)
        _, errors = process.communicate("hi\n", timeout=60)
    assert process.returncode == 1
    assert "Error: standard output cannot be used: No space left on device." in errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert mill.open_session() is None


@pytest.mark.parametrize("arguments", [["complete", "-", "--raw"], ["chat"]])
def test_input_that_is_no_text_is_a_sentence(mill: Mill, start, arguments: list[str]) -> None:
    process = start(*arguments)
    process.stdin.buffer.write(b"\xff\xfe\n")
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert errors.startswith("Error: Standard input is not UTF-8 text")
    assert mill.requests["Generate"] == []


def test_a_whole_answer_that_is_waited_for_is_cancelled_by_ctrl_c(mill: Mill) -> None:
    mill.needs_session = False
    hold = Hold()
    mill.script("long", "some", hold, " more")
    script = (
        "import tidemill\n"
        "from tidemill.plans import following\n"
        "following.FAREWELL_TIMEOUT = 60\n"
        f"client = tidemill.Client({KEY!r}, target={mill.target!r})\n"
        "try:\n"
        "    client.complete_prompt('long', stream=False)\n"
        "except KeyboardInterrupt:\n"
        "    client.close()\n"
        "    print('interrupted')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert hold.reached.wait(60)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("interrupted\n", 0)
    assert hold.abandoned.wait(60)
    assert [one.request_id for one in mill.requests["CancelGeneration"]] == [mill.requests["Complete"][0].request_id]


def test_a_blocking_stream_is_cancelled_by_ctrl_c(mill: Mill) -> None:
    mill.needs_session = False
    hold = Hold()
    mill.script("long", "some", hold, " more")
    script = (
        "import sys, tidemill\n"
        f"client = tidemill.Client({KEY!r}, target={mill.target!r})\n"
        "try:\n"
        "    for text in client.complete_prompt('long'):\n"
        "        print(text, flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    print(client.model_is_running())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "some\n"
    assert hold.reached.wait(60)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("False\n", 0)
    assert hold.abandoned.wait(60)
