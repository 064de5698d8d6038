"""Store with each dataset version how its file was read.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the reading; it is NULL in versions that exist."""
    op.add_column("dataset_versions", sa.Column("reading", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Remove the reading."""
    op.drop_column("dataset_versions", "reading")
