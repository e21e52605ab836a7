"""Answers that are paid by their tokens: who agreed to it, the limit of tokens, credits that processes hold ahead."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the agreement, given by nobody yet, the limit, set for nobody yet, and the slices of credits."""
    op.add_column("accounts", sa.Column("pays_per_token", sa.Boolean(), server_default=sa.false(), nullable=False))
    for table in ("accounts", "api_keys"):
        op.add_column(table, sa.Column("tokens_per_minute", sa.Integer()))
    op.create_table(
        "credit_slices",
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("process_id", sa.String(length=64), nullable=False),
        sa.Column("held_microcredits", sa.BigInteger(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("fk_credit_slices_account_id")),
        sa.PrimaryKeyConstraint("account_id", "process_id", name=op.f("pk_credit_slices")),
    )
    op.create_index(op.f("ix_credit_slices_expire_ms"), "credit_slices", ["expire_ms"])


def downgrade() -> None:
    """Drop them. Run it while no server runs: what is held ahead would stay held."""
    op.drop_table("credit_slices")
    for table in ("accounts", "api_keys"):
        op.drop_column(table, "tokens_per_minute")
    op.drop_column("accounts", "pays_per_token")
