"""Waits for slots, which are not billed, and what ran in each session."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_USE = ("num_generations", "prompt_tokens", "completion_tokens")
_COUNTS = (*_USE, *(f"settled_{name}" for name in _USE))
_INTERVALS = ("clock_ready", "clock_waited")
_FOREVER_MS = 2**62


def upgrade() -> None:
    """Add what is known of the clocks' last minutes, and counts from 0: what ran before was not counted."""
    for name in _INTERVALS:
        op.add_column("sessions", sa.Column(name, sa.Text(), server_default="[]", nullable=False))
    for name in _COUNTS:
        op.add_column("sessions", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("session_activity", sa.Column("waiting_since_ms", sa.BigInteger()))
    op.create_table(
        "counted_news",
        sa.Column("process_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("process_id", name=op.f("pk_counted_news")),
    )


def downgrade() -> None:
    """Drop them; what the last minutes of a session's bill were goes into its sum. A wait that lasts is billed then."""
    _sum_up_clocks(op.get_bind())
    op.drop_table("counted_news")
    op.drop_column("session_activity", "waiting_since_ms")
    for name in (*_COUNTS, *_INTERVALS):
        op.drop_column("sessions", name)


def _sum_up_clocks(connection: sa.Connection) -> None:
    """Have `billed_ms` and `clock_since_ms` say all, as they did before."""
    names = ("session_id", "billed_ms", "clock_since_ms", *_INTERVALS)
    sessions = sa.table("sessions", *(sa.column(name) for name in names))
    has_intervals = sa.or_(*(sessions.c[name] != "[]" for name in _INTERVALS))
    for row in connection.execute(sa.select(sessions).where(has_intervals)).all():
        ready = json.loads(row.clock_ready)
        if row.clock_since_ms is not None:
            ready.append((row.clock_since_ms, _FOREVER_MS))
        pieces = _without(ready, json.loads(row.clock_waited))
        since_ms = pieces[-1][0] if pieces and pieces[-1][1] == _FOREVER_MS else None
        ended_ms = sum(until_ms - from_ms for from_ms, until_ms in pieces if until_ms < _FOREVER_MS)
        values = {"billed_ms": row.billed_ms + ended_ms, "clock_since_ms": since_ms}
        connection.execute(sa.update(sessions).where(sessions.c.session_id == row.session_id).values(values))


def _without(intervals: list[tuple[int, int]], holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    for hole_from_ms, hole_until_ms in holes:
        cut = [
            piece
            for from_ms, until_ms in intervals
            for piece in ((from_ms, min(until_ms, hole_from_ms)), (max(from_ms, hole_until_ms), until_ms))
        ]
        intervals = [(from_ms, until_ms) for from_ms, until_ms in cut if from_ms < until_ms]
    return intervals
