"""Sessions that a test starts, watches and stops over the wire, each with its line in the trace."""

from google.protobuf.duration_pb2 import Duration

from tests.fault.trace import Moment, Trace, moment, moment_of
from tests.integration.api.conftest import Wire
from tidemill.v1 import model_pb2, session_pb2

Session = session_pb2.Session
A_DAY = session_pb2.SessionLimits(idle_timeout=Duration(seconds=86_400))


class TracedSessions:
    """The sessions of one key on one server; the trace may be that of more."""

    def __init__(self, wire: Wire, trace: Trace) -> None:
        self.wire = wire
        self.trace = trace

    def start(self, model: str, **fields: object) -> str:
        """Start a session, wait until its clock runs, and return its name."""
        with moment() as accepted:
            session = self.wire.start(model=model, **fields).session
        if session.HasField("start_time"):
            self.trace.runs(session.name, accepted)
        else:
            began = moment_of(lambda: self.get(session.name).HasField("start_time"), "a running clock", since=accepted)
            self.trace.runs(session.name, began)
        return session.name

    def stop(self, name: str, *, num_crashes: int = 0) -> Session:
        """Stop a session; its final bill must be what the trace says."""
        with moment() as stopped:
            session = self.wire.stop(name=name, model="").session
        self.trace.stands(name, stopped)
        self.trace.check(session, num_crashes=num_crashes)
        return session

    def check_open(self, name: str, *, num_crashes: int = 0) -> Session:
        """Fail unless the session is active and has cost what the trace says."""
        with moment() as now:
            session = self.get(name)
        assert session.state == Session.STATE_ACTIVE, session
        self.trace.check(session, now, num_crashes=num_crashes)
        return session

    def get(self, name: str) -> Session:
        """Ask for a session."""
        return self.wire.sessions.GetSession(
            session_pb2.GetSessionRequest(name=name), metadata=self.wire.metadata, timeout=60
        )

    def listed(self) -> list[Session]:
        """The newest sessions of the account."""
        request = session_pb2.ListSessionsRequest(page_size=1_000)
        return list(self.wire.sessions.ListSessions(request, metadata=self.wire.metadata, timeout=60).sessions)

    def ready(self, model: str, since: Moment) -> Moment:
        """Wait until a model is ready, for the clocks of its sessions go on then."""

        def is_ready() -> bool:
            request = model_pb2.GetModelRequest(name=model)
            state = self.wire.models.GetModel(request, metadata=self.wire.metadata, timeout=60).state
            return state == model_pb2.Model.STATE_READY

        return moment_of(is_ready, f"a ready {model}", since=since)
