"""A Tidemill in memory, behind a real gRPC port: it keeps the contract, and breaks it on request.

It answers a prompt with "You said: " and the prompt, a word a token. `script` gives a prompt another answer,
`fail_next` refuses the next calls of a method.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent import futures
from dataclasses import dataclass

import grpc
from google.protobuf.duration_pb2 import Duration

from tests.unit.client.account_book import AccountBook
from tests.unit.client.credit_book import CreditBook
from tests.unit.client.refusal import Refusal
from tidemill.v1 import (
    account_pb2_grpc,
    errors_pb2,
    inference_pb2,
    inference_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)

KEY = "tm_test_key"
MODEL = "models/tide-nano"
PRICE = 700


class Hold:
    """A script's step that waits until the test lets it go on, or the caller goes away."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()
        self.abandoned = threading.Event()

    def wait(self, context: grpc.ServicerContext) -> None:
        if not context.add_callback(self._abandon):  # the caller is gone already
            self._abandon()
        self.reached.set()
        self.released.wait(60)

    def _abandon(self) -> None:
        if not self.released.is_set():
            self.abandoned.set()
        self.released.set()


@dataclass(frozen=True)
class Skip:
    """Loses a message: the next one's sequence number is one too high."""


class Cut:
    """Loses the connection, as far as a call can; only the first time."""

    def __init__(self) -> None:
        self.was_done = False


@dataclass(frozen=True)
class Last:
    """The last text and the end, in one message."""

    text: str


Event = str | Refusal | Hold | Skip | Cut | Last | inference_pb2.KeepAlive | inference_pb2.GenerationEnd


class Mill(
    CreditBook,
    AccountBook,
    session_pb2_grpc.SessionServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
    inference_pb2_grpc.InferenceServiceServicer,
):
    """Serves on a free port of loopback from `start` to `stop`."""

    def __init__(self) -> None:
        AccountBook.__init__(self)
        CreditBook.__init__(self)
        self.requests: dict[str, list] = defaultdict(list)
        self.metadata: list[dict[str, str]] = []
        self.sessions: dict[str, session_pb2.Session] = {}
        self.model = model_pb2.Model(
            name=MODEL, description="A model for demonstrations.", engine="decoder", context_length=512,
            state=model_pb2.Model.STATE_STOPPED, chat_templates=["default"], roles=["system", "user", "assistant"],
            prices=model_pb2.ModelPrices(session_microcredits_per_second=PRICE),
        )  # fmt: skip
        self.start_views = [
            (model_pb2.Model.STATE_STARTING, model_pb2.Model.PHASE_LAUNCHING, 0.1),
            (model_pb2.Model.STATE_STARTING, model_pb2.Model.PHASE_LOADING, 0.6),
            (model_pb2.Model.STATE_READY, model_pb2.Model.PHASE_UNSPECIFIED, 1.0),
        ]
        self.needs_session = True
        self.meter: list[session_pb2.SessionMeter] = []
        self._scripts: dict[str, list[Event]] = {}
        self._judge: Callable[[inference_pb2.GenerateRequest], Refusal | None] = lambda _: None
        self._failures: dict[str, list[Refusal]] = defaultdict(list)
        self._changed = threading.Condition()
        self._server: grpc.Server | None = None
        self.port = 0

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, port: int = 0) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=48), options=[("grpc.so_reuseport", 0)])
        session_pb2_grpc.add_SessionServiceServicer_to_server(self, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(self, self._server)
        account_pb2_grpc.add_AccountServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(grace=None).wait()

    def script(self, prompt: str, *events: Event) -> None:
        """Answer this prompt with these events; an end is added when there is none."""
        self._scripts[prompt] = list(events)

    def fail_next(self, method: str, *failures: Refusal) -> None:
        """Refuse the next calls of a method, one for each."""
        self._failures[method] += failures

    def refuse_when(self, judge: Callable[[inference_pb2.GenerateRequest], Refusal | None]) -> None:
        """Refuse the generations that `judge` has a refusal for."""
        self._judge = judge

    def _enter(self, method: str, request: object, context: grpc.ServicerContext) -> None:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.metadata.append(metadata)
        self.requests[method].append(request)
        if metadata.get("authorization") != f"Bearer {KEY}":
            context.abort_with_status(Refusal(grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID").status())
        if self._failures[method]:
            context.abort_with_status(self._failures[method].pop(0).status())

    # Sessions.

    def open_session(self) -> session_pb2.Session | None:
        return next((one for one in self.sessions.values() if not one.bill.final), None)

    def add_open_session(self, name: str = "") -> session_pb2.Session:
        """Open one more session, whatever is open."""
        name = name or f"sessions/{len(self.sessions) + 1}"
        found = self.sessions[name] = session_pb2.Session(
            name=name, model=MODEL, state=session_pb2.Session.STATE_PENDING
        )
        found.create_time.GetCurrentTime()
        found.limits.idle_timeout.FromSeconds(900)
        found.limits.max_duration.FromSeconds(43_200)
        found.bill.price_microcredits_per_second = PRICE
        return found

    def StartSession(self, request, context):  # noqa: N802
        self._enter("StartSession", request, context)
        with self._changed:
            found = self.open_session()
            already_active = found is not None
            if found is None:
                found = self.add_open_session()
                found.liveness = request.liveness
                found.limits.MergeFrom(request.limits)
                found.labels.update(request.labels)
            holder = request.holder or "key"
            if holder not in found.holders:
                found.holders.append(holder)
            return session_pb2.StartSessionResponse(session=found, already_active=already_active)

    def StopSession(self, request, context):  # noqa: N802
        self._enter("StopSession", request, context)
        with self._changed:
            found = self.sessions.get(request.name) if request.name else next(reversed(self.sessions.values()), None)
            if found is None:
                context.abort_with_status(Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND").status())
            if found.bill.final:
                return session_pb2.StopSessionResponse(session=found, already_ended=True)
            holder = request.holder or "key"
            if holder in found.holders:
                found.holders.remove(holder)
            if request.all_holders or not found.holders:
                self.end(found)
            return session_pb2.StopSessionResponse(session=found)

    def end(self, session: session_pb2.Session) -> None:
        """End a session, as if somebody stopped it."""
        del session.holders[:]
        session.state = session_pb2.Session.STATE_ENDED
        session.end_reason = session_pb2.Session.END_REASON_STOPPED
        session.end_time.GetCurrentTime()
        session.bill.billed_milliseconds = 2_500
        session.bill.billed_seconds = 3
        session.bill.cost_microcredits = 3 * PRICE
        session.bill.final = True

    def UpdateSession(self, request, context):  # noqa: N802
        self._enter("UpdateSession", request, context)
        request.update_mask.MergeMessage(
            request.session,
            self.sessions[request.session.name],
            replace_message_field=True,
            replace_repeated_field=True,
        )
        return self.sessions[request.session.name]

    def WatchSession(self, request, context):  # noqa: N802
        self._enter("WatchSession", request, context)
        self._check_session(request.name, context)
        session = self.sessions[request.name]
        session.state = session_pb2.Session.STATE_ACTIVE
        readings = self.meter or [session_pb2.SessionMeter()]
        for number, reading in enumerate(readings, start=1):
            reading.sequence_number = number
            if number == len(readings):
                self.end(session)
            reading.session.CopyFrom(session)
            yield reading

    def HeartbeatSession(self, request, context):  # noqa: N802
        self._enter("HeartbeatSession", request, context)
        with self._changed:
            self._changed.notify_all()
        if request.holder not in self.sessions[request.name].holders:
            context.abort_with_status(Refusal(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_ENDED").status())
        return session_pb2.HeartbeatSessionResponse(next_heartbeat=Duration(nanos=20_000_000))

    def wait_for(self, method: str, count: int) -> None:
        """Wait until a method was called so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests[method]) >= count, 60)

    def _check_session(self, name: str, context: grpc.ServicerContext) -> None:
        if name not in self.sessions:
            context.abort_with_status(Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND").status())

    def GetSession(self, request, context):  # noqa: N802
        self._enter("GetSession", request, context)
        self._check_session(request.name, context)
        return self.sessions[request.name]

    def ListSessions(self, request, context):  # noqa: N802
        self._enter("ListSessions", request, context)
        newest = [one for one in reversed(self.sessions.values()) if not (request.open_only and one.bill.final)]
        first = int(request.page_token or 0)
        size = min(request.page_size or 50, 2)  # small pages, so that paging is seen
        more = first + size < len(newest)
        return session_pb2.ListSessionsResponse(
            sessions=newest[first : first + size], next_page_token=str(first + size) if more else ""
        )

    # Models.

    def ListModels(self, request, context):  # noqa: N802
        self._enter("ListModels", request, context)
        return model_pb2.ListModelsResponse(models=[self.model])

    def GetModel(self, request, context):  # noqa: N802
        self._enter("GetModel", request, context)
        self._check_model(request.name, context)
        return self.model

    def StartModel(self, request, context):  # noqa: N802
        self._enter("StartModel", request, context)
        self._check_model(request.name, context)
        with self._changed:
            if self.model.state == model_pb2.Model.STATE_STOPPED:
                self.model.state = model_pb2.Model.STATE_QUEUED
            self._changed.notify_all()
            return self.model

    def StopModel(self, request, context):  # noqa: N802
        self._enter("StopModel", request, context)
        self._check_model(request.name, context)
        with self._changed:
            self.model.state = model_pb2.Model.STATE_STOPPED
            return self.model

    def WatchModel(self, request, context):  # noqa: N802
        self._enter("WatchModel", request, context)
        self._check_model(request.name, context)
        yield model_pb2.WatchModelResponse(sequence_number=1, model=self.model)
        if self.model.state == model_pb2.Model.STATE_STOPPED:
            with self._changed:
                while context.is_active() and self.model.state == model_pb2.Model.STATE_STOPPED:
                    self._changed.wait(0.05)
        for number, (state, phase, progress) in enumerate(self.start_views, start=2):
            view = model_pb2.Model()
            view.CopyFrom(self.model)
            view.state, view.phase, view.progress = state, phase, progress
            if number == len(self.start_views) + 1:
                self.model.state = state
            yield model_pb2.WatchModelResponse(sequence_number=number, model=view)

    def _check_model(self, name: str, context: grpc.ServicerContext) -> None:
        if name.removeprefix("models/") not in {"", "tide-nano"}:
            refusal = Refusal(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", f"No model {name} is registered.")
            context.abort_with_status(refusal.status())

    # Generations.

    def Generate(self, request, context):  # noqa: N802
        self._enter("Generate", request, context)
        yield from self._answer(request, context)

    def Complete(self, request, context):  # noqa: N802
        self._enter("Complete", request, context)
        whole = inference_pb2.CompleteResponse()
        for response in self._answer(request, context):
            whole.text += response.delta.text + response.last_delta.text
            if response.HasField("end"):
                whole.end.CopyFrom(response.end)
        return whole

    def _answer(self, request, context):
        self._check_model(request.model, context)
        if self.needs_session and self.open_session() is None:
            context.abort_with_status(Refusal(grpc.StatusCode.FAILED_PRECONDITION, "NO_SESSION").status())
        if (refusal := self._judge(request)) is not None:
            context.abort_with_status(refusal.status())
        number = 0
        for event in self._events(request.input, request.options):
            if isinstance(event, Hold):
                event.wait(context)
            elif isinstance(event, Refusal):
                context.abort_with_status(event.status())
            elif isinstance(event, Cut):
                was_done, event.was_done = event.was_done, True
                if not was_done:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            elif isinstance(event, inference_pb2.KeepAlive):
                yield _response(max(number, request.resume_after), event)
            else:
                number += 2 if isinstance(event, Last) else 1
                if number > request.resume_after and not isinstance(event, Skip):
                    yield _response(number, event)

    def CancelGeneration(self, request, context):  # noqa: N802
        self._enter("CancelGeneration", request, context)
        return inference_pb2.CancelGenerationResponse()

    def GenerateBatch(self, request, context):  # noqa: N802
        self._enter("GenerateBatch", request, context)
        if self.needs_session and self.open_session() is None:
            context.abort_with_status(Refusal(grpc.StatusCode.FAILED_PRECONDITION, "NO_SESSION").status())
        yield inference_pb2.GenerateBatchResponse(sequence_number=1, keep_alive=inference_pb2.KeepAlive())
        asked = [one for one in request.inputs for _ in range(request.num_answers or 1)]
        order = reversed(list(enumerate(asked)))  # results come as they end, not as they were asked for
        for number, (index, one) in enumerate(order, start=2):
            texts, end = [], _end("STOP", 0)
            for event in self._events(one, request.options):
                if isinstance(event, Refusal):
                    context.abort_with_status(event.status())
                elif isinstance(event, str):
                    texts.append(event)
                elif isinstance(event, inference_pb2.GenerationEnd):
                    end = event
            result = inference_pb2.BatchResult(index=index, text="".join(texts), end=end)
            yield inference_pb2.GenerateBatchResponse(sequence_number=number, result=result)

    def _events(self, source: inference_pb2.Input, options: inference_pb2.GenerationOptions) -> Iterable[Event]:
        prompt = source.prompt or "|".join(f"{one.role}:{one.content}" for one in source.chat.messages)
        if prompt in self._scripts:
            events = self._scripts[prompt]
            is_whole = isinstance(events[-1], inference_pb2.GenerationEnd | Last | Refusal)
            return events if is_whole else [*events, _end("STOP", 1)]
        words = f"You said: {prompt}".split(" ")
        limit = options.max_tokens or len(words)
        shown = [word if place == 0 else f" {word}" for place, word in enumerate(words[:limit])]
        return [*shown, _end("LENGTH" if len(words) > limit else "STOP", len(shown))]


def _response(number: int, event: Event) -> inference_pb2.GenerateResponse:
    if isinstance(event, str):
        return inference_pb2.GenerateResponse(
            sequence_number=number, delta=inference_pb2.Delta(text=event, num_tokens=1)
        )
    if isinstance(event, Last):
        last = inference_pb2.Delta(text=event.text, num_tokens=1)
        return inference_pb2.GenerateResponse(sequence_number=number, last_delta=last, end=_end("STOP", 1))
    if isinstance(event, inference_pb2.KeepAlive):
        return inference_pb2.GenerateResponse(sequence_number=number, keep_alive=event)
    return inference_pb2.GenerateResponse(sequence_number=number, end=event)


def _end(reason: str, num_tokens: int) -> inference_pb2.GenerationEnd:
    end = inference_pb2.GenerationEnd(finish_reason=f"FINISH_REASON_{reason}")
    end.usage.prompt_tokens = 5
    end.usage.completion_tokens = num_tokens
    end.usage.time_to_first_token.FromMilliseconds(40)
    end.usage.total_duration.FromMilliseconds(90)
    return end


def broken_end(reason: str, message: str, field: str = "") -> inference_pb2.GenerationEnd:
    """An end that says what broke."""
    end = inference_pb2.GenerationEnd(finish_reason="FINISH_REASON_ERROR")
    end.error.CopyFrom(errors_pb2.Error(reason=f"REASON_{reason}", message=message, field=field))
    return end


def keep_alive(state: str = "STARTING", progress: float = 0.5) -> inference_pb2.KeepAlive:
    """A sign of life."""
    return inference_pb2.KeepAlive(model_state=f"STATE_{state}", phase="PHASE_LOADING", progress=progress)
