"""The tables, for SQLite and Postgres alike. Times are `*_ms`: milliseconds since 1970, UTC.

States are stored as the names of the domain's enums. Migrations are made from this file; a test compares the two.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
    true,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _limits() -> list[Column[Any]]:
    """The columns of `UsageLimits`; null: not limited."""
    return [
        Column("requests_per_minute", Integer),
        Column("concurrent_generations", Integer),
        Column("concurrent_sessions", Integer),
        Column("tokens_per_minute", Integer),
    ]


def _use(prefix: str) -> list[Column[Any]]:
    """The columns of `Use`."""
    names = ("num_generations", "prompt_tokens", "completion_tokens")
    return [Column(f"{prefix}{name}", BigInteger, nullable=False, server_default="0") for name in names]


accounts = Table(
    "accounts",
    metadata,
    Column("account_id", String(64), primary_key=True),
    Column("display_name", String(256), nullable=False),
    Column("create_ms", BigInteger, nullable=False),
    Column("use_cache", Boolean, nullable=False, server_default=true()),
    Column("pays_per_token", Boolean, nullable=False, server_default=false()),  # where no session pays
    *_limits(),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False, index=True),
    Column("display_name", String(256), nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("default_model", String(64)),
    Column("auto_session", Boolean, nullable=False, server_default=false()),  # the OpenAI door may open its sessions
    Column("create_ms", BigInteger, nullable=False),
    Column("expire_ms", BigInteger),
    Column("revoke_ms", BigInteger),
    Column("scopes", String(128), nullable=False, server_default=""),  # names between spaces; empty: all
    Column(
        "secret_id", String(16), nullable=False, server_default=""
    ),  # the platform's secret under which it is hashed
    Column("old_secret_hash", LargeBinary(32)),  # of before the last rotation
    Column("old_secret_expire_ms", BigInteger),
    *_limits(),
    Index("uq_api_keys_old_secret_hash", "old_secret_hash", unique=True),
    Index(
        "ix_api_keys_admin",
        "key_id",
        postgresql_where=text("role = 'ADMIN' AND revoke_ms IS NULL"),
        sqlite_where=text("role = 'ADMIN' AND revoke_ms IS NULL"),
    ),
)

# What was done to accounts and keys, and what administrators did. Triggers refuse UPDATE and DELETE.
audit_events = Table(
    "audit_events",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_ms", BigInteger, nullable=False),
    Column("actor", String(160), nullable=False),  # name of a key; empty: the server itself
    Column("action", String(64), nullable=False),
    Column("account_id", String(64), nullable=False),  # empty: the whole platform
    Column("resource", String(160), nullable=False),
    Column("changes", Text, nullable=False),  # JSON list of [field, old value, new value]
    Index("ix_audit_events_account", "account_id", "sequence"),
)

# What processes hold of limits, until they return it or its time is over.
limit_slices = Table(
    "limit_slices",
    metadata,
    Column("subject", String(80), primary_key=True),  # accounts/{account} or keys/{key}
    Column("kind", String(16), primary_key=True),
    Column("process_id", String(64), primary_key=True),
    Column("held", Integer, nullable=False),
    Column("expire_ms", BigInteger, nullable=False, index=True),
)

models = Table(
    "models",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("manifest", Text, nullable=False),  # the manifest's canonical JSON
    Column("package_path", Text, nullable=False),
    Column("create_ms", BigInteger, nullable=False),
    Column("wanted_ms", BigInteger),  # when somebody asked for it by StartModel; null: nobody, or stopped since
    Column("last_used_ms", BigInteger),  # end of the last generation or session
    Column("failed_starts", Integer, nullable=False, server_default="0"),  # in a row
    Column("failure", Text),  # why the last start failed
    Column("retry_ms", BigInteger),  # not to be started before
)

model_starts = Table(
    "model_starts",
    metadata,
    Column("replica_id", String(64), primary_key=True),
    Column("model", ForeignKey("models.name"), nullable=False, index=True),
    Column("duration_ms", BigInteger, nullable=False),
    Column("ready_ms", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", String(64), primary_key=True),  # sorts by creation
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False),
    Column("key_id", ForeignKey("api_keys.key_id"), nullable=False),
    Column("model", ForeignKey("models.name"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("end_reason", String(16)),
    Column("create_ms", BigInteger, nullable=False),
    Column("start_ms", BigInteger),  # its model was first ready
    Column("end_ms", BigInteger),  # the stop was committed, or the moment of the limit that ended it
    Column("price_microcredits_per_second", BigInteger, nullable=False),
    Column("billed_ms", BigInteger, nullable=False),  # final once it is stopped; else before the intervals of `clock`
    Column("clock_since_ms", BigInteger),  # since when its model is ready; null: it is not, or the session was stopped
    Column("last_active_ms", BigInteger),  # the end of the last stream; null: there was none
    Column("look_ms", BigInteger, nullable=False),  # nothing comes by itself before; an open session is looked at then
    Column("labels", Text, nullable=False),  # JSON object of strings
    Column("idle_timeout_ms", BigInteger, nullable=False),
    Column("max_duration_ms", BigInteger, nullable=False),
    Column("max_spend_microcredits", BigInteger),
    Column("price_revision", BigInteger, nullable=False, server_default="0"),
    Column("settled_ms", BigInteger, nullable=False, server_default="0"),  # billed time that stands in the ledger
    Column("held_microcredits", BigInteger, nullable=False, server_default="0"),
    Column("clock_ready", Text, nullable=False, server_default="[]"),  # JSON list of [from_ms, until_ms], the last ones
    Column("clock_waited", Text, nullable=False, server_default="[]"),  # the same of the waits for a slot
    *_use(""),
    *_use("settled_"),  # that stands in the ledger
    Index("ix_sessions_account", "account_id", "session_id"),
    Index("ix_sessions_key_model", "key_id", "model", "session_id"),
    Index(
        "ix_sessions_open_account",
        "account_id",
        postgresql_where=text("end_ms IS NULL"),
        sqlite_where=text("end_ms IS NULL"),
    ),
    Index(
        "ix_sessions_stopping",
        "end_ms",
        postgresql_where=text("state = 'STOPPING'"),
        sqlite_where=text("state = 'STOPPING'"),
    ),
    Index("ix_sessions_look", "look_ms", postgresql_where=text("end_ms IS NULL"), sqlite_where=text("end_ms IS NULL")),
    Index(
        "ix_sessions_open_model", "model", postgresql_where=text("end_ms IS NULL"), sqlite_where=text("end_ms IS NULL")
    ),
    Index(
        "uq_sessions_open_key_model",
        "key_id",
        "model",
        unique=True,
        postgresql_where=text("end_ms IS NULL"),
        sqlite_where=text("end_ms IS NULL"),
    ),
)

session_holders = Table(
    "session_holders",
    metadata,
    Column("session_id", ForeignKey("sessions.session_id"), primary_key=True),
    Column("holder", String(128), primary_key=True),
    Column("join_ms", BigInteger, nullable=False),
    Column("sign_ms", BigInteger),  # the last sign of life; null: it gives none
)

session_activity = Table(
    "session_activity",
    metadata,
    Column("session_id", ForeignKey("sessions.session_id"), primary_key=True),
    Column("process_id", String(64), primary_key=True),
    Column("seen_ms", BigInteger, nullable=False),  # the process said then that something runs or waits
    Column("expire_ms", BigInteger, nullable=False),
    Column("waiting_since_ms", BigInteger),  # a wait for a slot is longer than it may be since then; null: none is
)

# The last news that counts once, of each process.
counted_news = Table(
    "counted_news",
    metadata,
    Column("process_id", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False),
)

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

requests = Table(
    "requests",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("rpc", String(64), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("body_hash", LargeBinary(32), nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("create_ms", BigInteger, nullable=False, index=True),
)

hosts = Table(
    "hosts",
    metadata,
    Column("host_id", String(64), primary_key=True),
    Column("capacity", Integer, nullable=False),  # replicas
    Column("expire_ms", BigInteger, nullable=False),
)

assignments = Table(
    "assignments",
    metadata,
    Column("model", ForeignKey("models.name"), primary_key=True),
    Column("host_id", String(64), primary_key=True),
    Column("replicas", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("replica_id", String(64), primary_key=True),
    Column("model", ForeignKey("models.name"), nullable=False, index=True),
    Column("host_id", String(64), nullable=False, index=True),
    Column("epoch", BigInteger, nullable=False),
    Column("address", String(256)),  # host:port or https://host:port, once the process listens
    Column("state", String(16), nullable=False),
    Column("progress", Float, nullable=False),
    Column("detail", Text, nullable=False),
    Column("create_ms", BigInteger, nullable=False),
    Column("ready_ms", BigInteger),
)

demand = Table(
    "demand",
    metadata,
    Column("process_id", String(64), primary_key=True),
    Column("model", ForeignKey("models.name"), primary_key=True),
    Column("num_running", Integer, nullable=False),
    Column("num_waiting", Integer, nullable=False),
    Column("expire_ms", BigInteger, nullable=False),
)

leader = Table(
    "leader",
    metadata,
    Column("only", Integer, primary_key=True),  # always 1
    Column("holder", String(64), nullable=False),
    Column("expire_ms", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)

clock = Table(
    "clock",
    metadata,
    Column("only", Integer, primary_key=True),  # always 1
    Column("high_water_ms", BigInteger, nullable=False),  # time never goes back behind it
)


def of_model(table: Table, model: str | None) -> ColumnElement[bool]:
    """A condition on a table with a column `model`: the rows of that one, or of all."""
    return true() if model is None else table.c.model == model
