"""One line a call, the key first."""

import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest

import tidemill
from tests.unit.client.mill import KEY, Mill
from tidemill import Client, OneLine


@pytest.fixture(autouse=True)
def _target(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_TARGET", mill.target)


def test_a_session_is_kept_between_calls(mill: Mill) -> None:
    OneLine.start_session(KEY)
    assert OneLine.complete_prompt(KEY, "one", stream=False) == "You said: one"
    assert list(OneLine.complete_prompt(KEY, "two")) == ["You", " said:", " two"]
    assert OneLine.complete_prompt(KEY, ["a", "b"], stream=False) == ["You said: a", "You said: b"]
    assert OneLine.stop_session(KEY).final
    assert len(mill.sessions) == 1


def test_without_a_session_the_error_is_typed() -> None:
    with pytest.raises(tidemill.NoSessionError):
        OneLine.complete_prompt(KEY, "one", stream=False)


def test_pprint_prints_the_answer_and_returns_its_speed(capsys: pytest.CaptureFixture[str]) -> None:
    OneLine.start_session(KEY)
    printed = OneLine.complete_prompt(KEY, "one", pprint=True)
    assert capsys.readouterr().out == "You said: one\n"
    assert printed.usage is not None
    OneLine.complete_chat(KEY, [{"role": "user", "content": "hi"}], stream=False, pprint=True)
    assert capsys.readouterr().out == "You said: user:hi\n"


def test_chats_stream_and_do_not() -> None:
    OneLine.start_session(KEY)
    chat = [{"role": "user", "content": "hi"}]
    assert "".join(OneLine.complete_chat(KEY, chat)) == "You said: user:hi"
    assert OneLine.complete_chat(KEY, [chat, chat], stream=False) == ["You said: user:hi"] * 2


def test_model_methods_take_the_key_first() -> None:
    assert OneLine.model_is_running(KEY) is False
    assert OneLine.wait_until_model_running(KEY, 10).is_running
    assert OneLine.get_model(KEY, "tide-nano").is_running
    assert OneLine.stop_model(KEY).state == "stopped"


def test_all_methods_of_the_client_are_there() -> None:
    kept_by_the_client = {"close", "session"}
    methods = {name for name, _ in inspect.getmembers(Client, callable) if not name.startswith("_")}
    assert {name for name in vars(OneLine) if not name.startswith("_")} == methods - kept_by_the_client


@pytest.mark.parametrize("arguments", [(), (None,), (3,), ("",)])
def test_a_key_that_is_none_is_a_typed_error_and_the_environments_is_not_taken(
    arguments: tuple, mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_API_KEY", KEY)
    with pytest.raises(tidemill.TidemillError, match="key") as caught:
        OneLine.start_session(*arguments)
    assert isinstance(caught.value, tidemill.ApiKeyMissingError | tidemill.ConfigError)
    with pytest.raises(tidemill.ApiKeyMissingError):
        OneLine.complete_prompt(None, "one")  # type: ignore[call-overload]
    assert mill.metadata == []


def test_threads_share_one_client_for_a_key() -> None:
    OneLine.start_session(KEY)
    with ThreadPoolExecutor(32) as threads:
        texts = list(threads.map(lambda n: OneLine.complete_prompt(KEY, str(n), stream=False), range(64)))
    assert texts == [f"You said: {n}" for n in range(64)]


def test_a_key_is_not_used_for_another(mill: Mill) -> None:
    OneLine.start_session(KEY)
    with pytest.raises(tidemill.ApiKeyInvalidError):
        OneLine.complete_prompt("tm_other", "one", stream=False)
    assert mill.metadata[-1]["authorization"] == "Bearer tm_other"
