"""What a restored database must be: as if everything that lived in it had ended at the backup's time."""

from dataclasses import dataclass

from sqlalchemy import select, union

from tidemill_services.domain.session import EndReason
from tidemill_services.store import sessions
from tidemill_services.store.database import Transaction
from tidemill_services.store.hosts import remove_host
from tidemill_services.store.models import list_models
from tidemill_services.store.session_activity import forget_process
from tidemill_services.store.tables import hosts, replicas


@dataclass(frozen=True, slots=True)
class Afterlife:
    """What came of what was open."""

    num_kept: int  # open sessions that go on with the next server
    num_ended: int


def end_what_lived(tx: Transaction, *, keep_sessions: bool) -> Afterlife:
    """A unit of work at the backup's time: end hosts, with their replicas and streams, and the open sessions.

    Hosts are lost as they would be in a running platform: the clocks stand since their last sign of life. Sessions that
    are kept go on as after a crash; but somebody may have stopped them since the backup, so it must be wanted.
    """
    for host_id in tx.connection.execute(union(select(hosts.c.host_id), select(replicas.c.host_id))).scalars().all():
        remove_host(tx, host_id)
    forget_process(tx, "")  # of hosts that had gone already
    num_ended = 0
    if not keep_sessions:
        for model in list_models(tx):
            num_ended += len(sessions.stop_sessions_of_model(tx, model.name, EndReason.ADMIN))
    for session in sessions.list_stopped(tx):
        sessions.finish_session(tx, session.session_id)
    return Afterlife(sum(sessions.count_open_by_model(tx).values()), num_ended)
