"""A server that keeps a spare: the first replica is that process, and its start is told step by step."""

import time
from pathlib import Path

import tidemill
from tests.integration.scaler.processes import spare_pids
from tests.metrics_page import read_page, series_of
from tests.server_process import server_process

STEPS = {"launch", "connect", "process", "listen", "package", "engine", "graph", "warm", "total"}
SPARE_SECONDS = 100.0  # it only takes time that nobody wants


def test_a_waking_model_takes_the_spare_and_its_start_is_counted(tmp_path: Path) -> None:
    options = ("--replica-device", "fake", "--replica-spares", "1")
    with server_process(tmp_path / "data", *options) as server:
        _wait_for_spares(server.admin, 1)
        (spare,) = spare_pids(server.process.pid)
        with tidemill.Client(server.api_key, target=server.grpc) as client, client.session("tiny-llama"):
            assert "".join(client.complete_prompt("a", max_tokens=2, model="tiny-llama"))
        log = server.log.read_text()
        assert f"is the spare process {spare}" in log
        assert "was ready after" in log
        counted = {
            dict(series.labels)["step"]: value
            for series, value in series_of(read_page(server.admin)).items()
            if series.name == "tidemill_replica_start_seconds_count"
        }
        assert counted == dict.fromkeys(STEPS, 1.0)
        _wait_for_spares(server.admin, 1)
        assert len(spare_pids(server.process.pid)) == 2  # the replica was one
    assert not spare_pids(server.process.pid)


def _wait_for_spares(admin: str, number: int) -> None:
    deadline = time.monotonic() + SPARE_SECONDS
    while _num_spares(admin) != number:
        assert time.monotonic() < deadline, "the spare did not come"
        time.sleep(0.1)


def _num_spares(admin: str) -> float:
    return next(
        value for series, value in series_of(read_page(admin)).items() if series.name == "tidemill_spare_replicas"
    )
