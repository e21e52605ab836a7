"""Cuts a graph into stretches that one operator of ours computes, and the nodes between them.

A stretch holds steps that follow from each other, and nothing in between that is not a step: what must wait for a part
of it is put behind all of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tidemill_serving.decoder.devices.graph_nodes import Node, written_node
from tidemill_serving.decoder.devices.program_steps import ATTENTION, GATE, NORM, Step, StepReader

DOMAIN, _OPERATOR = "tidemill", "DecoderProgram"
_NONE = -1
_NUM_OUTPUTS, _NUM_INPUTS, _NUM_NUMBERS = 3, 9, 5  # of a step, see native/program.h


@dataclass(slots=True)
class Program:
    """A stretch as it is gathered."""

    steps: list[Step] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    rows: set[str] = field(default_factory=set)  # what is read from outside and has a row for each token
    waiting: list[Node] = field(default_factory=list)  # for a part of it
    behind: set[str] = field(default_factory=set)  # what these make

    def takes(self, step: Step) -> bool:
        """Whether the step can be the next one: it goes on with the same rows, and needs nothing from behind."""
        if self.behind & set(step.inputs) or _has_open_size(step) or _has_open_size(self.steps[-1]):
            return False
        return bool((self.made | self.rows) & set(step.rows))

    def add(self, step: Step) -> None:
        """Make it the last step."""
        self.rows |= set(step.rows) - self.made
        self.steps.append(step)
        self.made |= {name for name in step.outputs if name}

    def wait(self, node: Node) -> bool:
        """Take a node that is no step, if it has to wait for a part of this."""
        if not node.names_read & (self.made | self.behind):
            return False
        self.waiting.append(node)
        self.behind |= {name for name in node.outputs if name}
        return True

    def is_worth_it(self) -> bool:
        """Norms and gates alone ONNX Runtime computes as well."""
        return any(step.kind not in (NORM, GATE) for step in self.steps)

    def written(self, reader: StepReader, version: int) -> bytes:
        """The stretch as one node."""
        nodes = frozenset[int]().union(*(step.nodes for step in self.steps))
        numbered = {name: number for number, name in enumerate(self._inputs())}
        num_inputs, outputs, integers = len(numbered), list[str](), list[int]()
        for step in self.steps:
            for name in step.outputs:
                if name:
                    numbered[name] = len(numbered)
            outputs += [name for name in step.outputs if name and reader.readers(name) - nodes]
            if step.kind == ATTENTION:
                outputs += [name for name in step.outputs[1:] if name not in outputs]
            integers += _integers(step, numbered)
        attributes: Mapping[str, int | list[int]] = {
            "inputs": num_inputs,
            "steps": integers,
            "outputs": [numbered[name] for name in outputs],
            "version": version,
        }
        name = f"program of {self.steps[-1].outputs[0]}"
        return written_node(DOMAIN, _OPERATOR, name, list(numbered)[:num_inputs], outputs, attributes)

    @property
    def names_read(self) -> frozenset[str]:
        """What the stretch reads from outside."""
        return frozenset(self._inputs())

    def nodes_of(self, nodes: Sequence[Node]) -> list[Node]:
        """What the steps stand for, as the graph has it."""
        return [nodes[place] for place in sorted(place for step in self.steps for place in step.nodes)]

    def _inputs(self) -> Iterator[str]:
        seen = set(self.made)
        for step in self.steps:
            for name in step.inputs:
                if name and name not in seen:
                    seen.add(name)
                    yield name


def cut(nodes: Sequence[Node], steps: Mapping[int, Step]) -> Iterator[Program | Node]:
    """The graph's programs, and the nodes between them, each behind what it reads."""
    parts = frozenset[int]().union(*(step.nodes for step in steps.values())) if steps else frozenset()
    program = Program()
    for place, node in enumerate(nodes):
        step = steps.get(place)
        if step is None:
            if place not in parts and not program.wait(node):
                yield node
            continue
        if program.steps and not program.takes(step):
            yield program
            yield from program.waiting
            program = Program()
        program.add(step)
    if program.steps:
        yield program
    yield from program.waiting


def _has_open_size(step: Step) -> bool:
    """An attention whose heads' size only the cache knows stands alone."""
    return step.kind == ATTENTION and step.numbers[2] == 0


def _integers(step: Step, numbered: Mapping[str, int]) -> list[int]:
    def all_of(values: list[int], count: int) -> list[int]:
        return values + [_NONE] * (count - len(values))

    outputs = [numbered[name] if name else _NONE for name in step.outputs]
    inputs = [numbered[name] if name else _NONE for name in step.inputs]
    numbers = all_of(list(step.numbers), _NUM_NUMBERS)
    return [step.kind, *all_of(outputs, _NUM_OUTPUTS), *all_of(inputs, _NUM_INPUTS), *numbers]
