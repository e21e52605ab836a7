"""Sessions: who pays for which model, since when."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text, text

from tidemill_services.store.tables.base import metadata, use_columns

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
    *use_columns(""),
    *use_columns("settled_"),  # that stands in the ledger
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
