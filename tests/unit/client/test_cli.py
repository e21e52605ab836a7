"""The command `tidemill`, in this process, against a mill in memory."""

import json
import re
import shlex
from importlib.metadata import EntryPoint
from pathlib import Path

import grpc
import pytest
import typer

from tests.unit.client.mill import MODEL, PRICE, Mill, Refusal
from tidemill.cli import server_commands
from tidemill.v1 import model_pb2

COMMANDS = [
    ["complete"], ["chat"], ["demo"], ["serve"], ["session", "start"], ["session", "stop"], ["session", "list"],
    ["session", "show"], ["session", "update"], ["session", "watch"],
    ["model", "list"], ["model", "show"], ["model", "start"], ["model", "stop"],
    ["model", "status"], ["model", "watch"], ["account", "show"], ["account", "create"], ["account", "update"],
    ["account", "list"], ["account", "audit"], ["key", "create"], ["key", "list"], ["key", "show"], ["key", "update"],
    ["key", "rotate"], ["key", "revoke"], ["account", "grant"], ["account", "refund"], ["account", "correct"],
    ["account", "ledger"], ["usage"], ["prices"], ["prices", "set"], ["receipt", "get"], ["receipt", "verify"],
]  # fmt: skip


def test_help_names_every_command_and_the_exit_codes(tidemill) -> None:
    result = tidemill("--help")
    assert result.exit_code == 0
    for name in {command[0] for command in COMMANDS}:
        assert f" {name} " in result.stdout
    assert "130 interrupted" in result.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(tidemill, command: list[str]) -> None:
    result = tidemill(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


@pytest.mark.parametrize(
    ("command", "default"),
    [
        (["complete"], "[default: the key's open one]"),
        (["chat"], "[default: the model's]"),
        (["demo"], "[default: a folder that goes with it]"),
        (["serve"], "[default: 127.0.0.1]"),
        (["session", "stop"], "[default: the only open one, else the key's of --model]"),
        (["model", "start"], "[default: TIDEMILL_TARGET, the config file, 127.0.0.1:7400]"),
    ],
)
def test_help_says_the_defaults_and_nothing_of_types_where_there_is_a_flag(
    tidemill, command: list[str], default: str
) -> None:
    shown = tidemill(*command, "--help").stdout
    assert default in " ".join(shown.split())
    assert "<bool>" not in shown
    assert "[[" not in shown


def test_help_flows_over_the_line_ends_of_its_source(tidemill) -> None:
    shown = tidemill("complete", "--help").stdout
    paragraph = shown.split("Answer one prompt.\n\n")[1].split("\n\n")[0]
    assert paragraph.count("\n") == 1 + len(paragraph) // 118
    assert all(len(line) > 60 for line in paragraph.splitlines()[:-1])


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command[0] not in {"serve", "demo"}], ids=" ".join
)
def test_no_command_takes_a_key_as_an_argument(tidemill, command: list[str]) -> None:
    help_text = tidemill(*command, "--help").stdout
    assert "--api-key-env" in help_text
    assert "--api-key " not in help_text
    assert "--target" in help_text


def test_the_version_is_printed(tidemill) -> None:
    assert tidemill("--version").stdout.startswith("tidemill 0.")


def test_errors_with_json_are_json_on_standard_error(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "top_p is 7.", "options.sampling.top_p")
    mill.fail_next("Generate", refusal)
    result = tidemill("complete", "hi", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr) == {
        "error": {
            "reason": "FIELD_INVALID",
            "message": "top_p is 7.",
            "field": "options.sampling.top_p",
            "request_id": mill.requests["Generate"][-1].request_id,
        }
    }
    mill.fail_next("Generate", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_seconds=2))
    error = json.loads(tidemill("complete", "hi", "--json").stderr)["error"]
    assert (error["reason"], error["retry_after_seconds"]) == ("QUEUE_FULL", 2.0)


def test_a_server_that_does_not_answer_is_exit_code_4(tidemill, mill: Mill) -> None:
    mill.stop()
    result = tidemill("model", "list")
    assert result.exit_code == 4
    assert "tidemill serve" in result.stderr


def test_no_key_is_exit_code_1_with_the_places_to_put_one(tidemill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEMILL_API_KEY")
    result = tidemill("model", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "TIDEMILL_API_KEY" in result.stderr


def test_the_key_can_be_in_another_variable(tidemill, monkeypatch: pytest.MonkeyPatch, mill: Mill) -> None:
    monkeypatch.setenv("TEAM_KEY", "tm_team")
    assert tidemill("model", "list", "--api-key-env", "TEAM_KEY").exit_code == 1
    assert mill.metadata[-1]["authorization"] == "Bearer tm_team"


@pytest.mark.parametrize("arguments", [["complete"], ["model", "list", "--nonsense"], ["nonsense"], []])
def test_wrong_usage_is_exit_code_2(tidemill, arguments: list[str]) -> None:
    assert tidemill(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "field", "message"),
    [
        (["complete"], "prompt", "Missing argument"),
        (["complete", "hi", "--max-tokens", "many"], "max_tokens", "--max-tokens"),
        (["complete", "hi", "--nonsense"], "nonsense", "No such option"),
        (["complete", "hi", "--raw", "--system", "Be kind."], "system", "chat template"),
        (["session", "list", "--limit", "0"], "limit", "greater"),
        (["nonsense"], "", "No such command"),
    ],
)
def test_wrong_usage_with_json_is_json_on_standard_error(
    tidemill, arguments: list[str], field: str, message: str
) -> None:
    result = tidemill(*arguments, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    error = json.loads(result.stderr)["error"]
    assert (error["reason"], error["field"]) == ("USAGE", field)
    assert message in error["message"]


def test_session_start_and_stop_print_json(tidemill) -> None:
    started = json.loads(tidemill("session", "start", "--model", "tide-nano", "--json").stdout)
    assert (started["name"], started["model"], started["already_active"]) == ("sessions/1", MODEL, False)
    assert started["create_time"].endswith("Z")
    assert json.loads(tidemill("session", "start", "--json").stdout)["already_active"] is True
    stopped = json.loads(tidemill("session", "stop", "--model", "tide-nano", "--json").stdout)
    assert stopped == {
        "session": "sessions/1",
        "model": MODEL,
        "billed_milliseconds": 2_500,
        "billed_seconds": 3,
        "price_microcredits_per_second": PRICE,
        "cost_microcredits": 3 * PRICE,
        "final": True,
    }


def test_session_stop_ends_it_whoever_holds_it_unless_told_otherwise(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    mill.sessions["sessions/1"].holders.append("somebody")
    assert "has cost until now" in tidemill("session", "stop", "--keep-others").stdout
    assert "sessions/1 of tide-nano cost" in tidemill("session", "stop", "sessions/1").stdout
    assert mill.sessions["sessions/1"].bill.final


def test_sessions_are_listed_and_shown(tidemill) -> None:
    tidemill("session", "start")
    tidemill("session", "stop")
    tidemill("session", "start")
    listed = tidemill("session", "list").stdout
    assert listed.index("sessions/2") < listed.index("sessions/1")
    names = [json.loads(line)["name"] for line in tidemill("session", "list", "--open", "--json").stdout.splitlines()]
    assert names == ["sessions/2"]
    shown = tidemill("session", "show", "1").stdout
    assert "ended (stopped)" in shown
    assert "2.500 s, charged as 3 s" in shown
    assert json.loads(tidemill("session", "show", "sessions/1", "--json").stdout)["bill"]["final"] is True
    assert tidemill("session", "show", "9").exit_code == 1


def test_session_stop_names_nothing_where_one_is_open_and_lists_them_where_several_are(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    assert "sessions/1 of tide-nano cost" in tidemill("session", "stop").stdout
    assert mill.requests["StopSession"][-1].name == "sessions/1"
    for _ in range(2):
        mill.add_open_session()
    result = tidemill("session", "stop", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stderr)["error"]
    assert (error["reason"], error["field"]) == ("FIELD_INVALID", "name")
    assert "sessions/2 (tide-nano)" in error["message"]
    assert "sessions/3 (tide-nano)" in error["message"]


def test_session_start_says_the_whole_command_that_ends_it(tidemill) -> None:
    assert "`tidemill session stop --model tide-nano`" in tidemill("session", "start").stderr


def test_sessions_of_a_model_that_is_not_there_are_an_error(tidemill) -> None:
    result = tidemill("session", "list", "--model", "nope", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"]["reason"] == "MODEL_NOT_FOUND"


def test_advice_that_the_server_gives_is_not_given_twice(tidemill, mill: Mill) -> None:
    sentence = "Name a model, or give the key a default one; there is: a, b."
    mill.fail_next("GetModel", Refusal(grpc.StatusCode.INVALID_ARGUMENT, "MODEL_REQUIRED", sentence, "model"))
    assert tidemill("model", "show").stderr == f"Error: {sentence}\n"
    tidemill("session", "start")
    sentence = "The prompt has 600 tokens and the model's context holds 512: send a shorter prompt."
    mill.fail_next("Generate", Refusal(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_EXCEEDED", sentence, "input"))
    assert tidemill("complete", "long").stderr == f"Error: {sentence}\n"


def test_a_table_is_as_wide_as_it_needs_where_it_is_no_terminal(tidemill, mill: Mill, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    mill.model.description = "A model " + "of many words " * 20 + "to its end."
    header, row = tidemill("model", "list").stdout.splitlines()
    assert row.endswith("of many words to its end.")
    assert header.split() == ["model", "state", "context", "price", "per", "second", "description"]


def test_a_terminal_folds_a_table_but_never_its_names(tidemill, mill: Mill, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    name = "sessions/01jd8x2m4k6q8s0t2v4x6z8b0d"
    mill.add_open_session(name)

    def shown(*arguments: str) -> list[str]:
        return re.sub(r"\x1b\[[0-9;]*m", "", tidemill(*arguments).stdout).splitlines()

    lines = shown("session", "list")
    assert lines[0].split() == ["session", "model", "state", "started", "seconds", "cost"]
    assert lines[1].split() == [name, "tide-nano", "pending", "not", "yet", "0", "0.000000"]
    assert lines[2].split() == ["credits"]
    monkeypatch.setenv("COLUMNS", "100")
    assert len(shown("session", "list")) == 2
    mill.model.description = "A model " + "of many words " * 20 + "to its end."
    lines = shown("model", "list")
    assert len(lines) > 2
    assert all(len(line.rstrip()) <= 100 for line in lines)


def test_models_are_listed_and_shown(tidemill) -> None:
    assert "A model for demonstrations." in tidemill("model", "list").stdout
    assert json.loads(tidemill("model", "list", "--json").stdout)["context_length"] == 512
    assert "512 tokens" in tidemill("model", "show", "tide-nano").stdout
    assert json.loads(tidemill("model", "show", "--json").stdout)["chat_templates"] == ["default"]
    assert tidemill("model", "show", "spring-tide").exit_code == 1


def test_a_model_is_woken_and_put_to_rest(tidemill) -> None:
    assert tidemill("model", "status").stdout == "tide-nano is stopped\n"
    assert tidemill("model", "start", "tide-nano").stdout == "tide-nano is queued\n"
    result = tidemill("model", "start", "tide-nano", "--wait")
    assert result.stdout == "tide-nano is ready (0 replicas)\n"
    assert result.stderr.splitlines() == [
        "tide-nano: queued", "tide-nano: launching", "tide-nano: loading", "tide-nano: ready",
    ]  # fmt: skip
    tidemill("model", "stop")
    assert tidemill("model", "start", "--wait").stderr.startswith("tide-nano: queued\n")
    assert json.loads(tidemill("model", "status", "--json").stdout)["state"] == "ready"
    assert tidemill("model", "stop").stdout == "tide-nano is stopped\n"


def test_a_watch_prints_each_change(tidemill, mill: Mill) -> None:
    mill.model.state = model_pb2.Model.STATE_QUEUED
    assert tidemill("model", "watch").stdout.splitlines() == [
        "tide-nano is queued",
        "tide-nano is starting (launching, 10%)",
        "tide-nano is starting (loading, 60%)",
        "tide-nano is ready (0 replicas)",
    ]
    views = [json.loads(line) for line in tidemill("model", "watch", "--json").stdout.splitlines()]
    assert views[-1]["progress"] == 1.0


def test_a_server_command_whose_extra_is_missing_says_which_to_install(
    tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = EntryPoint("serve", "a_package_that_is_not_there:serve", server_commands.GROUP)
    monkeypatch.setattr(server_commands, "entry_points", lambda group: [missing])
    assert "Needs an extra: pip install 'tidemill[cpu]'." in tidemill("--help").stdout
    assert "Needs an extra: pip install 'tidemill[cpu]'." in tidemill("serve", "--help").stdout
    result = tidemill("serve", "--port", "0", "--json")
    assert result.exit_code == 3
    assert "a_package_that_is_not_there is not installed" in result.stderr
    assert "pip install 'tidemill[cpu]'" in result.stderr
    assert tidemill("demo").exit_code == 3


def test_a_server_command_may_be_a_group(tidemill, monkeypatch: pytest.MonkeyPatch) -> None:
    group = typer.Typer()

    @group.command()
    def backup() -> None:
        typer.echo("backed up")

    @group.command()
    def restore() -> None:
        typer.echo("restored")

    class Joined:
        name = "admin"

        def load(self) -> typer.Typer:
            return group

    monkeypatch.setattr(server_commands, "entry_points", lambda group: [Joined()])
    assert tidemill("admin", "backup").stdout == "backed up\n"


def test_the_commands_of_the_manual_exist(tidemill) -> None:
    manual = (Path(__file__).parents[3] / "docs" / "client.md").read_text()
    lines = [line.split("   ")[0] for line in manual.splitlines() if line.startswith("tidemill ")]
    assert len(lines) >= 10
    for line in lines:
        words = shlex.split(line)[1:]
        command = words[:2] if words[0] in {"session", "model", "account", "key", "prices", "receipt"} else words[:1]
        help_text = tidemill(*command, "--help").stdout
        assert f"tidemill {' '.join(command)}" in help_text
        assert all(option in help_text for option in words if option.startswith("--"))
