"""Time in which the platform does not serve, through the real wire: a killed replica, the time until the next one."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fault.baseline import replicas_of
from tests.integration.api.conftest import MODEL, wire_to
from tests.integration.api.test_session_limits import get
from tests.server_process import server_process
from tidemill.v1 import model_pb2


@pytest.mark.rule("S7")
def test_from_the_end_of_a_killed_replica_until_the_next_one_nothing_is_billed(tmp_path: Path) -> None:
    with server_process(tmp_path, "--replica-device", "fake") as server, wire_to(server) as wire:
        name = wire.start().session.name
        list(wire.generate(max_tokens=1))
        (replica,) = replicas_of(server)
        watch = wire.models.WatchModel(model_pb2.WatchModelRequest(name=MODEL), metadata=wire.metadata, timeout=120)
        assert next(watch).model.ready_replicas
        os.kill(replica, signal.SIGKILL)
        assert next(response for response in watch if not response.model.ready_replicas)
        watch.cancel()
        lost = still_lost = asked = time.monotonic()
        while not wire.model().ready_replicas:
            still_lost, asked = asked, time.monotonic()
            assert asked < lost + 60
            time.sleep(0.02)
        bill = wire.stop(name=name).session.bill
        ended = get(wire, name)
    wall_ms = ended.end_time.ToMilliseconds() - ended.start_time.ToMilliseconds()
    assert wall_ms - bill.billed_milliseconds >= (still_lost - lost) * 1000 - 50
