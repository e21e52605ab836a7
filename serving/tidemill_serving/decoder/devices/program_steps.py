"""Which nodes of a graph are steps of a program of ours, see `native/program.h`.

Those stay what they are that our kernels have no answer for: attention with windows, soft caps, sinks, quantised
caches or caches of float16; products of other precisions; norms along another axis.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tidemill_serving.decoder.devices.graph_nodes import FLOAT32, UINT8, Attribute, Constants, Node, float_bits
from tidemill_serving.native.library import Kernels, Matrix, QuantizedMatrix

NORM, PRODUCT, GATE, ATTENTION, FLOAT_PRODUCT = 1, 2, 3, 4, 5
_PRODUCTS = (PRODUCT, FLOAT_PRODUCT)
_TURNED: tuple[list[int], ...] = ([], [1, 0])  # orders of dimensions that turn a matrix
PACKED = "packed "  # what the names of packed weights begin with
_NUM_PRODUCT_INPUTS = 4  # input, values, scales, zero points; behind them an order of the depth, and a bias
_ACCURACY_LEVEL = 4  # the input in 8 bits
_NUM_NORM_INPUTS, _NUM_SKIP_INPUTS, _SKIP_SUM = 2, 3, 3
_NUM_ATTENTION_INPUTS = 9  # up to the tables of angles; what stands behind them our kernel does not know
_KEY, _PAST_KEY, _COSINES = 1, 3, 7
_LANES, _LARGEST_HEAD, _MOST_HEADS_OF_A_GROUP = 8, 512, 16
_OUTSIDE = -1  # who reads what the graph gives out

# What an attention reads; and what may be said besides, since it changes nothing.
_READ = frozenset({"num_heads", "kv_num_heads", "scale", "do_rotary", "rotary_interleaved"})
_WITHOUT_EFFECT: Mapping[str, frozenset[Attribute]] = {
    "local_window_size": frozenset({-1}),
    "softcap": frozenset({0.0}),
    "smooth_softmax": frozenset({0, -1}),
    "qk_output": frozenset({0}),
    "causal": frozenset({1}),
    "k_quant_type": frozenset({"NONE"}),
    "v_quant_type": frozenset({"NONE"}),
    "kv_cache_bit_width": frozenset({0}),
    "sliding_window_cache": frozenset({0}),
    "qk_norm_epsilon": frozenset({1e-6}),
}


@dataclass(frozen=True, slots=True)
class Step:
    """What one or several nodes compute. Names that are empty stand for what is not there."""

    kind: int
    nodes: frozenset[int]  # their places in the graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: tuple[int, ...]
    rows: tuple[str, ...]  # the inputs that have a row for each token
    matrices: Mapping[str, Matrix]  # what is to be packed, by the packed weights' names
    constants: frozenset[str] = frozenset()  # what nothing needs any more that the step stands for


class StepReader:
    """Finds the steps among a graph's nodes."""

    def __init__(
        self,
        nodes: Sequence[Node],
        constants: Constants,
        inputs: Mapping[str, tuple[int, list[int | str]]],
        outputs: Sequence[str],
        kernels: Kernels,
    ) -> None:
        """`inputs`: the graph's, with their element types and dimensions; `outputs`: what it gives out."""
        self._nodes = nodes
        self._constants = constants
        self._inputs = inputs
        self._kernels = kernels
        self._has_written_out_attention = any(node.kind == "Softmax" for node in nodes)
        self._readers: dict[str, set[int]] = defaultdict(set)
        for place, node in enumerate(nodes):
            for name in node.names_read:
                self._readers[name].add(place)
        for name in outputs:
            self._readers[name].add(_OUTSIDE)
        self._makers = {name: place for place, node in enumerate(nodes) for name in node.outputs if name}
        self._steps: dict[str, Step] = {}  # by their first outputs

    def read(self) -> dict[int, Step]:
        """The steps, by the last of their nodes."""
        kinds = {
            "com.microsoft::MatMulNBits": self._product,
            "MatMul": self._float_product,
            "com.microsoft::GroupQueryAttention": self._attention,
            "com.microsoft::SkipSimplifiedLayerNormalization": self._skip_norm,
            "SimplifiedLayerNormalization": self._norm,
            "Add": self._bias,
            "Mul": self._gate,
        }
        for place, node in enumerate(self._nodes):
            read = kinds.get(node.kind)
            for step in () if read is None else read(place, node):
                for name in [name for name, known in self._steps.items() if known.nodes & step.nodes]:
                    del self._steps[name]  # it is a part of this one
                self._steps[step.outputs[0]] = step
        return {max(step.nodes): step for step in self._steps.values()}

    def readers(self, name: str) -> set[int]:
        """The places of the nodes that read a value; -1 where the graph gives it out."""
        return self._readers[name]

    def _product(self, place: int, node: Node) -> Iterator[Step]:
        names, numbers = node.inputs, node.attributes
        if not 3 <= len(names) <= _NUM_PRODUCT_INPUTS or numbers.get("accuracy_level") != _ACCURACY_LEVEL:
            return
        has_points = len(names) == _NUM_PRODUCT_INPUTS
        values, scales = self._constants.array(names[1], UINT8), self._constants.array(names[2], FLOAT32)
        points = self._constants.array(names[3], UINT8) if has_points else None
        if values is None or scales is None or (points is None and has_points) or numbers.get("weight_prepacked"):
            return
        depth, width, bits, block = (numbers.get(name, usual) for name, usual in _SHAPE_OF_PRODUCT.items())
        if not (isinstance(depth, int) and isinstance(width, int) and isinstance(bits, int) and isinstance(block, int)):
            return
        matrix = QuantizedMatrix(depth, width, bits, block, values, scales, points)
        if self._kernels.packed_bytes(matrix):
            packed = PACKED + " ".join((*names[1:], f"{depth}x{width}"))
            shape = (depth, width, bits, block, int(has_points))
            yield Step(
                PRODUCT,
                frozenset({place}),
                (names[0], packed),
                node.outputs[:1],
                shape,
                names[:1],
                {packed: matrix},
                frozenset(names[1:]),
            )

    def _float_product(self, place: int, node: Node) -> Iterator[Step]:
        """A product with a constant matrix, which may be turned on its way, as that of an embedding that is the head.

        A graph that writes its attention out stays: ONNX Runtime fuses its products with what is around them.
        """
        if not self._kernels.multiplies_floats or self._has_written_out_attention or len(node.inputs) != 2:
            return
        turn = self._makers.get(node.inputs[1])
        is_turned = turn is not None and self.turns(self._nodes[turn])
        name = self._nodes[turn].inputs[0] if turn is not None and is_turned else node.inputs[1]
        dims, values = self._constants.dims(name, FLOAT32), self._constants.array(name, FLOAT32)
        if dims is None or values is None or len(dims) != 2:
            return
        matrix = values.reshape(dims).T if is_turned else values.reshape(dims)
        if self._kernels.packed_float_bytes(matrix):
            depth, width = matrix.shape
            packed = f"{PACKED}{name} {depth}x{width}{' turned' if is_turned else ''}"
            inputs, rows, constants = (node.inputs[0], packed), node.inputs[:1], frozenset({name})
            numbers = (depth, width)
            nodes = frozenset({place})
            yield Step(FLOAT_PRODUCT, nodes, inputs, node.outputs[:1], numbers, rows, {packed: matrix}, constants)

    def turns(self, node: Node) -> bool:
        """Whether a node turns a matrix: nothing needs it once its products are ours."""
        return node.kind == "Transpose" and node.orders in _TURNED

    def _bias(self, place: int, node: Node) -> Iterator[Step]:
        """A constant that is added to a product."""
        for rows, bias in (node.inputs, node.inputs[::-1]) if len(node.inputs) == 2 else ():
            product = self._steps.get(rows)
            if product is None or product.kind not in _PRODUCTS or len(product.inputs) > 2:
                continue
            if self._readers[rows] == {place} and self._constants.dims(bias, FLOAT32) == [product.numbers[1]]:
                nodes, inputs = product.nodes | {place}, (*product.inputs, bias)
                yield replace(product, nodes=nodes, inputs=inputs, outputs=node.outputs[:1])
                return

    def _norm(self, place: int, node: Node) -> Iterator[Step]:
        if len(node.inputs) != _NUM_NORM_INPUTS or any(node.outputs[1:]) or node.attributes.get("axis", -1) != -1:
            return
        yield from self._norm_of(place, node, node.inputs[:1], node.inputs[1], node.outputs[:1])

    def _skip_norm(self, place: int, node: Node) -> Iterator[Step]:
        if len(node.inputs) != _NUM_SKIP_INPUTS or any(node.outputs[1:_SKIP_SUM]):
            return
        outputs = (node.outputs[0], *node.outputs[_SKIP_SUM:])
        yield from self._norm_of(place, node, node.inputs[:2], node.inputs[2], outputs)

    def _norm_of(
        self, place: int, node: Node, rows: tuple[str, ...], gamma: str, outputs: tuple[str, ...]
    ) -> Iterator[Step]:
        dims, epsilon = self._constants.dims(gamma, FLOAT32), node.attributes.get("epsilon")
        if dims is None or len(dims) != 1 or not isinstance(epsilon, float):
            return
        inputs, numbers = (rows[0], gamma, *rows[1:]), (dims[0], float_bits(epsilon))
        yield Step(NORM, frozenset({place}), inputs, outputs, numbers, rows, {})

    def _gate(self, place: int, node: Node) -> Iterator[Step]:
        """x * sigmoid(x) * y, of two products, or of rows whose width one of them says."""
        for silu, up in (node.inputs, node.inputs[::-1]) if len(node.inputs) == 2 else ():
            found = self._silu(silu, place)
            if found is None:
                continue
            gate, nodes = found
            products = [self._steps.get(name) for name in (gate, up)]
            if gated := self._gated_product(products, nodes | {place}, node.outputs[:1]):
                yield gated
                return
            widths = [_width_of(product, name) for product, name in zip(products, (gate, up), strict=True) if product]
            if widths and widths[0]:
                rows = (gate, up)
                yield Step(GATE, nodes | {place}, rows, node.outputs[:1], (widths[0],), rows, {})
                return

    def _silu(self, name: str, place: int) -> tuple[str, frozenset[int]] | None:
        """x and the nodes that make x * sigmoid(x) of it, if `name` is that and is read at `place` alone."""
        made = self._makers.get(name)
        if made is None or self._readers[name] != {place}:
            return None
        node = self._nodes[made]
        if node.kind == "com.microsoft::QuickGelu" and node.attributes.get("alpha") == 1.0:
            return node.inputs[0], frozenset({made})
        for rows, sigmoid in (node.inputs, node.inputs[::-1]) if node.kind == "Mul" and len(node.inputs) == 2 else ():
            maker = self._makers.get(sigmoid)
            if maker is None or self._nodes[maker].kind != "Sigmoid" or self._nodes[maker].inputs != (rows,):
                continue
            if self._readers[sigmoid] == {made}:
                return rows, frozenset({made, maker})
        return None

    def _gated_product(
        self, products: Sequence[Step | None], nodes: frozenset[int], outputs: tuple[str, ...]
    ) -> Step | None:
        """Two products of one input and one shape, and a gate that alone reads them, as one step."""
        gate, up = products
        if gate is None or up is None or gate.kind != PRODUCT or up.kind != PRODUCT or gate.numbers != up.numbers:
            return None
        if gate.inputs[0] != up.inputs[0] or len(gate.inputs) > 2 or len(up.inputs) > 2 or gate is up:
            return None
        if not all(self._readers[step.outputs[0]] <= nodes for step in (gate, up)):
            return None
        return replace(
            gate,
            nodes=gate.nodes | up.nodes | nodes,
            inputs=(*gate.inputs, "", up.inputs[1]),
            outputs=outputs,
            matrices={**gate.matrices, **up.matrices},
            constants=gate.constants | up.constants,
        )

    def _attention(self, place: int, node: Node) -> Iterator[Step]:
        inputs, attributes = node.inputs, node.attributes
        cache = self._inputs.get(inputs[_PAST_KEY]) if len(inputs) > _PAST_KEY else None
        if cache is None or len(inputs) > _NUM_ATTENTION_INPUTS or not _is_plain(attributes):
            return
        if not attributes.get("do_rotary"):
            inputs = inputs[:_COSINES]
        heads, kv_heads = attributes.get("num_heads"), attributes.get("kv_num_heads")
        size = self._size_of_head(inputs, attributes, cache[1][-1] if cache[1] else "")
        if not _fits(heads, kv_heads, size, cache[0]):
            return
        scale = attributes.get("scale", 0.0)
        numbers = (heads, kv_heads, size, attributes.get("rotary_interleaved", 0), float_bits(float(scale or 0.0)))
        rows = tuple(name for name in inputs[:_PAST_KEY] if name)
        yield Step(ATTENTION, frozenset({place}), inputs, node.outputs[:3], numbers, rows, {})  # type: ignore[arg-type]

    def _size_of_head(self, inputs: Sequence[str], attributes: Mapping[str, Attribute], said: int | str) -> int:
        """As the cache has it, or as the product has it that makes the query; 0 where that is open."""
        query, heads, kv_heads = self._steps.get(inputs[0]), attributes.get("num_heads"), attributes.get("kv_num_heads")
        if isinstance(said, int):
            return said
        if query is None or query.kind not in _PRODUCTS or not isinstance(heads, int) or not isinstance(kv_heads, int):
            return 0
        num_heads = heads if inputs[_KEY] else heads + 2 * kv_heads
        return query.numbers[1] // num_heads if num_heads > 0 else 0


_SHAPE_OF_PRODUCT: Mapping[str, int] = {"K": 0, "N": 0, "bits": 4, "block_size": 0}


def _width_of(step: Step, name: str) -> int:
    """Of an output of a step; 0 where it is not known."""
    if step.kind == ATTENTION or name not in step.outputs:
        return 0
    return step.numbers[1] if step.kind in _PRODUCTS else step.numbers[0]


def _is_plain(attributes: Mapping[str, Attribute]) -> bool:
    return all(name in _READ or value in _WITHOUT_EFFECT.get(name, ()) for name, value in attributes.items())


def _fits(heads: Attribute, kv_heads: Attribute, size: int, element_type: int) -> bool:
    """Many exports leave the head's size open: ONNX Runtime takes none that ours does not."""
    if element_type != FLOAT32 or not isinstance(heads, int) or not isinstance(kv_heads, int):
        return False
    if size > _LARGEST_HEAD or size % _LANES:
        return False
    return 0 < kv_heads <= heads <= kv_heads * _MOST_HEADS_OF_A_GROUP and heads % kv_heads == 0
