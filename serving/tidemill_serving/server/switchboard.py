"""The wall between the engine's thread and the event loop: every sequence of every caller passes here.

The engine's thread only appends to a queue and wakes the loop; everything else here runs in the loop. Steps that
follow each other fast are passed on together (`gather_seconds`), since a message costs as much as ten tokens in it, all
the way to the reader. The first step after a pause, and one in which a sequence begins or ends, are passed on at once.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_serving.engine import Engine, EngineBusyError, FinishReason, Phase, SequenceOutput, Step
from tidemill_serving.server.caller import Caller
from tidemill_serving.server.sequence_trace import SequenceTrace
from tidemill_serving.server.wire import SubmitInvalidError, add_start_steps, read_submit, write_status
from tidemill_serving.start_times import StartTimes
from tidemill_telemetry.tracing import Tracing

_log = logging.getLogger(__name__)

GATHER_SECONDS = 0.004  # nobody reads faster
GATHER_SECONDS_OF_A_SEQUENCE = 0.000_25  # what a message of its own costs, all the way to its reader
LONGEST_GATHER_SECONDS = 0.016  # a reader's screen shows no more often


def gather_seconds(num_sequences: int) -> float:
    """How long to gather steps of so many sequences: the more there are, the more of the machine each passing on takes.

    An engine whose steps take longer than this is passed on step by step.
    """
    return max(GATHER_SECONDS, min(LONGEST_GATHER_SECONDS, num_sequences * GATHER_SECONDS_OF_A_SEQUENCE))


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the engine is in its life, as it said last."""

    phase: Phase
    progress: float = 0.0
    detail: str = ""


class _Owner(NamedTuple):
    """Whose a sequence is."""

    caller: Caller
    sequence_id: int  # the caller's
    trace: SequenceTrace


class Switchboard:
    """Brings sequences to the engine and what it makes back to the callers that they belong to.

    Callers choose their own ids; the engine sees ids of ours. `on_change` is called in the loop when the stage
    changed or the last running sequence ended.
    """

    def __init__(
        self,
        engine: Engine,
        max_pending_size: int,
        on_change: Callable[[], None],
        tracing: Tracing,
        times: StartTimes,
    ) -> None:
        self.stage = Stage(Phase.LOADING)
        self.responsive = True
        self._engine = engine
        self._max_pending_size = max_pending_size
        self._on_change = on_change
        self._tracing = tracing
        self._times = times
        self._loop = asyncio.get_running_loop()
        self._callers: set[Caller] = set()
        self._owners: dict[int, _Owner] = {}  # by the engine's id
        self._engine_ids = itertools.count(1)
        self._heard: deque[Stage | Step] = deque()
        self._speaking: set[int] = set()  # engine's ids of which something was heard; the engine's thread's own
        self._will_look = False  # the loop comes to what was heard without being woken
        self._next_look: asyncio.TimerHandle | None = None
        self._step_number = 0
        self._closed = False

    # The engine's thread.

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        """See EngineListener."""
        self._hear(Stage(phase, progress, detail), at_once=True)

    def on_step(self, step: Step) -> None:
        """See EngineListener."""
        speaking, at_once = self._speaking, False
        for output in step.outputs:
            if output.finish_reason is not None:
                speaking.discard(output.sequence_id)
                at_once = True
            elif output.sequence_id not in speaking:
                speaking.add(output.sequence_id)
                at_once = True
        self._hear(step, at_once=at_once)

    def _hear(self, said: Stage | Step, *, at_once: bool) -> None:
        self._heard.append(said)
        if at_once or not self._will_look:
            self._will_look = True
            self._loop.call_soon_threadsafe(self._pass_on)

    # The loop.

    def _pass_on(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        self._will_look = False  # before we look: what comes after this line wakes us
        if not self._heard:
            return
        if isinstance(self._heard[-1], Step):  # more will follow: it runs
            self._will_look = True
            self._next_look = self._loop.call_later(gather_seconds(len(self._owners)), self._pass_on)
        while self._heard:
            said = self._heard.popleft()
            if isinstance(said, Step):
                self._pass_step_on(said)
            else:
                self._enter(said)

    def _pass_step_on(self, step: Step) -> None:
        self._step_number = step.number
        was_busy = bool(self._owners)
        for output in step.outputs:
            owner = self._owners.get(output.sequence_id)
            if owner is None:
                continue  # its caller has gone
            caller, sequence_id, trace = owner
            caller.put_load(step.number, step.load)
            caller.put_output(sequence_id, output)
            if output.finish_reason is not None:
                del self._owners[output.sequence_id]
                del caller.engine_ids[sequence_id]
                trace.end(output)
            if caller.overflowed:
                self._abort_all_of(caller)
        if was_busy and not self._owners:
            self._on_change()

    def _enter(self, stage: Stage) -> None:
        if self.stage.phase is Phase.FAILED:
            return
        if self.stage.phase is Phase.DRAINING and stage.phase is not Phase.FAILED:
            return  # that the model became ready meanwhile does not undo the drain
        if stage.phase is not self.stage.phase:
            _log.info("%s: %s", stage.phase.value, stage.detail or f"{stage.progress:.0%}")
        self.stage = stage
        self.tell_status()
        if stage.phase is Phase.FAILED:
            self._end_all_with_error(stage.detail)
        self._on_change()

    def _end_all_with_error(self, detail: str) -> None:
        """What an engine that broke left open must not stay open."""
        load = self._engine.load()
        for caller, sequence_id, trace in self._owners.values():
            last = _error(sequence_id, detail)
            caller.put_load(self._step_number, load)
            caller.put_output(sequence_id, last)
            caller.engine_ids.clear()
            trace.end(last)
        self._owners.clear()

    @property
    def num_running(self) -> int:
        """Sequences of all callers that have not ended."""
        return len(self._owners)

    @property
    def num_callers(self) -> int:
        """Connected control processes."""
        return len(self._callers)

    def drain(self) -> None:
        """Take nothing new from now on."""
        self._enter(Stage(Phase.DRAINING, 1.0, "It finishes what runs."))

    def tell_status(self) -> None:
        """Send every caller how the replica is now."""
        status = self._status()
        for caller in self._callers:
            caller.put_status(status)

    def _status(self) -> pb.ConnectResponse:
        stage, load = self.stage, self._engine.load()
        silent_seconds = None if self.responsive else time.monotonic() - self._engine.last_life()
        status = write_status(
            stage.phase,
            stage.progress,
            stage.detail,
            silent_seconds=silent_seconds,
            load=load,
            stats=self._engine.stats(),
        )
        add_start_steps(status, self._times.seconds())
        return status

    def connect(self) -> Caller:
        """A new caller; its first message is the status."""
        caller = Caller(self._max_pending_size)
        caller.put_status(self._status())
        self._callers.add(caller)
        if self._closed:
            caller.close()
        return caller

    def disconnect(self, caller: Caller) -> None:
        """The caller has gone, or its stream ended: abort what it left."""
        self._callers.discard(caller)
        self._abort_all_of(caller)

    def submit(self, caller: Caller, submit: pb.Submit) -> None:
        """Take a sequence in, or tell the caller why not."""
        sequence_id = submit.sequence_id
        caller.put_load(self._step_number, self._engine.load())
        if sequence_id <= caller.last_sequence_id:
            error = f"sequence_id {sequence_id} is not above {caller.last_sequence_id}, the last one of this stream."
            self._forget(caller, sequence_id)
            caller.put_output(sequence_id, _error(sequence_id, error))
            return
        caller.last_sequence_id = sequence_id
        if self.stage.phase is not Phase.READY or caller.overflowed:
            caller.put_rejection(sequence_id)
            return
        engine_id = next(self._engine_ids)
        try:
            request = read_submit(submit, engine_id, caller)
            self._engine.submit(request)
        except SubmitInvalidError as error:
            caller.put_output(sequence_id, _error(sequence_id, str(error)))
        except EngineBusyError:
            caller.put_rejection(sequence_id)
        else:
            # What the engine says of it comes through the loop, so not before this line.
            self._owners[engine_id] = _Owner(caller, sequence_id, SequenceTrace(self._tracing, request.origin))
            caller.engine_ids[sequence_id] = engine_id

    def abort(self, caller: Caller, sequence_id: int) -> None:
        """End one sequence of `caller`; unknown ids are ignored."""
        engine_id = caller.engine_ids.get(sequence_id)
        if engine_id is not None:
            self._engine.abort(engine_id)

    def abort_all(self) -> None:
        """End every sequence, with CANCELLED; its callers hear of it."""
        for engine_id in self._owners:
            self._engine.abort(engine_id)

    def close(self) -> None:
        """End every stream after what waits for it, also those that come later."""
        self._pass_on()
        self._closed = True
        for caller in self._callers:
            caller.close()

    def _abort_all_of(self, caller: Caller) -> None:
        for sequence_id in tuple(caller.engine_ids):
            self._forget(caller, sequence_id)

    def _forget(self, caller: Caller, sequence_id: int) -> None:
        """End a sequence; what is still made for it goes nowhere."""
        engine_id = caller.engine_ids.pop(sequence_id, None)
        if engine_id is None:
            return
        self._engine.abort(engine_id)
        self._owners.pop(engine_id).trace.end()
        if not self._owners:
            self._on_change()


def _error(sequence_id: int, sentence: str) -> SequenceOutput:
    return SequenceOutput(sequence_id, finish_reason=FinishReason.ERROR, error=sentence)
