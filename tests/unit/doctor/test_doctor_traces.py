"""What the doctor says of OpenTelemetry's variables."""

import socket

import pytest

from tidemill_services.doctor.finding import Level
from tidemill_services.doctor.traces import check_traces

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def test_where_nobody_asks_for_traces_nothing_is_missing() -> None:
    assert check_traces({}, is_installed=False).level is Level.OK
    assert check_traces({ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "true"}, is_installed=False).level is Level.OK


def test_traces_without_the_extra_are_a_warning_that_says_what_to_install() -> None:
    found = check_traces({ENDPOINT: "http://127.0.0.1:4318"}, is_installed=False)
    assert (found.level, found.subject) == (Level.WARNING, "traces")
    assert f"{ENDPOINT} asks for them" in found.sentence
    assert "pip install 'tidemill[otel]'" in found.sentence


def test_a_variable_that_cannot_be_so_is_named() -> None:
    found = check_traces({ENDPOINT: "localhost:4318"}, is_installed=True)
    assert (found.level, "it begins with http://" in found.sentence) == (Level.WARNING, True)


@pytest.mark.parametrize("scheme", ["http://", "grpc"])
def test_a_collector_is_there_or_is_missed(scheme: str) -> None:
    protocol = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"} if scheme == "grpc" else {}
    prefix = "" if scheme == "grpc" else scheme
    with socket.create_server(("127.0.0.1", 0)) as collector:
        where = f"127.0.0.1:{collector.getsockname()[1]}"
        found = check_traces({ENDPOINT: f"{prefix}{where}"} | protocol, is_installed=True)
        assert (found.level, found.sentence) == (Level.OK, f"They go to {where}.")
    with socket.socket() as nobody:  # bound, so that it is nobody else's, and not listening
        nobody.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        found = check_traces({ENDPOINT: f"{prefix}{where}"} | protocol, is_installed=True)
        assert (found.level, f"Nobody answers at {where}" in found.sentence) == (Level.WARNING, True)
