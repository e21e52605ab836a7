"""The client for one-liners: the key first, nothing to keep."""

import threading
from collections.abc import Callable, Sequence
from typing import Concatenate, Literal, ParamSpec, TypeVar, Unpack, overload

from tidemill import connection
from tidemill.client import Client
from tidemill.errors import ApiKeyMissingError
from tidemill.face import Chats, MoreOptions, Prompts
from tidemill.inputs import ChatMessages
from tidemill.printing import PrintedAnswer
from tidemill.streams import TextStream

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_clients: dict[connection.Connection, Client] = {}
_lock = threading.Lock()


def _client(api_key: str | None) -> Client:
    """The one client of this key and of the target that the environment names now."""
    if api_key is None:  # the environment's key would be another one than was meant
        raise ApiKeyMissingError("OneLine takes the API key as its first argument.", field="api_key")
    where = connection.resolve(api_key)
    with _lock:
        if where not in _clients:
            _clients[where] = Client(api_key, target=where.url, ca_file=where.ca_file)
        return _clients[where]


def _with_key(
    method: Callable[Concatenate[Client, Parameters], Result],
) -> Callable[Concatenate[str, Parameters], Result]:
    """The client's method as a function whose first argument is the key."""

    def call(api_key: str | None = None, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return method(_client(api_key), *args, **kwargs)

    call.__doc__ = method.__doc__
    return call


class OneLine:
    """The methods of `Client` with the key as their first argument, one line a call; all but `session`,
    `accounts` and `close`.

        OneLine.start_session(key)
        OneLine.complete_prompt(key, "What is a tide mill?", pprint=True)
        OneLine.stop_session(key)

    All calls with the same key and target share one connection, from any thread. The session belongs to the key, so it
    stays open between calls, and any program with the key can stop it.
    """

    start_session = staticmethod(_with_key(Client.start_session))
    stop_session = staticmethod(_with_key(Client.stop_session))
    update_session = staticmethod(_with_key(Client.update_session))
    watch_session = staticmethod(_with_key(Client.watch_session))
    get_session = staticmethod(_with_key(Client.get_session))
    list_sessions = staticmethod(_with_key(Client.list_sessions))
    list_models = staticmethod(_with_key(Client.list_models))
    get_model = staticmethod(_with_key(Client.get_model))
    start_model = staticmethod(_with_key(Client.start_model))
    stop_model = staticmethod(_with_key(Client.stop_model))
    watch_model = staticmethod(_with_key(Client.watch_model))
    model_is_running = staticmethod(_with_key(Client.model_is_running))
    wait_until_model_running = staticmethod(_with_key(Client.wait_until_model_running))
    complete = staticmethod(_with_key(Client.complete))
    complete_batch = staticmethod(_with_key(Client.complete_batch))
    print_prompt = staticmethod(Client.print_prompt)

    @overload
    @staticmethod
    def complete_prompt(
        api_key: str, prompt: str, max_tokens: int | None = 300, temperature: float | None = 0.5,
        top_p: float | None = 0.9, stream: bool = True, *, pprint: Literal[True], **more: Unpack[MoreOptions],
    ) -> PrintedAnswer: ...  # fmt: skip
    @overload
    @staticmethod
    def complete_prompt(
        api_key: str, prompt: str, max_tokens: int | None = 300, temperature: float | None = 0.5,
        top_p: float | None = 0.9, stream: Literal[True] = True, pprint: Literal[False] = False,
        **more: Unpack[MoreOptions],
    ) -> TextStream: ...  # fmt: skip
    @overload
    @staticmethod
    def complete_prompt(  # type: ignore[overload-overlap]  # a str is a sequence of str too
        api_key: str, prompt: str, max_tokens: int | None = 300, temperature: float | None = 0.5,
        top_p: float | None = 0.9, *, stream: Literal[False], pprint: Literal[False] = False,
        **more: Unpack[MoreOptions],
    ) -> str: ...  # fmt: skip
    @overload
    @staticmethod
    def complete_prompt(
        api_key: str, prompt: Sequence[str], max_tokens: int | None = 300, temperature: float | None = 0.5,
        top_p: float | None = 0.9, *, stream: Literal[False], pprint: Literal[False] = False,
        **more: Unpack[MoreOptions],
    ) -> list[str]: ...  # fmt: skip

    @staticmethod
    def complete_prompt(
        api_key: str,
        prompt: Prompts,
        max_tokens: int | None = 300,
        temperature: float | None = 0.5,
        top_p: float | None = 0.9,
        stream: bool = True,
        pprint: bool = False,
        **more: Unpack[MoreOptions],
    ) -> PrintedAnswer | TextStream | str | list[str]:
        """As `Client.complete_prompt`; `pprint` prints the answer as it comes and returns what `print_prompt` does."""
        found = _client(api_key).complete_prompt(prompt, max_tokens, temperature, top_p, stream or pprint, **more)
        return Client.print_prompt(found) if pprint and isinstance(found, TextStream) else found

    @overload
    @staticmethod
    def complete_chat(
        api_key: str, messages: ChatMessages, add_generation_prompt: bool = True, template_type: str | None = None,
        max_tokens: int | None = 300, temperature: float | None = 0.5, top_p: float | None = 0.9,
        stream: bool = True, *, pprint: Literal[True], **more: Unpack[MoreOptions],
    ) -> PrintedAnswer: ...  # fmt: skip
    @overload
    @staticmethod
    def complete_chat(
        api_key: str, messages: ChatMessages, add_generation_prompt: bool = True, template_type: str | None = None,
        max_tokens: int | None = 300, temperature: float | None = 0.5, top_p: float | None = 0.9,
        stream: Literal[True] = True, pprint: Literal[False] = False, **more: Unpack[MoreOptions],
    ) -> TextStream: ...  # fmt: skip
    @overload
    @staticmethod
    def complete_chat(
        api_key: str, messages: ChatMessages, add_generation_prompt: bool = True, template_type: str | None = None,
        max_tokens: int | None = 300, temperature: float | None = 0.5, top_p: float | None = 0.9,
        *, stream: Literal[False], pprint: Literal[False] = False, **more: Unpack[MoreOptions],
    ) -> str: ...  # fmt: skip
    @overload
    @staticmethod
    def complete_chat(
        api_key: str, messages: Sequence[ChatMessages], add_generation_prompt: bool = True,
        template_type: str | None = None, max_tokens: int | None = 300, temperature: float | None = 0.5,
        top_p: float | None = 0.9, *, stream: Literal[False], pprint: Literal[False] = False,
        **more: Unpack[MoreOptions],
    ) -> list[str]: ...  # fmt: skip

    @staticmethod
    def complete_chat(
        api_key: str,
        messages: Chats,
        add_generation_prompt: bool = True,
        template_type: str | None = None,
        max_tokens: int | None = 300,
        temperature: float | None = 0.5,
        top_p: float | None = 0.9,
        stream: bool = True,
        pprint: bool = False,
        **more: Unpack[MoreOptions],
    ) -> PrintedAnswer | TextStream | str | list[str]:
        """As `Client.complete_chat`; `pprint` prints the answer as it comes and returns what `print_prompt` does."""
        found = _client(api_key).complete_chat(
            messages, add_generation_prompt, template_type, max_tokens, temperature, top_p, stream or pprint, **more
        )
        return Client.print_prompt(found) if pprint and isinstance(found, TextStream) else found
