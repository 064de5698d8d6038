"""Runs the migrations on the connection that `service.storage.database.migrate` hands over."""

from alembic import context

import service.access.keys
import service.http.strict_route
import service.work  # noqa: F401  the tables of every room are needed
from service.storage.columns import SqlTable

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SqlTable.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
