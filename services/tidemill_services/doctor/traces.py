"""Traces: whether OpenTelemetry's variables ask for them, and whether they could be sent."""

import socket
from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from tidemill_services.doctor.finding import Finding, ok, warning
from tidemill_telemetry.otel_variables import GRPC, asked_by, protocol_of, wrong_variable

_ANSWER_SECONDS = 5.0
_USUAL_PORTS = {True: 4317, False: 4318}  # of a collector, by whether it is spoken to by gRPC


def check_traces(environ: Mapping[str, str], *, is_installed: bool) -> Finding:
    """Calls are served in any case, so what is wrong here is a warning."""
    if not (asker := asked_by(environ)):
        return ok("traces", "Nobody asks for them to be recorded.")
    if wrong := wrong_variable(environ):
        return warning("traces", f"{wrong}. None are recorded.")
    if not is_installed:
        return warning(
            "traces", f"{asker} asks for them, and the extra is not installed: run `pip install 'tidemill[otel]'`."
        )
    host, port = _collector(environ, asker)
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_SECONDS):
            return ok("traces", f"They go to {host}:{port}.")
    except OSError:
        return warning("traces", f"Nobody answers at {host}:{port}, where {asker} has them sent: start the collector.")


def extra_is_installed() -> bool:
    """Whether what sends traces can be imported; it is not."""
    return find_spec("opentelemetry") is not None and all(
        find_spec(f"opentelemetry.{name}") is not None for name in ("sdk", "exporter")
    )


def _collector(environ: Mapping[str, str], asker: str) -> tuple[str, int]:
    endpoint = environ[asker] if asker.endswith("_ENDPOINT") else ""
    is_grpc = protocol_of(environ)[1] == GRPC
    parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
    default = _USUAL_PORTS[is_grpc] if not endpoint or is_grpc else {"https": 443}.get(parts.scheme, 80)
    return parts.hostname or "localhost", parts.port or default
