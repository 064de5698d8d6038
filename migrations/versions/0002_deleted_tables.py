"""Set the table of the versions of deleted datasets to null.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the column nullable, and null for deleted datasets: the collector reads only it now."""
    with op.batch_alter_table("dataset_versions") as table:
        table.alter_column("table_sha256", existing_type=sa.String(64), nullable=True)
    op.execute(
        "UPDATE dataset_versions SET table_sha256 = NULL WHERE dataset_id IN"
        " (SELECT id FROM datasets WHERE sha256 IS NULL)"
    )


def downgrade() -> None:
    """Give the versions of deleted datasets an empty reference again."""
    op.execute("UPDATE dataset_versions SET table_sha256 = '' WHERE table_sha256 IS NULL")
    with op.batch_alter_table("dataset_versions") as table:
        table.alter_column("table_sha256", existing_type=sa.String(64), nullable=False)
