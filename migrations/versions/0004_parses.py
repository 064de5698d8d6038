"""Let workers parse uploads: a parse becomes a job, and a dataset loses its lease.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LEASE = ("attempt", "lease_expires", "boot_id")


def upgrade() -> None:
    """Create the table of parses, and queue one for each dataset that was being parsed."""
    parses = op.create_table(
        "parses",
        sa.Column("dataset_id", sa.String(40), nullable=False),
        sa.Column("version", NUMBER, nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("caller", sa.String(40), nullable=False),
        sa.Column("is_small", sa.Boolean(), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("attempt", NUMBER, nullable=False),
        sa.Column("owner", sa.String(64), nullable=True),
        sa.Column("lease_expires", sa.Float(53), nullable=True),
        sa.Column("boot_id", sa.String(40), nullable=True),
        sa.Column("crash_streak", NUMBER, nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=True),
        sa.Column("waits_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("event_seq", NUMBER, nullable=False),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name="fk_parses_dataset_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_parses"),
    )
    op.create_index("ix_parses_queue", "parses", ["state", "queued_at", "id"])
    op.create_index("ix_parses_caller", "parses", ["caller", "claimed_at"])
    op.create_index("ix_parses_dataset_id", "parses", ["dataset_id"])
    datasets = sa.table(
        "datasets",
        sa.column("id", sa.String),
        sa.column("state", sa.String),
        sa.column("options", sa.JSON),
        sa.column("created_at", sa.DateTime(timezone=True)),
    )
    values = {
        "id": sa.literal("parse_") + sa.func.substr(datasets.c.id, 4),
        "dataset_id": datasets.c.id,
        "version": sa.literal(1),
        "options": sa.func.coalesce(datasets.c.options, sa.literal({}, sa.JSON)),
        "caller": sa.literal(""),
        "is_small": sa.literal(False),
        "state": sa.literal("queued"),
        "attempt": sa.literal(0),
        "crash_streak": sa.literal(0),
        "event_seq": sa.literal(0),
        "created_at": datasets.c.created_at,
        "queued_at": datasets.c.created_at,
    }
    unfinished = sa.select(*values.values()).where(datasets.c.state == "ingesting")
    op.execute(parses.insert().from_select(list(values), unfinished))
    for column in LEASE:
        op.drop_column("datasets", column)


def downgrade() -> None:
    """Give each dataset that is being parsed an expired lease, so that the next parser takes it."""
    op.add_column("datasets", sa.Column("attempt", NUMBER, nullable=False, server_default="0"))
    op.add_column("datasets", sa.Column("lease_expires", sa.Float(53), nullable=True))
    op.add_column("datasets", sa.Column("boot_id", sa.String(40), nullable=True))
    op.execute("UPDATE datasets SET lease_expires = 0 WHERE state = 'ingesting'")
    op.drop_table("parses")
