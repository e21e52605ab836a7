"""Credits: what each account has, how it came to be, and what things cost."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Index, LargeBinary, String, Table

from tidemill_services.store.tables.base import metadata

# What each account has. The row's lock orders the account's rows in the ledger.
balances = Table(
    "balances",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("balance_microcredits", BigInteger, nullable=False),
    Column("held_microcredits", BigInteger, nullable=False),
    Column("account_sequence", BigInteger, nullable=False),  # of the account's last row
    CheckConstraint("0 <= held_microcredits AND held_microcredits <= balance_microcredits", name="never_negative"),
)

# Credits that processes hold ahead, to pay answers by their tokens, until they return them or their time is over.
credit_slices = Table(
    "credit_slices",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("process_id", String(64), primary_key=True),
    Column("held_microcredits", BigInteger, nullable=False),
    Column("last_number", BigInteger, nullable=False),  # of the charges that have come
    Column("expire_ms", BigInteger, nullable=False, index=True),
)

# Triggers refuse UPDATE and DELETE. Its numbers have no gaps: writers take turns.
ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("ledger_sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False),
    Column("account_sequence", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("amount_microcredits", BigInteger, nullable=False),  # added to the balance
    Column("hold_microcredits", BigInteger, nullable=False),  # added to what is held
    Column("balance_microcredits", BigInteger, nullable=False),  # after it
    Column("held_microcredits", BigInteger, nullable=False),  # after it
    Column("contra", String(96), nullable=False),
    Column("subject", String(96), nullable=False),  # sessions/{session}; empty: the account as such
    Column("model", String(64), nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("billed_seconds", BigInteger, nullable=False),
    Column("price_microcredits_per_second", BigInteger, nullable=False),
    Column("price_revision", BigInteger, nullable=False),
    Column("num_generations", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("commit_ms", BigInteger, nullable=False),
    Column("reason", String(256), nullable=False),
    Column("actor", String(160), nullable=False),
    Index("uq_ledger_entries_account_sequence", "account_id", "account_sequence", unique=True),
    Index("ix_ledger_entries_subject", "subject", "ledger_sequence"),
    Index("ix_ledger_entries_until", "account_id", "until_ms"),
)

# Triggers refuse UPDATE and DELETE.
ledger_blocks = Table(
    "ledger_blocks",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False, unique=True),
    Column("merkle_root", LargeBinary(32), nullable=False),
    Column("previous_hash", LargeBinary(32), nullable=False),
    Column("seal_ms", BigInteger, nullable=False),
    Column("block_hash", LargeBinary(32), nullable=False),
)

# Sums over all sealed rows, changed in the transaction that seals them.
ledger_totals = Table(
    "ledger_totals",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("amount_microcredits", BigInteger, nullable=False),
    Column("hold_microcredits", BigInteger, nullable=False),
    Column("billed_seconds", BigInteger, nullable=False),
    Column("num_generations", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
)

# Triggers refuse UPDATE and DELETE.
prices = Table(
    "prices",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("model", ForeignKey("models.name"), nullable=False),
    Column("account_id", String(64), nullable=False),  # for which alone it holds; empty: for all
    Column("session_microcredits_per_second", BigInteger, nullable=False),
    Column("input_microcredits_per_million_tokens", BigInteger, nullable=False),
    Column("output_microcredits_per_million_tokens", BigInteger, nullable=False),
    Column("withdrawn", Boolean, nullable=False),  # the account's own price no longer holds
    Column("create_ms", BigInteger, nullable=False),
    Column("actor", String(160), nullable=False),  # name of a key; empty: the model's package
    Index("ix_prices_model", "model", "account_id", "revision"),
)
