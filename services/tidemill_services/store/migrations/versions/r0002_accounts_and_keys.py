"""What accounts and keys may do, the audit trail, and the slices of limits."""

import sqlalchemy as sa
from alembic import op

from tidemill_services.store.migrations.append_only import drop_append_only, refuse_changes

revision = "0002"
down_revision = "0001"

_LIMITS = ("requests_per_minute", "concurrent_generations", "concurrent_sessions")
_OPEN = sa.text("end_ms IS NULL")
_ADMIN = sa.text("role = 'ADMIN' AND revoke_ms IS NULL")


def upgrade() -> None:
    """Add columns and tables; columns are added in place, since SQLite would drop a table that others point at."""
    op.add_column("accounts", sa.Column("use_cache", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.add_column("api_keys", sa.Column("scopes", sa.String(length=128), server_default="", nullable=False))
    op.add_column("api_keys", sa.Column("secret_id", sa.String(length=16), server_default="", nullable=False))
    op.add_column("api_keys", sa.Column("old_secret_hash", sa.LargeBinary(length=32), nullable=True))
    op.add_column("api_keys", sa.Column("old_secret_expire_ms", sa.BigInteger(), nullable=True))
    for table in ("accounts", "api_keys"):
        for name in _LIMITS:
            op.add_column(table, sa.Column(name, sa.Integer(), nullable=True))
    op.create_index("uq_api_keys_old_secret_hash", "api_keys", ["old_secret_hash"], unique=True)
    op.create_index("ix_api_keys_admin", "api_keys", ["key_id"], postgresql_where=_ADMIN, sqlite_where=_ADMIN)
    op.create_index("ix_sessions_open_account", "sessions", ["account_id"], postgresql_where=_OPEN, sqlite_where=_OPEN)
    op.create_table(
        "limit_slices",
        sa.Column("subject", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("process_id", sa.String(length=64), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "kind", "process_id", name=op.f("pk_limit_slices")),
    )
    op.create_index(op.f("ix_limit_slices_expire_ms"), "limit_slices", ["expire_ms"])
    op.create_table(
        "audit_events",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=160), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("resource", sa.String(length=160), nullable=False),
        sa.Column("changes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_events")),
    )
    op.create_index("ix_audit_events_account", "audit_events", ["account_id", "sequence"])
    refuse_changes("audit_events")


def downgrade() -> None:
    """Drop them."""
    drop_append_only("audit_events")
    op.drop_table("limit_slices")
    op.drop_index("ix_sessions_open_account", table_name="sessions")
    op.drop_index("ix_api_keys_admin", table_name="api_keys")
    op.drop_index("uq_api_keys_old_secret_hash", table_name="api_keys")
    for table in ("accounts", "api_keys"):
        for name in _LIMITS:
            op.drop_column(table, name)
    for name in ("old_secret_expire_ms", "old_secret_hash", "secret_id", "scopes"):
        op.drop_column("api_keys", name)
    op.drop_column("accounts", "use_cache")
