"""The ledger: balances, rows, blocks, totals; prices in revisions; what sessions have settled and hold."""

import json

import sqlalchemy as sa
from alembic import op

from tidemill_services.store.migrations.append_only import drop_append_only, refuse_changes

revision = "0003"
down_revision = "0002"

_USED = ("billed_seconds", "num_generations", "prompt_tokens", "completion_tokens")
_PRICES = (
    "session_microcredits_per_second",
    "input_microcredits_per_million_tokens",
    "output_microcredits_per_million_tokens",
)
_ASKED = ("session_per_second", "input_per_million_tokens", "output_per_million_tokens")  # in a package's manifest


def upgrade() -> None:
    """Make the tables. What ran before there was a ledger was charged to nobody: its price becomes 0."""
    op.create_table(
        "balances",
        sa.Column("account_id", sa.String(length=64), nullable=False),
        *_integers("balance_microcredits", "held_microcredits", "account_sequence"),
        sa.CheckConstraint(
            "0 <= held_microcredits AND held_microcredits <= balance_microcredits", name=op.f("never_negative")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("fk_balances_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_balances")),
    )
    _create_entries()
    op.create_table(
        "ledger_blocks",
        *_integers("number", "first_sequence", "last_sequence"),
        sa.Column("merkle_root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(length=32), nullable=False),
        *_integers("seal_ms"),
        sa.Column("block_hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_ledger_blocks")),
        sa.UniqueConstraint("last_sequence", name=op.f("uq_ledger_blocks_last_sequence")),
    )
    op.create_table(
        "ledger_totals",
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        *_integers("amount_microcredits", "hold_microcredits", *_USED),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("fk_ledger_totals_account_id")),
        sa.PrimaryKeyConstraint("account_id", "model", "kind", name=op.f("pk_ledger_totals")),
    )
    _create_prices()
    for table in ("ledger_entries", "ledger_blocks", "prices"):
        refuse_changes(table)
    for name in ("price_revision", "settled_ms", "held_microcredits"):
        op.add_column("sessions", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.execute("UPDATE sessions SET price_microcredits_per_second = 0, settled_ms = billed_ms")


def downgrade() -> None:
    """Drop them, and all that was ever charged with them."""
    for name in ("held_microcredits", "settled_ms", "price_revision"):
        op.drop_column("sessions", name)
    drop_append_only("prices")
    op.drop_table("ledger_totals")
    drop_append_only("ledger_blocks")
    drop_append_only("ledger_entries")
    op.drop_table("balances")


def _integers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False) for name in names]


def _create_entries() -> None:
    op.create_table(
        "ledger_entries",
        *_integers("ledger_sequence"),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        *_integers("account_sequence"),
        sa.Column("kind", sa.String(length=32), nullable=False),
        *_integers("amount_microcredits", "hold_microcredits", "balance_microcredits", "held_microcredits"),
        sa.Column("contra", sa.String(length=96), nullable=False),
        sa.Column("subject", sa.String(length=96), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        *_integers("from_ms", "until_ms", "price_microcredits_per_second", "price_revision", *_USED, "commit_ms"),
        sa.Column("reason", sa.String(length=256), nullable=False),
        sa.Column("actor", sa.String(length=160), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("fk_ledger_entries_account_id")),
        sa.PrimaryKeyConstraint("ledger_sequence", name=op.f("pk_ledger_entries")),
    )
    account_sequence = ["account_id", "account_sequence"]
    op.create_index("uq_ledger_entries_account_sequence", "ledger_entries", account_sequence, unique=True)
    op.create_index("ix_ledger_entries_subject", "ledger_entries", ["subject", "ledger_sequence"])
    op.create_index("ix_ledger_entries_until", "ledger_entries", ["account_id", "until_ms"])


def _create_prices() -> None:
    """With a first revision of each model that is known: what its package asked."""
    table = op.create_table(
        "prices",
        *_integers("revision"),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        *_integers(*_PRICES),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        *_integers("create_ms"),
        sa.Column("actor", sa.String(length=160), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_prices_model")),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_prices")),
    )
    op.create_index("ix_prices_model", "prices", ["model", "account_id", "revision"])
    models = op.get_bind().execute(sa.text("SELECT name, manifest, create_ms FROM models ORDER BY name")).all()
    rows = [
        {
            "revision": number,
            "model": model.name,
            "account_id": "",
            **dict(zip(_PRICES, _asked(json.loads(model.manifest)), strict=True)),
            "withdrawn": False,
            "create_ms": model.create_ms,
            "actor": "",
        }
        for number, model in enumerate(models, start=1)
    ]
    if rows:
        op.bulk_insert(table, rows)


def _asked(manifest: dict[str, dict[str, int]]) -> list[int]:
    prices = manifest.get("prices", {})
    return [prices.get(name, 0) for name in _ASKED]
