"""Add an index in the order of every list, so that the cost of a page is independent of the length.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: name → table and columns
ADDED = {
    "ix_runs_newest": ("runs", ["created_at", "id"]),
    "ix_runs_state": ("runs", ["state", "created_at", "id"]),
    "ix_runs_dataset": ("runs", ["dataset_id", "created_at", "id"]),
    "ix_runs_model": ("runs", ["model_name", "created_at", "id"]),
    "ix_checkpoints_newest": ("checkpoints", ["run_id", "created_at", "id"]),
    "ix_batch_predictions_newest": ("batch_predictions", ["created_at", "id"]),
    "ix_batch_predictions_state": ("batch_predictions", ["state", "created_at", "id"]),
    "ix_batch_predictions_dataset": ("batch_predictions", ["dataset_id", "created_at", "id"]),
    "ix_batch_predictions_model": ("batch_predictions", ["model_name", "created_at", "id"]),
    "ix_models_newest": ("models", ["created_at", "name"]),
    "ix_aliases_newest": ("aliases", ["model_name", "created_at", "alias"]),
}
#: each is a prefix of an index above
REPLACED = {
    "ix_runs_dataset_id": ("runs", ["dataset_id"]),
    "ix_runs_model_name": ("runs", ["model_name"]),
    "ix_checkpoints_run_id": ("checkpoints", ["run_id"]),
    "ix_batch_predictions_dataset_id": ("batch_predictions", ["dataset_id"]),
    "ix_batch_predictions_model_name": ("batch_predictions", ["model_name"]),
}


def upgrade() -> None:
    for name, (table, columns) in ADDED.items():
        op.create_index(name, table, columns)
    op.create_index(
        "ix_datasets_newest",
        "datasets",
        ["created_at", "id"],
        sqlite_where=sa.text("state != 'deleted'"),
        postgresql_where=sa.text("state != 'deleted'"),
    )
    for name, (table, _columns) in REPLACED.items():
        op.drop_index(name, table)


def downgrade() -> None:
    for name, (table, columns) in REPLACED.items():
        op.create_index(name, table, columns)
    op.drop_index("ix_datasets_newest", "datasets")
    for name, (table, _columns) in ADDED.items():
        op.drop_index(name, table)
