"""Store with each run the group whose queued runs may train in one process.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the group; it is NULL in runs that exist."""
    op.add_column("runs", sa.Column("group", sa.String(length=64), nullable=True))
    op.create_index("ix_runs_group", "runs", ["group"])


def downgrade() -> None:
    """Remove the group."""
    op.drop_index("ix_runs_group", "runs")
    op.drop_column("runs", "group")
