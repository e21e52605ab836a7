"""One connected control process: its sequences, and what waits to be sent to it."""

import asyncio

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_serving.engine import Load, SequenceOutput
from tidemill_serving.server.wire import write_step


class Caller:
    """The state of one stream. Used from the event loop only.

    What waits is bounded: while the stream's writer lags, the outputs of several steps gather here and become one
    message, and above `max_pending_size` (characters, token ids, log-probabilities) the caller counts as overflowed.
    Outputs that may gather wait for `send_gathered`, or for one of their sequence that may not.
    """

    def __init__(self, max_pending_size: int) -> None:
        self.engine_ids: dict[int, int] = {}  # of its running sequences: its own id → the engine's
        self.last_sequence_id = -1
        self.overflowed = False
        self.is_unreadable = False  # it sent what is no message
        self._max_pending_size = max_pending_size
        self._pending_size = 0
        self._outputs: dict[int, list[SequenceOutput]] = {}  # by sequence, all that waits
        self._urgent: set[int] = set()  # of these sequences, those whose outputs gather no longer
        self._rejected: list[int] = []
        self._status: pb.ConnectResponse | None = None
        self._step_number = 0
        self._load: Load | None = None
        self._closed = False
        self._wake = asyncio.Event()

    def put_status(self, status: pb.ConnectResponse) -> None:
        """Send `status` before anything else that waits; a newer one replaces it."""
        self._status = status
        self._wake.set()

    def put_output(self, sequence_id: int, output: SequenceOutput, *, gathers: bool = False) -> None:
        """Send `output`, behind what has gathered of its sequence, with the next message; later if it `gathers`."""
        if self._has_room_for(_size(output)):
            parts = self._outputs.get(sequence_id)
            if parts is None:
                self._outputs[sequence_id] = [output]
            else:
                parts.append(output)
            if not gathers:
                self._urgent.add(sequence_id)
                self._wake.set()

    def send_gathered(self) -> bool:
        """Send all that waits with the next message; False when nothing gathers."""
        if len(self._urgent) == len(self._outputs):
            return False
        self._urgent.update(self._outputs)
        self._wake.set()
        return True

    def put_rejection(self, sequence_id: int) -> None:
        """Say with the next message that this sequence was not taken."""
        if self._has_room_for(1):
            self._rejected.append(sequence_id)
            self._wake.set()

    def _has_room_for(self, size: int) -> bool:
        self._pending_size += size
        if self._pending_size > self._max_pending_size:
            self.overflowed = True
            self._wake.set()
        return not self.overflowed

    def put_load(self, step_number: int, load: Load) -> None:
        """The step, and the load after it, of what was put last."""
        self._step_number, self._load = step_number, load

    def close(self) -> None:
        """End the stream after what waits."""
        self._closed = True
        self._wake.set()

    async def next_message(self) -> pb.ConnectResponse | None:
        """The next message to send; None when the stream is to end."""
        while True:
            if self.overflowed:
                return None
            if self._status is not None:
                status, self._status = self._status, None
                return status
            if self._load is not None and (self._urgent or self._rejected):
                outputs, (rejected, self._rejected) = self._take_urgent(), (self._rejected, [])
                self._pending_size -= len(rejected)
                return write_step(self._step_number, outputs.items(), rejected, self._load)
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()

    def _take_urgent(self) -> dict[int, list[SequenceOutput]]:
        urgent, self._urgent = self._urgent, set()
        if len(urgent) == len(self._outputs):
            taken, self._outputs = self._outputs, {}
        else:
            taken = {sequence_id: self._outputs.pop(sequence_id) for sequence_id in urgent}
        self._pending_size -= sum(_size(output) for parts in taken.values() for output in parts)
        return taken


def _size(output: SequenceOutput) -> int:
    return len(output.text) + len(output.token_ids) + _num_logprobs(output) + 1


def _num_logprobs(output: SequenceOutput) -> int:
    return sum(1 + len(each.top) for each in output.logprobs) if output.logprobs else 0
