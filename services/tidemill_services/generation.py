"""One generation, from its request to its end: admit it, run it, measure it.

What is wrong with a request is raised by `admit` and `take`, before anything is spent. What breaks after text was shown
comes as the stream's typed end, so that the text until there is not lost.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from tidemill_services.catalogue import Catalogue, ServedModel
from tidemill_services.domain.errors import FieldInvalidError, NoSessionError, SessionEndedError, TidemillError
from tidemill_services.domain.generation import (
    ChatInput,
    FinishReason,
    GenerationOptions,
    PromptInput,
    WaitPolicy,
    check_options,
)
from tidemill_services.domain.price import Price
from tidemill_services.domain.session import Session
from tidemill_services.domain.session_limits import GivenLimits
from tidemill_services.domain.session_use import Use
from tidemill_services.faults import log_fault
from tidemill_services.generation_admission import Admission, Admitted, engine_request
from tidemill_services.generation_events import Event, Waiting
from tidemill_services.generation_run import GenerationRun
from tidemill_services.generation_trace import GenerationTrace
from tidemill_services.identity import Caller
from tidemill_services.metrics import Metrics
from tidemill_services.metrics.generations import ModelMetrics
from tidemill_services.scaler.replicas import Replicas
from tidemill_services.session_streams import NO_SESSION, RunningStream, SessionStreams
from tidemill_services.store import prices, sessions
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.memory import Memory
from tidemill_services.store.topics import key_sessions_topic, session_topic
from tidemill_services.token_funds import Reservation, TokenFunds
from tidemill_services.usage_limits import CallPlaces, UsageGuard
from tidemill_telemetry.call_record import current_call
from tidemill_telemetry.tracing import Tracing

AUTO_SESSION_LIMITS = GivenLimits(idle_timeout_ms=300_000)


class Generations:
    """Runs generations for the doors of the control plane."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        replicas: Replicas,
        streams: SessionStreams,
        metrics: Metrics,
        tracing: Tracing,
        guard: UsageGuard,
        funds: TokenFunds,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._replicas = replicas
        self._streams = streams
        self._metrics = metrics.generations
        self._tracing = tracing
        self._payers = Memory[tuple[str, str, str], Session | Price](database, _topic_of)
        self._guard = guard
        self._funds = funds

    @asynccontextmanager
    async def admit(
        self, caller: Caller, *, model: str, session: str, options: GenerationOptions
    ) -> AsyncGenerator[Admission]:
        """Check what does not depend on the prompt, and have a session, or the account, pay for what runs in the block.

        `model` and `session` are bare names; an empty one is found from the other, or from the key. Raises the typed
        error of whatever is wrong.
        """
        arrived = time.monotonic()
        check_options(options)
        if not session:
            model = (await self._catalogue.resolve(caller, model)).name
        asked = (caller.key_id, "" if session else model, session)
        paying = await self._payers.ask(asked, _find_payer, caller, *asked[1:])
        session_id, price = (paying.session_id, None) if isinstance(paying, Session) else (NO_SESSION, paying)
        _name_in_logs(session_id, paying.model)
        with self._streams.call(session_id):
            if isinstance(paying, Session):
                if not self._payers.holds(asked):
                    self._streams.look()  # it may have been stopped just before this call was counted
                _require_paying(paying, model)
            served = await self._catalogue.resolve(caller, paying.model)
            with await self._guard.generation(caller):
                places = CallPlaces(self._guard, caller)
                yield Admission(served, caller.account_id, session_id, price, options, arrived, places)

    async def open_session(self, caller: Caller, *, model: str, wait: WaitPolicy) -> None:
        """Open a session of the key that ends when it is idle for 5 minutes; one that is open already stays as it is.

        Whoever does not wait for a model that sleeps is refused before, and pays for nothing. Raises ModelColdError,
        which wakes the model, ModelFailedError, StoreUnavailableError.
        """
        served = await self._catalogue.resolve(caller, model)
        if wait.fail_fast or wait.fail_cold:
            await self._replicas.require_ready(served.name)
        await self._database.write(_open_session, caller, served)

    async def check(
        self, caller: Caller, *, model: str, options: GenerationOptions, prompt: PromptInput | ChatInput, field: str
    ) -> None:
        """Raise the typed error of a request that could not run even if something paid for it."""
        served = await self._catalogue.resolve(caller, model)
        engine_request(served, await served.encode(prompt, field), options, field)

    def waiting(self, model: str) -> Waiting:
        """A sign of life that says how the model is."""
        return Waiting(self._replicas.waiting_status(model))

    async def stream(
        self, admitted: Admitted, *, deadline: float | None = None, running: RunningStream | None = None
    ) -> AsyncGenerator[Event]:
        """Yield the generation's events; the last is its End. `deadline` is on the clock of `time.monotonic`.

        `running` lets the caller end it early, too.

        Raises a typed error as long as no text was yielded.
        """
        trace = GenerationTrace(self._tracing, admitted)
        metrics = self._metrics.of(admitted.model)
        run = GenerationRun(admitted, self._replicas, self._streams.waits, deadline, metrics.token_gaps, trace.origin)
        failure = ""
        metrics.begin()
        try:
            with self._streams.running(admitted.session_id, running or RunningStream()) as stoppable:
                async with self._paid(run, stoppable), aclosing(run.events(stoppable)) as events:
                    async for event in events:
                        yield event
        except Exception as error:
            refusal = error if isinstance(error, TidemillError) else log_fault(error, "a generation")
            end = run.end(FinishReason.ERROR, refusal)
            failure = refusal.reason
            if not run.has_shown:
                raise refusal from error
            yield end
        finally:
            _measure(run, metrics)
            if run.taken is not None:
                self._streams.note_use(admitted.session_id, Use(1, admitted.num_prompt_tokens, run.num_tokens))
            trace.end(run, failure)

    @asynccontextmanager
    async def _paid(self, run: GenerationRun, running: RunningStream) -> AsyncGenerator[None]:
        """Have a place to run in, and the credits of its tokens set aside where these pay; charge what it used."""
        admitted = run.admitted
        num_prompt_tokens, max_tokens = admitted.num_prompt_tokens, admitted.request.max_tokens
        places = admitted.places
        with await places.one(), await places.tokens(num_prompt_tokens + max_tokens) as used:
            if admitted.price is None:
                reservation = None
            else:
                reservation = await self._funds.reserve(places.caller, admitted.price, num_prompt_tokens, max_tokens)
            try:
                if reservation is None:
                    yield
                else:
                    with self._streams.paid_by_tokens(places.caller.key_id, running):
                        yield
            finally:
                if run.taken is not None:
                    used.num_tokens = num_prompt_tokens + run.num_tokens
                if reservation is not None:
                    _charge(run, running, reservation)


def _charge(run: GenerationRun, running: RunningStream, reservation: Reservation) -> None:
    """Charge what was handed out, or have whoever knows better do so. Whatever showed nothing costs nothing."""
    usage = run.usage()
    if not run.has_shown:
        reservation.release()
    elif running.on_charge is not None:
        running.on_charge(reservation, usage)
    else:
        reservation.charge(usage.prompt_tokens, usage.completion_tokens)


def _measure(run: GenerationRun, metrics: ModelMetrics) -> None:
    if run.taken is not None:
        metrics.taken(run.taken - run.arrived, run.admitted.num_prompt_tokens)
    if run.first_text is not None:
        metrics.said_first(run.first_text - run.arrived)
    metrics.end(run.finish_reason, run.num_tokens, time.monotonic() - run.arrived, run.num_cached_prompt_tokens)


def _name_in_logs(session_id: str, model: str) -> None:
    call = current_call()
    if call is not None:
        call.session, call.model = session_id, model


def _require_paying(session: Session, model: str) -> None:
    """Raise SessionEndedError, or FieldInvalidError, unless the session pays for the model."""
    if not session.is_open:
        raise SessionEndedError(field="session")
    if model not in ("", session.model):
        raise FieldInvalidError(f"The session pays for {session.model}, and the request names {model}.", field="model")


def _find_payer(tx: Transaction, caller: Caller, model: str, session_id: str) -> Session | Price:
    """The session of that id, else the key's open one of the model, else the price of what the account pays itself."""
    if session_id:
        return sessions.get_session(tx, caller.account_id, session_id)
    session = sessions.open_session_of(tx, caller.key_id, model)
    if session is not None:
        return session
    if not caller.pays_per_token:
        raise NoSessionError
    return prices.price_of(tx, model, caller.account_id)


def _topic_of(key: tuple[str, str, str], payer: Session | Price) -> str:
    return session_topic(payer.session_id) if isinstance(payer, Session) else key_sessions_topic(key[0])


def _open_session(tx: Transaction, caller: Caller, served: ServedModel) -> None:
    """A unit of work: however many want one at once, it is opened once."""
    found = sessions.open_session_of(tx, caller.key_id, served.name)
    if found is None or not sessions.settle_session(tx, found).is_open:
        price = prices.price_of(tx, served.name, caller.account_id)
        sessions.start_session(
            tx,
            account_id=caller.account_id,
            key_id=caller.key_id,
            model=served.name,
            holder=caller.key_id,
            price_microcredits_per_second=price.session_microcredits_per_second,
            price_revision=price.revision,
            limits=AUTO_SESSION_LIMITS,
        )
