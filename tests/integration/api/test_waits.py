"""Nobody pays while they queue: sessions whose generations wait for a slot, through the real wire."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.integration.api.conftest import OpenWire, Wire, wait_until, wire_to
from tests.integration.api.test_session_limits import get, watch
from tests.keys import make_key
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import billing_pb2, usage_pb2

NUM_SLOTS = 8  # of the test model's replica
NUM_EXTRA = 2  # generations that it takes above them
LONG = 1000  # tokens of 12 ms


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, str]]:
    """A server whose replicas need 12 ms a token, and the key of another account."""
    folder = tmp_path_factory.mktemp("crowded")
    neighbours_key = make_key(folder, "neighbour")
    options = ("--replica-device", "fake", "--replica-fake-tick-ms", "12")
    with server_process(folder, *options) as process:
        yield process, neighbours_key


@pytest.fixture
def wires(crowded: tuple[ServerProcess, str]) -> Iterator[tuple[OpenWire, OpenWire]]:
    server, neighbours_key = crowded
    with ExitStack() as stack:
        yield stack.enter_context(wire_to(server)), stack.enter_context(wire_to(server, neighbours_key))


def run(wire: Wire, max_tokens: int) -> tuple[float, usage_pb2.Usage]:
    """Have a generation run; return how many seconds its first text took, and what it used."""
    began, first = time.monotonic(), 0.0
    for response in wire.generate(max_tokens=max_tokens):
        if response.HasField("delta") and not first:
            first = time.monotonic() - began
    return first, response.end.usage


def used(wire: Wire, label: str) -> billing_pb2.UsageRow:
    """What the account's sessions with this label were used for, as the ledger says."""
    group = billing_pb2.GetUsageReportRequest.GROUP_BY_LABEL
    request = billing_pb2.GetUsageReportRequest(group_by=[group], label_key="test")
    rows = wire.accounts.GetUsageReport(request, metadata=wire.metadata).rows
    return next((row for row in rows if row.label_value == label), billing_pb2.UsageRow())


@pytest.mark.rule("S5")
def test_who_waits_for_a_slot_does_not_pay_for_the_wait(wires: tuple[OpenWire, OpenWire]) -> None:
    many, one = wires
    many.start()
    run(many, 1)  # the model is awake
    name = one.start(labels={"test": "waits"}).session.name
    filling = [many.generate(max_tokens=LONG) for _ in range(NUM_SLOTS)]
    for stream in filling:
        next(response for response in stream if response.HasField("delta"))
    filling += [many.generate(max_tokens=1) for _ in range(NUM_EXTRA)]
    readings = watch(one, name)
    waited, _ = run(one, 1)
    assert any(reading.HasField("unbilled_wait_duration") for reading in readings)
    readings.cancel()
    for stream in filling:
        list(stream)
    bill = one.stop(name=name).session.bill
    ended = get(one, name)
    wall_ms = ended.end_time.ToMilliseconds() - ended.start_time.ToMilliseconds()
    assert waited > 2.0
    assert waited / 2 * 1000 < wall_ms - bill.billed_milliseconds < waited * 1000
    wait_until(lambda: used(one, "waits").num_generations == 1, "its use in the ledger")
    assert used(one, "waits").billed_seconds == bill.billed_seconds


@pytest.mark.rule("S11")
def test_generations_and_tokens_stand_in_the_ledger(wires: tuple[OpenWire, OpenWire]) -> None:
    wire, _ = wires
    name = wire.start(labels={"test": "tokens"}).session.name
    uses = [run(wire, 5)[1] for _ in range(3)]
    wire.stop(name=name)
    wait_until(lambda: used(wire, "tokens").num_generations == 3, "all three in the ledger")
    row = used(wire, "tokens")
    assert row.prompt_tokens == sum(use.prompt_tokens for use in uses)
    assert row.completion_tokens == sum(use.completion_tokens for use in uses) == 15
