"""What choosing needs of whole rows of logits: each block's highest, and the softmax. With ONNX Runtime's operators.

They use all processors, and their exponential is four times as fast as numpy's. A row's bits do not depend on the
other rows or on the number of threads.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.decoder.devices.device import FloatArray
from tidemill_serving.decoder.small_graph import Node, graph_of

BLOCK_LENGTH = 32  # tokens of which the highest logit is told
SUM_LENGTH = 256  # tokens of which the weight is told; whole blocks
_QUIET = 4  # log nothing: every failure comes back as an exception


class WholeRows:
    """Rows of one length, with room for them that is kept. What it returns is valid until its next call of that kind.

    Rows are filled up to a whole number of `SUM_LENGTH` with minus infinity.
    """

    def __init__(self, vocab_size: int, *, num_threads: int) -> None:
        self.vocab_size = vocab_size
        self.width = -(-vocab_size // SUM_LENGTH) * SUM_LENGTH
        self._num_threads = num_threads
        self._rows = np.empty((0, self.width), np.float32)
        self._shares = np.empty((0, self.width), np.float32)

    def room(self, num_rows: int) -> FloatArray:
        """Rows [n, width] to write logits into; what is behind the vocabulary stays."""
        if len(self._rows) < num_rows:
            self._rows = np.full((num_rows, self.width), -np.inf, np.float32)
        return self._rows[:num_rows]

    def maxima(self, rows: FloatArray) -> FloatArray:
        """The highest of each block, [n, blocks]. `rows` are [n, width]."""
        blocks = rows.reshape(len(rows), -1, BLOCK_LENGTH)
        maxima = np.empty(blocks.shape[:2], np.float32)
        _run(self._maxima_session, {"rows": blocks}, {"maxima": maxima})
        return maxima

    def softmax(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The share of each token [n, width] and of each `SUM_LENGTH` of them. `rows` are [n, width]."""
        if len(self._shares) < len(rows):
            self._shares = np.empty((len(rows), self.width), np.float32)
        shares = self._shares[: len(rows)]
        sums = np.empty((len(rows), self.width // SUM_LENGTH), np.float32)
        _run(self._softmax_session, {"rows": rows}, {"shares": shares, "sums": sums})
        return shares, sums

    @cached_property
    def _maxima_session(self) -> Any:
        node = Node("ReduceMax", ["rows", "last"], "maxima", {"keepdims": 0})
        shape = ("n", self.width // BLOCK_LENGTH, BLOCK_LENGTH)
        return self._session(graph_of([node], inputs={"rows": shape}, outputs=["maxima"], constants={"last": [2]}))

    @cached_property
    def _softmax_session(self) -> Any:
        nodes = [
            Node("Softmax", ["rows"], "shares", {"axis": -1}),
            Node("Reshape", ["shares", "shape"], "blocks"),
            Node("ReduceSum", ["blocks", "last"], "sums", {"keepdims": 0}),
        ]
        constants = {"shape": [0, self.width // SUM_LENGTH, SUM_LENGTH], "last": [2]}
        shape = ("n", self.width)
        return self._session(graph_of(nodes, inputs={"rows": shape}, outputs=["shares", "sums"], constants=constants))

    def _session(self, graph: bytes) -> Any:
        import onnxruntime as ort  # noqa: PLC0415 - only who draws by chance needs it

        options = ort.SessionOptions()
        options.intra_op_num_threads = self._num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        options.enable_mem_pattern = False
        # The model's own threads may spin still; these would fight them for the processors.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _run(session: Any, inputs: dict[str, NDArray[np.generic]], outputs: dict[str, NDArray[np.generic]]) -> None:
    """One run on the arrays' own memory."""
    import onnxruntime as ort  # noqa: PLC0415 - see above

    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
    session.run_with_iobinding(binding)
