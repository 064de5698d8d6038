"""Add sweeps, their trials and events, and what their members need.

Revision ID: 0006
Revises: 0005
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
RUN_COLUMNS = ("sweep_id", "trial", "group", "pause_after", "outcome", "engine")


def _job_columns() -> "Iterator[sa.Column[Any]]":
    """Yield the columns that the table of each kind of job has."""
    yield sa.Column("id", sa.String(40), nullable=False)
    yield sa.Column("state", sa.String(16), nullable=False)
    yield sa.Column("state_reason", sa.Text(), nullable=True)
    yield sa.Column("attempt", NUMBER, nullable=False)
    yield sa.Column("owner", sa.String(64), nullable=True)
    yield sa.Column("lease_expires", sa.Float(53), nullable=True)
    yield sa.Column("boot_id", sa.String(40), nullable=True)
    yield sa.Column("crash_streak", NUMBER, nullable=False)
    yield sa.Column("not_before", sa.Float(53), nullable=True)
    yield sa.Column("waits_until", sa.DateTime(timezone=True), nullable=True)
    yield sa.Column("event_seq", NUMBER, nullable=False)
    yield sa.Column("progress", sa.JSON(), nullable=True)
    yield sa.Column("error", sa.JSON(), nullable=True)
    yield sa.Column("created_at", sa.DateTime(timezone=True), nullable=False)
    yield sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False)
    yield sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True)
    yield sa.Column("started_at", sa.DateTime(timezone=True), nullable=True)
    yield sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True)


def upgrade() -> None:
    """Create the tables, and add the columns, which are NULL in runs that exist."""
    op.create_table(
        "sweeps",
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("dataset_id", sa.String(40), nullable=False),
        sa.Column("dataset_version", NUMBER, nullable=False),
        sa.Column("base", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("space", sa.JSON(), nullable=False),
        sa.Column("strategy", sa.JSON(), nullable=False),
        sa.Column("metric", sa.JSON(), nullable=False),
        sa.Column("budget", sa.JSON(), nullable=True),
        sa.Column("seed", NUMBER, nullable=False),
        sa.Column("trials", NUMBER, nullable=False),
        sa.Column("rungs", sa.JSON(), nullable=False),
        sa.Column("register_best_as", sa.String(128), nullable=True),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("is_due", sa.Boolean(), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("left_s", sa.Float(53), nullable=True),
        sa.Column("best_trial", NUMBER, nullable=True),
        sa.Column("model_name", sa.String(128), nullable=True),
        sa.Column("model_version", NUMBER, nullable=True),
        *_job_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    op.create_index("ix_sweeps_newest", "sweeps", ["created_at", "id"])
    op.create_index("ix_sweeps_state", "sweeps", ["state", "created_at", "id"])
    op.create_index("ix_sweeps_dataset", "sweeps", ["dataset_id", "created_at", "id"])
    op.create_table(
        "sweep_events",
        sa.Column("sweep_id", sa.String(40), nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("attempt", NUMBER, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["sweeps.id"], name="fk_sweep_events_sweep_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sweep_id", "seq", name="pk_sweep_events"),
    )
    op.create_table(
        "sweep_trials",
        sa.Column("sweep_id", sa.String(40), nullable=False),
        sa.Column("number", NUMBER, nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("run_id", sa.String(40), nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("value", sa.Float(53), nullable=True),
        sa.Column("epochs", NUMBER, nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("rung", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["sweeps.id"], name="fk_sweep_trials_sweep_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_sweep_trials_run_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("sweep_id", "number", name="pk_sweep_trials"),
    )
    op.create_index("ix_sweep_trials_run_id", "sweep_trials", ["run_id"])
    op.create_table(
        "suggestions",
        sa.Column("sweep_id", sa.String(40), nullable=False),
        sa.Column("first", NUMBER, nullable=False),
        sa.Column("count", NUMBER, nullable=False),
        *_job_columns(),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["sweeps.id"], name="fk_suggestions_sweep_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_suggestions"),
    )
    op.create_index("ix_suggestions_queue", "suggestions", ["state", "queued_at", "id"])
    op.create_index("ix_suggestions_sweep_id", "suggestions", ["sweep_id"])
    op.add_column("runs", sa.Column("sweep_id", sa.String(40), nullable=True))
    op.add_column("runs", sa.Column("trial", NUMBER, nullable=True))
    op.add_column("runs", sa.Column("group", sa.String(64), nullable=True))
    op.add_column("runs", sa.Column("pause_after", NUMBER, nullable=True))
    op.add_column("runs", sa.Column("outcome", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("engine", sa.String(16), nullable=True))
    op.create_index("ix_runs_sweep", "runs", ["sweep_id", "created_at", "id"])
    op.create_index("ix_runs_group", "runs", ["group", "state", "queued_at", "id"])


def downgrade() -> None:
    """Remove sweeps; their members stay as ordinary runs."""
    op.drop_index("ix_runs_group", "runs")
    op.drop_index("ix_runs_sweep", "runs")
    for column in RUN_COLUMNS:
        op.drop_column("runs", column)
    for table in ("suggestions", "sweep_trials", "sweep_events", "sweeps"):
        op.drop_table(table)
