"""The port to what collects spans, and what stands behind it when nobody asked for them."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from tidemill_telemetry.otel_variables import asked_by, wrong_variable
from tidemill_telemetry.trace_context import TraceContext

logger = logging.getLogger(__name__)
Attributes: TypeAlias = Mapping[str, str | int | float | bool | Sequence[str]]


class SpanKind(Enum):
    """On which side of a call a span is."""

    SERVER = "server"  # its parent is another process's
    CLIENT = "client"  # of something that another process does


@dataclass(frozen=True, slots=True)
class SpanEnd:
    """What is told of a span at its end. Names are those of OpenTelemetry's semantic conventions where it has some."""

    attributes: Attributes
    name: str = ""  # where it is known better now
    events: Sequence[tuple[str, float]] = ()  # what happened when, on the clock of `time.monotonic`
    fault: str = ""  # the kind of the fault of ours that ended it; empty when it went well, or the caller was wrong


class Span(Protocol):
    """One piece of work, from `Tracing.begin` to `end`."""

    @property
    def context(self) -> TraceContext:
        """Its ids; what it calls gets them."""

    def end(self, describe: Callable[[], SpanEnd]) -> None:
        """It is over. `describe` is called only if somebody records it."""


class Tracing(Protocol):
    """Takes spans. Nothing here blocks or raises but `close`, which blocks for a few seconds at most."""

    def begin(self, name: str, kind: SpanKind, parent: TraceContext | None) -> Span:
        """A span below `parent`; without one, the first of a new trace."""

    def close(self) -> None:
        """Send what waits to be sent, while there is time."""


@dataclass(frozen=True, slots=True)
class _UnrecordedSpan:
    context: TraceContext

    def end(self, describe: Callable[[], SpanEnd]) -> None:
        pass


class NoTracing:
    """Nobody records spans; calls are named in the logs all the same."""

    def begin(self, _name: str, kind: SpanKind, parent: TraceContext | None) -> Span:
        """A server's call gets ids of its own; what is done for it keeps them."""
        if parent is None:
            return _UnrecordedSpan(TraceContext.new())
        return _UnrecordedSpan(parent.child() if kind is SpanKind.SERVER else parent)

    def close(self) -> None:
        """Nothing waits."""


def open_tracing(service: str, attributes: Attributes, environ: Mapping[str, str] = os.environ) -> Tracing:
    """What OpenTelemetry's own environment variables ask for; a wrong one is said in the log, and none is recorded."""
    if not (asker := asked_by(environ)):
        return NoTracing()
    if not (why := wrong_variable(environ)):
        try:
            from tidemill_telemetry.otel import OtelTracing  # noqa: PLC0415 -- an extra, and slow to import

            return OtelTracing(service, attributes, environ)
        except ImportError as error:
            why = f"{error.name} is not installed; run `pip install 'tidemill[otel]'`"
        except Exception as error:  # noqa: BLE001 -- whatever a library says of its variables, models are served
            why = str(error)
    logger.warning("%s asks for traces, and they are not recorded: %s", asker, why)
    return NoTracing()
