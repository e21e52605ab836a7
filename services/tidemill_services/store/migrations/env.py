"""Alembic's entry: runs migrations in the transaction of the connection that it is given."""

from alembic import context

from tidemill_services.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # also on SQLite, whose transactions we begin ourselves
    render_as_batch=True,  # SQLite changes a table by making it anew
)
context.run_migrations()
