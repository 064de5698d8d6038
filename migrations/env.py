"""Runs the migrations on the connection that `service.database.migrate` hands over."""

from alembic import context

import service.jobs.tables  # their tables are to be known too
import service.runs.tables  # noqa: F401
from service.tables import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
