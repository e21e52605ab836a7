"""What OpenTelemetry's environment variables ask for, as far as we read them; the SDK reads the others itself."""

from collections.abc import Mapping

HTTP, GRPC = "http/protobuf", "grpc"  # by which spans are sent, as OpenTelemetry names them


def asked_by(environ: Mapping[str, str]) -> str:
    """The variable that asks for traces to be recorded; empty where none does. One that is empty says nothing."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return ""
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return next((name for name in names if environ.get(name)), "")


def protocol_of(environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that names the exporter's protocol, and what it says, or what holds where none does."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    name = next((name for name in names if environ.get(name)), names[-1])
    return name, environ.get(name) or HTTP


def wrong_variable(environ: Mapping[str, str]) -> str:
    """What a variable says that cannot be, with what it may be; empty when all can."""
    if (exporter := environ.get("OTEL_TRACES_EXPORTER") or "otlp") != "otlp":
        return f"OTEL_TRACES_EXPORTER is {exporter!r}; it may be otlp or none"
    name, protocol = protocol_of(environ)
    if protocol not in (HTTP, GRPC):
        return f"{name} is {protocol!r}; it may be {HTTP} or {GRPC}"
    asker = asked_by(environ)
    endpoint = environ.get(asker, "") if asker.endswith("_ENDPOINT") else ""
    if protocol == HTTP and endpoint and not endpoint.startswith(("http://", "https://")):
        return f"{asker} is {endpoint!r}; it begins with http:// or https://"
    return ""
