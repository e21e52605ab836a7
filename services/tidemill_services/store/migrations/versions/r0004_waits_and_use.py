"""Waits for slots, which are not billed, and what ran in each session."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_USE = ("num_generations", "prompt_tokens", "completion_tokens")
_COUNTS = (*_USE, *(f"settled_{name}" for name in _USE))
_INTERVALS = ("clock_ready", "clock_waited")


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
    """Drop them. Run it while no session is open: the last minutes of an open one's bill are only in them."""
    op.drop_table("counted_news")
    op.drop_column("session_activity", "waiting_since_ms")
    for name in (*_COUNTS, *_INTERVALS):
        op.drop_column("sessions", name)
