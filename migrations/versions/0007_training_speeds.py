"""Remember how fast each machine trains.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, which is empty: every machine counts as a usual one."""
    op.create_table(
        "training_speeds",
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("shape", sa.String(32), nullable=False),
        sa.Column("ratio", sa.Float(53), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("host", "shape", name="pk_training_speeds"),
    )


def downgrade() -> None:
    """Remove the table."""
    op.drop_table("training_speeds")
