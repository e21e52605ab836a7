"""The client with asyncio: the methods of `tidemill.client`, awaited."""

from collections.abc import AsyncIterable, Sequence
from types import TracebackType
from typing import Literal, Self, TextIO, Unpack, overload

from tidemill import face
from tidemill.async_accounts import AsyncAccounts
from tidemill.async_transport import AsyncTransport
from tidemill.face import Chats, Face, MoreOptions, Prompts, SessionOptions
from tidemill.inputs import ChatMessages
from tidemill.open_session import AsyncOpenSession
from tidemill.plans import batches, generations, models, sessions
from tidemill.plans.answers import Answer
from tidemill.plans.models import OnProgress
from tidemill.printing import PrintedAnswer, print_async_stream
from tidemill.results import Completion, Model
from tidemill.session_results import Bill, Meter, Session
from tidemill.steps import Line
from tidemill.streams import AsyncStream, AsyncTextStream
from tidemill.v1 import inference_pb2


class AsyncClient(Face):
    """Talks to one Tidemill server with one key, from any number of tasks of one event loop.

    The connection is opened by the first call. Fork before that, or make a new client in the child: gRPC does not
    survive a fork. `async with AsyncClient() as client:` closes the connection at the end.

    Every method raises a TidemillError when it fails; `tidemill.errors` lists them.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        custom_env_var: str | None = None,
        target: str | None = None,
        ca_file: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Find the server and the key; nothing is called yet.

        `target` is host:port; TLS is spoken with https:// before it, with a `ca_file` (PEM, who signed the server's
        certificate), and off this machine. `custom_env_var` names the variable that holds the key; together with
        `api_key` it is an error. `model` is for calls that name none. `timeout`, in seconds, is for every call that
        gives none; by default there is none.

        Raises ConfigError, ApiKeyMissingError.
        """
        super().__init__(api_key, custom_env_var, target, ca_file, model, timeout)
        self._transport = AsyncTransport(self._connection)

    @property
    def accounts(self) -> AsyncAccounts:
        """Accounts, keys and credits, for whoever manages them."""
        return AsyncAccounts(self._transport, self._deadline)

    # Sessions: what pays.

    async def start_session(
        self, model: str | None = None, *, holder: str = "", **options: Unpack[SessionOptions]
    ) -> Session:
        """Start billing this key for the model, and wake it; returns at once. Again, it returns the open session.

        `holder` names who keeps it open; empty means the key itself, so that any program with the key can stop it.
        Limits that are given and are not those of the open session raise SessionDiffersError.
        """
        wanted = self._wanted("start_session", options)
        plan = sessions.start(self._named(model), wanted, holder=holder, deadline=self._deadline())
        return await self._transport.run(plan)

    async def stop_session(
        self, model: str | None = None, *, name: str = "", holder: str = "", all_holders: bool = False
    ) -> Bill:
        """Take the holder away from the key's session of the model, or from the session of that `name`.

        The last holder ends it; `all_holders` ends it whoever else keeps it open. Again, it returns the final bill.
        """
        named = "" if name else self._named(model)
        plan = sessions.stop(name, named, holder=holder, all_holders=all_holders, deadline=self._deadline())
        return (await self._transport.run(plan)).bill

    def session(self, model: str | None = None, **options: Unpack[SessionOptions]) -> AsyncOpenSession:
        """A session for a `with` block. Its holder is the block's own, so that blocks in other threads stay open.

        The block says every 20 seconds that it is alive; when its program or machine is gone, the server gives it up.
        """
        wanted = self._wanted("session", options)
        return AsyncOpenSession(self._transport, self._named(model), wanted, self._new_holder(), self._deadline)

    async def update_session(self, name: str, **options: Unpack[SessionOptions]) -> Session:
        """Change what is given of an open session's limits and labels; a `max_spend_microcredits` of 0 is none.

        A limit that is passed already raises FieldInvalidError: it would end the session at once.
        """
        plan = sessions.update(name, self._wanted("update_session", options), deadline=self._deadline())
        return await self._transport.run(plan)

    def watch_session(self, name: str, *, timeout: float | None = None) -> AsyncStream[Meter]:
        """Iterate over the session's live meter, a reading a second, until it has ended; close the stream to end it."""
        line = Line()
        plan = sessions.watch(name, line, deadline=self._deadline(timeout))
        return AsyncStream(self._transport, plan, line)

    async def get_session(self, name: str) -> Session:
        """Fetch a session with its bill until now."""
        return await self._transport.run(sessions.get(name, deadline=self._deadline()))

    async def list_sessions(self, model: str = "", *, open_only: bool = False, limit: int = 50) -> list[Session]:
        """Fetch the newest sessions of the account, at most `limit`; of one model when it is named."""
        plan = sessions.list_all(model, open_only=open_only, limit=limit, deadline=self._deadline())
        return await self._transport.run(plan)

    # Models: what answers.

    async def list_models(self) -> list[Model]:
        """Fetch the registered models by name."""
        return await self._transport.run(models.list_all(deadline=self._deadline()))

    async def get_model(self, model: str | None = None) -> Model:
        """Fetch a model."""
        return await self._transport.run(models.get(self._named(model), deadline=self._deadline()))

    async def model_is_running(self, model: str | None = None) -> bool:
        """Ask whether the model answers now; does not wait for it."""
        return await self._transport.run(models.is_running(self._named(model), deadline=self._deadline()))

    async def wait_until_model_running(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 -- the deadline of the call, which the server knows too
        on_progress: OnProgress | None = None,
        *,
        model: str | None = None,
    ) -> Model:
        """Wait until the model runs, at most `timeout` seconds; a model at rest is woken.

        `on_progress` is called with a Progress at each change. Raises DeadlineExceededError, ModelFailedError, and
        ModelColdError when somebody stops the model meanwhile.
        """
        deadline = self._deadline(timeout)
        plan = models.wait_until_running(self._named(model), on_progress=on_progress, deadline=deadline)
        return await self._transport.run(plan)

    async def start_model(
        self,
        model: str | None = None,
        *,
        wait: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 -- the deadline of the call, which the server knows too
        on_progress: OnProgress | None = None,
    ) -> Model:
        """Wake a model and return at once, or with `wait` once it runs, as `wait_until_model_running` does."""
        name, deadline = self._named(model), self._deadline(timeout)
        if wait:
            return await self._transport.run(models.start_and_wait(name, on_progress=on_progress, deadline=deadline))
        return await self._transport.run(models.start(name, deadline=deadline))

    async def stop_model(self, model: str | None = None, *, force: bool = False) -> Model:
        """Put a model to rest; returns at once. `force`, for administrators, ends its sessions and generations too."""
        return await self._transport.run(models.stop(self._named(model), force=force, deadline=self._deadline()))

    def watch_model(self, model: str | None = None, *, timeout: float | None = None) -> AsyncStream[Model]:
        """Iterate over the model as it is now and at each change; close the stream to end it."""
        line = Line()
        plan = models.watch(self._named(model), line, deadline=self._deadline(timeout))
        return AsyncStream(self._transport, plan, line)

    # Generations: what it is for.

    @overload
    async def complete_prompt(
        self, prompt: str, max_tokens: int | None = 300, temperature: float | None = 0.5, top_p: float | None = 0.9,
        stream: Literal[True] = True, **more: Unpack[MoreOptions],
    ) -> AsyncTextStream: ...  # fmt: skip
    @overload
    async def complete_prompt(  # type: ignore[overload-overlap]  # a str is a sequence of str too
        self, prompt: str, max_tokens: int | None = 300, temperature: float | None = 0.5, top_p: float | None = 0.9,
        *, stream: Literal[False], **more: Unpack[MoreOptions],
    ) -> str: ...  # fmt: skip
    @overload
    async def complete_prompt(
        self, prompt: Sequence[str], max_tokens: int | None = 300, temperature: float | None = 0.5,
        top_p: float | None = 0.9, *, stream: Literal[False], **more: Unpack[MoreOptions],
    ) -> list[str]: ...  # fmt: skip
    @overload
    async def complete_prompt(
        self, prompt: Prompts, max_tokens: int | None = 300, temperature: float | None = 0.5,
        top_p: float | None = 0.9, stream: bool = True, **more: Unpack[MoreOptions],
    ) -> AsyncTextStream | str | list[str]: ...  # fmt: skip

    async def complete_prompt(
        self,
        prompt: Prompts,
        max_tokens: int | None = 300,
        temperature: float | None = 0.5,
        top_p: float | None = 0.9,
        stream: bool = True,
        **more: Unpack[MoreOptions],
    ) -> AsyncTextStream | str | list[str]:
        """Go on from a prompt. None for a parameter means the model's default; MoreOptions names the others.

        With `stream` an iterator of text; without, the text, or for a list of prompts the list of texts. A list of
        which some failed raises BatchError, which carries the texts of the others.
        """
        settings = self._settings("complete_prompt", max_tokens, temperature, top_p, more)
        if stream:
            return self._stream(face.one_prompt(prompt), settings)
        return await self._transport.run(face.prompt_texts(prompt, settings))

    @overload
    async def complete_chat(
        self, messages: ChatMessages, add_generation_prompt: bool = True, template_type: str | None = None,
        max_tokens: int | None = 300, temperature: float | None = 0.5, top_p: float | None = 0.9,
        stream: Literal[True] = True, **more: Unpack[MoreOptions],
    ) -> AsyncTextStream: ...  # fmt: skip
    @overload
    async def complete_chat(
        self, messages: ChatMessages, add_generation_prompt: bool = True, template_type: str | None = None,
        max_tokens: int | None = 300, temperature: float | None = 0.5, top_p: float | None = 0.9,
        *, stream: Literal[False], **more: Unpack[MoreOptions],
    ) -> str: ...  # fmt: skip
    @overload
    async def complete_chat(
        self, messages: Sequence[ChatMessages], add_generation_prompt: bool = True, template_type: str | None = None,
        max_tokens: int | None = 300, temperature: float | None = 0.5, top_p: float | None = 0.9,
        *, stream: Literal[False], **more: Unpack[MoreOptions],
    ) -> list[str]: ...  # fmt: skip
    @overload
    async def complete_chat(
        self, messages: Chats, add_generation_prompt: bool = True, template_type: str | None = None,
        max_tokens: int | None = 300, temperature: float | None = 0.5, top_p: float | None = 0.9,
        stream: bool = True, **more: Unpack[MoreOptions],
    ) -> AsyncTextStream | str | list[str]: ...  # fmt: skip

    async def complete_chat(
        self,
        messages: Chats,
        add_generation_prompt: bool = True,
        template_type: str | None = None,
        max_tokens: int | None = 300,
        temperature: float | None = 0.5,
        top_p: float | None = 0.9,
        stream: bool = True,
        **more: Unpack[MoreOptions],
    ) -> AsyncTextStream | str | list[str]:
        """Answer a chat: mappings with `role` and `content`. As `complete_prompt` in everything else.

        `template_type` names one of the model's templates; None means its own.
        """
        settings = self._settings("complete_chat", max_tokens, temperature, top_p, more)
        if stream:
            source = face.one_chat(messages, add_generation_prompt=add_generation_prompt, template=template_type)
            return self._stream(source, settings)
        return await self._transport.run(
            face.chat_texts(messages, settings, add_generation_prompt=add_generation_prompt, template=template_type)
        )

    async def complete(
        self,
        source: str | ChatMessages,
        max_tokens: int | None = 300,
        temperature: float | None = 0.5,
        top_p: float | None = 0.9,
        **more: Unpack[MoreOptions],
    ) -> Completion:
        """Answer a prompt or a chat, with the finish reason and the usage beside the text."""
        settings = self._settings("complete", max_tokens, temperature, top_p, more)
        return await self._transport.run(generations.complete(face.any_input(source), settings))

    async def complete_batch(
        self,
        sources: Sequence[str | ChatMessages],
        max_tokens: int | None = 300,
        temperature: float | None = 0.5,
        top_p: float | None = 0.9,
        *,
        n: int = 1,
        **more: Unpack[MoreOptions],
    ) -> list[Completion]:
        """Answer many prompts or chats, in their order. One that failed does not raise: see its `error`.

        With `n` there are so many answers to each, one after the other: the prompt is computed once, and counts as
        prompt tokens in the first one's usage. Each answer's seed is `seed` with its place in the list added.
        """
        settings = self._settings("complete_batch", max_tokens, temperature, top_p, more)
        inputs = face.any_inputs(sources)
        return await self._transport.run(batches.complete_batch(inputs, settings, n))

    @staticmethod
    async def print_prompt(iterator: AsyncIterable[str], file: TextIO | None = None) -> PrintedAnswer:
        """Print an answer as it comes, to `file` or standard output; return its text, speed and usage."""
        return await print_async_stream(iterator, file)

    def _stream(self, source: inference_pb2.Input, settings: generations.Settings) -> AsyncTextStream:
        answer = Answer()
        return AsyncTextStream(self._transport, generations.generate(source, settings, answer), answer)

    async def close(self) -> None:
        """Close the connection; what still runs is cancelled. Sessions stay open: they are the server's."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
