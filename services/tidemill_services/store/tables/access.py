"""Who may do what, what was done, and what was answered."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
    text,
    true,
)

from tidemill_services.store.tables.base import limits_columns, metadata

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", String(64), primary_key=True),
    Column("display_name", String(256), nullable=False),
    Column("create_ms", BigInteger, nullable=False),
    Column("use_cache", Boolean, nullable=False, server_default=true()),
    Column("pays_per_token", Boolean, nullable=False, server_default=false()),  # where no session pays
    *limits_columns(),
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
    *limits_columns(),
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
