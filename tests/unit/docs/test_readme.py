"""What README tells people to type must exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tidemill
from tidemill.cli.app import app

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(f"{program} ")]
    return [shlex.split(line, comments=True) for line in lines]


def test_every_make_command_is_a_target_that_help_lists() -> None:
    targets = dict(re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for words in commands("make")} | set(re.findall(r"`make ([a-z]+)`", README))
    assert {"run", "test", "demo", "help", "check", "bench"} <= named
    assert named <= set(targets)


@pytest.mark.parametrize("words", commands("tidemill"), ids=" ".join)
def test_every_command_and_option_of_the_command_line_exists(words: list[str]) -> None:
    path = [word for word in words[1:3] if re.fullmatch(r"[a-z]+", word)]
    asked = CliRunner().invoke(app, [*path, "--help"], prog_name="tidemill")
    assert asked.exit_code == 0, asked.output
    for option in (word for word in words if word.startswith("--")):
        assert option in asked.stdout, option


def test_the_python_lines_use_only_names_that_are_there() -> None:
    (program,) = blocks("python")
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = {"tidemill": tidemill, "client": tidemill.Client}[node.value.id]
            assert hasattr(owner, node.attr), node.attr
