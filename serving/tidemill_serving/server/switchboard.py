"""The wall between the engine's thread and the event loop: every sequence of every caller passes here.

The engine's thread only appends to a queue and wakes the loop; everything else here runs in the loop. Steps that
follow each other fast are passed on together (`gathering`). The first step after a pause is passed on at once, and so
is each sequence's first and its last.
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
from tidemill_serving.server.gathering import Gathering
from tidemill_serving.server.sequence_trace import SequenceTrace
from tidemill_serving.server.wire import SubmitInvalidError, add_start_steps, read_submit, write_status
from tidemill_serving.start_times import StartTimes
from tidemill_telemetry.tracing import Tracing

_log = logging.getLogger(__name__)


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
    gather_microseconds: int  # see Submit


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
        self._unheard: set[int] = set()  # engine's ids, nothing of them was heard; the engine's thread looks, too
        self._gathering = Gathering()
        self._is_called = False  # to `_pass_on`
        self._will_look = False  # and comes to it without being called
        self._next_look: asyncio.TimerHandle | None = None
        self._step_number = 0
        self._closed = False

    # The engine's thread.

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        """See EngineListener."""
        self._heard.append(Stage(phase, progress, detail))
        self._call()

    def on_step(self, step: Step) -> None:
        """See EngineListener."""
        is_due = self._gathering.step_came(time.monotonic())
        self._heard.append(step)
        if is_due or not self._will_look:
            self._call()
        elif not self._is_called and any(map(self._is_first_or_last, step.outputs)):
            self._loop.call_soon_threadsafe(self._take_heard)

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._pass_on)

    def _is_first_or_last(self, output: SequenceOutput) -> bool:
        return output.finish_reason is not None or output.sequence_id in self._unheard

    # The loop.

    def _pass_on(self) -> None:
        """All that was heard, and what has gathered."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._is_called = self._will_look = False  # before we look: what comes after this line calls us
        is_running = self._take_heard()
        sent = [caller.send_gathered() for caller in self._callers]
        if is_running or any(sent):
            self._gathering.passed_on(self._loop.time())
            self._will_look = True
            self._next_look = self._loop.call_later(self._gathering.patience_seconds, self._pass_on)

    def _take_heard(self) -> bool:
        """Put what was heard where it gathers, and send what is not to wait. True for a step: more will follow."""
        is_running = False
        while self._heard:
            said = self._heard.popleft()
            is_running = isinstance(said, Step)
            if isinstance(said, Step):
                self._take_step(said)
            else:
                self._enter(said)
        return is_running

    def _take_step(self, step: Step) -> None:
        self._step_number = step.number
        was_busy = bool(self._owners)
        for output in step.outputs:
            engine_id = output.sequence_id
            owner = self._owners.get(engine_id)
            if owner is None:
                continue  # its caller has gone
            caller, sequence_id = owner.caller, owner.sequence_id
            caller.put_load(step.number, step.load)
            caller.put_output(sequence_id, output, gathers=not self._is_first_or_last(output))
            self._unheard.discard(engine_id)
            if output.finish_reason is not None:
                del caller.engine_ids[sequence_id]
                self._disown(engine_id).trace.end(output)
            if caller.overflowed:
                self._abort_all_of(caller)
        if was_busy and not self._owners:
            self._on_change()

    def _disown(self, engine_id: int) -> _Owner:
        owner = self._owners.pop(engine_id)
        self._unheard.discard(engine_id)
        self._gathering.microseconds -= owner.gather_microseconds
        return owner

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
        for engine_id in tuple(self._owners):
            caller, sequence_id, trace, _ = self._disown(engine_id)
            last = _error(sequence_id, detail)
            caller.put_load(self._step_number, load)
            caller.put_output(sequence_id, last)
            caller.engine_ids.clear()
            trace.end(last)

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
            self._unheard.add(engine_id)  # before the engine's thread may look
            self._engine.submit(request)
        except SubmitInvalidError as error:
            caller.put_output(sequence_id, _error(sequence_id, str(error)))
        except EngineBusyError:
            self._unheard.discard(engine_id)
            caller.put_rejection(sequence_id)
        else:
            # What the engine says of it comes through the loop, so not before this line.
            trace = SequenceTrace(self._tracing, request.origin)
            self._owners[engine_id] = _Owner(caller, sequence_id, trace, submit.gather_microseconds)
            self._gathering.microseconds += submit.gather_microseconds
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
        self._disown(engine_id).trace.end()
        if not self._owners:
            self._on_change()


def _error(sequence_id: int, sentence: str) -> SequenceOutput:
    return SequenceOutput(sequence_id, finish_reason=FinishReason.ERROR, error=sentence)
