"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and the one row of the clock."""
    op.create_table(
        "accounts",
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=256), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "clock",
        sa.Column("only", sa.Integer(), nullable=False),
        sa.Column("high_water_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("only", name=op.f("pk_clock")),
    )
    op.create_table(
        "hosts",
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("host_id", name=op.f("pk_hosts")),
    )
    op.create_table(
        "leader",
        sa.Column("only", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("only", name=op.f("pk_leader")),
    )
    op.create_table(
        "models",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("package_path", sa.Text(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("wanted_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_used_ms", sa.BigInteger(), nullable=True),
        sa.Column("failed_starts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("retry_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_models")),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=256), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("default_model", sa.String(length=64), nullable=True),
        sa.Column("auto_session", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoke_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("fk_api_keys_account_id")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_api_keys_secret_hash")),
    )
    op.create_index(op.f("ix_api_keys_account_id"), "api_keys", ["account_id"], unique=False)
    op.create_table(
        "assignments",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_assignments_model")),
        sa.PrimaryKeyConstraint("model", "host_id", name=op.f("pk_assignments")),
    )
    op.create_table(
        "demand",
        sa.Column("process_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("num_running", sa.Integer(), nullable=False),
        sa.Column("num_waiting", sa.Integer(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_demand_model")),
        sa.PrimaryKeyConstraint("process_id", "model", name=op.f("pk_demand")),
    )
    op.create_table(
        "model_starts",
        sa.Column("replica_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("ready_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_model_starts_model")),
        sa.PrimaryKeyConstraint("replica_id", name=op.f("pk_model_starts")),
    )
    op.create_index(op.f("ix_model_starts_model"), "model_starts", ["model"], unique=False)
    op.create_table(
        "replicas",
        sa.Column("replica_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.String(length=256), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("ready_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_replicas_model")),
        sa.PrimaryKeyConstraint("replica_id", name=op.f("pk_replicas")),
    )
    op.create_index(op.f("ix_replicas_host_id"), "replicas", ["host_id"], unique=False)
    op.create_index(op.f("ix_replicas_model"), "replicas", ["model"], unique=False)
    op.create_table(
        "requests",
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("rpc", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("fk_requests_account_id")),
        sa.PrimaryKeyConstraint("account_id", "rpc", "request_id", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_create_ms"), "requests", ["create_ms"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("end_reason", sa.String(length=16), nullable=True),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=True),
        sa.Column("end_ms", sa.BigInteger(), nullable=True),
        sa.Column("price_microcredits_per_second", sa.BigInteger(), nullable=False),
        sa.Column("billed_ms", sa.BigInteger(), nullable=False),
        sa.Column("clock_since_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_active_ms", sa.BigInteger(), nullable=True),
        sa.Column("look_ms", sa.BigInteger(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("idle_timeout_ms", sa.BigInteger(), nullable=False),
        sa.Column("max_duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("max_spend_microcredits", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("fk_sessions_account_id")),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.key_id"], name=op.f("fk_sessions_key_id")),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_sessions_model")),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_sessions")),
    )
    op.create_index("ix_sessions_account", "sessions", ["account_id", "session_id"], unique=False)
    op.create_index("ix_sessions_key_model", "sessions", ["key_id", "model", "session_id"], unique=False)
    op.create_index(
        "ix_sessions_look",
        "sessions",
        ["look_ms"],
        unique=False,
        postgresql_where=sa.text("end_ms IS NULL"),
        sqlite_where=sa.text("end_ms IS NULL"),
    )
    op.create_index(
        "ix_sessions_open_model",
        "sessions",
        ["model"],
        unique=False,
        postgresql_where=sa.text("end_ms IS NULL"),
        sqlite_where=sa.text("end_ms IS NULL"),
    )
    op.create_index(
        "ix_sessions_stopping",
        "sessions",
        ["end_ms"],
        unique=False,
        postgresql_where=sa.text("state = 'STOPPING'"),
        sqlite_where=sa.text("state = 'STOPPING'"),
    )
    op.create_index(
        "uq_sessions_open_key_model",
        "sessions",
        ["key_id", "model"],
        unique=True,
        postgresql_where=sa.text("end_ms IS NULL"),
        sqlite_where=sa.text("end_ms IS NULL"),
    )
    op.create_table(
        "session_holders",
        sa.Column("session_id", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("join_ms", sa.BigInteger(), nullable=False),
        sa.Column("sign_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.session_id"], name=op.f("fk_session_holders_session_id")),
        sa.PrimaryKeyConstraint("session_id", "holder", name=op.f("pk_session_holders")),
    )
    op.create_table(
        "session_activity",
        sa.Column("session_id", sa.String(length=64), nullable=False),
        sa.Column("process_id", sa.String(length=64), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.session_id"], name=op.f("fk_session_activity_session_id")),
        sa.PrimaryKeyConstraint("session_id", "process_id", name=op.f("pk_session_activity")),
    )
    op.execute('INSERT INTO clock ("only", high_water_ms) VALUES (1, 0)')


def downgrade() -> None:
    """Drop them all."""
    op.drop_table("session_activity")
    op.drop_table("session_holders")
    op.drop_index(
        "uq_sessions_open_key_model",
        table_name="sessions",
        postgresql_where=sa.text("end_ms IS NULL"),
        sqlite_where=sa.text("end_ms IS NULL"),
    )
    op.drop_index(
        "ix_sessions_stopping",
        table_name="sessions",
        postgresql_where=sa.text("state = 'STOPPING'"),
        sqlite_where=sa.text("state = 'STOPPING'"),
    )
    op.drop_index(
        "ix_sessions_look",
        table_name="sessions",
        postgresql_where=sa.text("end_ms IS NULL"),
        sqlite_where=sa.text("end_ms IS NULL"),
    )
    op.drop_index(
        "ix_sessions_open_model",
        table_name="sessions",
        postgresql_where=sa.text("end_ms IS NULL"),
        sqlite_where=sa.text("end_ms IS NULL"),
    )
    op.drop_index("ix_sessions_key_model", table_name="sessions")
    op.drop_index("ix_sessions_account", table_name="sessions")
    op.drop_table("sessions")
    op.drop_index(op.f("ix_requests_create_ms"), table_name="requests")
    op.drop_table("requests")
    op.drop_index(op.f("ix_replicas_model"), table_name="replicas")
    op.drop_index(op.f("ix_replicas_host_id"), table_name="replicas")
    op.drop_table("replicas")
    op.drop_index(op.f("ix_model_starts_model"), table_name="model_starts")
    op.drop_table("model_starts")
    op.drop_table("demand")
    op.drop_table("assignments")
    op.drop_index(op.f("ix_api_keys_account_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("models")
    op.drop_table("leader")
    op.drop_table("hosts")
    op.drop_table("clock")
    op.drop_table("accounts")
