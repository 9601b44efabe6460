"""Runs the steps on the connection, and inside the transaction, that `upgrade` hands over."""

from alembic import context

from lastchunk.ledger.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
