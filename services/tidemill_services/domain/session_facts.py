"""What became true of a session in a unit of work, for whoever counts it after the commit."""

from dataclasses import dataclass

from tidemill_services.domain.session import EndReason


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """A session of a model was started."""

    model: str


@dataclass(frozen=True, slots=True)
class SessionStopped:
    """One was stopped, by somebody or by itself."""

    model: str
    reason: EndReason


SessionFact = SessionStarted | SessionStopped
