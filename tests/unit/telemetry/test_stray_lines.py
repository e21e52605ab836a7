"""What is written past the log, in a process of its own."""

import json
import subprocess
import sys
import textwrap

SET_UP = """
import ctypes, os, subprocess, sys
from tidemill_telemetry.logs import log_to_stderr
from tidemill_telemetry import stray_lines
stray_lines.LAST_WORDS_SECONDS = 60
log_to_stderr("json", "info", stray_lines.take_over_stderr())
"""


def run(program: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", SET_UP + textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_lines_of_libraries_and_of_children_are_lines_of_the_log() -> None:
    done = run(
        """
        os.write(2, b"E0000 from C\\n")
        subprocess.run([sys.executable, "-c", "import sys; sys.exit('from a child')"])
        print("from Python", file=sys.stderr)
        os.write(2, b"no end of line")
        """
    )
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["E0000 from C", "from a child", "from Python", "no end of line"]
    assert {(line["level"], line["logger"]) for line in lines} == {("warning", "tidemill.stderr")}


def test_an_error_that_nobody_caught_is_a_line() -> None:
    done = run("raise ValueError('too much')")
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["level"], line["message"]) == ("critical", "nobody caught ValueError: too much")
    assert "Traceback" in line["exception"]


def test_a_crash_is_told_as_it_comes() -> None:
    done = run("ctypes.string_at(0)")
    assert done.returncode < 0
    assert "Fatal Python error: Segmentation fault" in done.stderr
