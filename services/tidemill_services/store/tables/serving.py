"""Models, where they run, and who wants them."""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Integer, String, Table, Text

from tidemill_services.store.tables.base import metadata

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
