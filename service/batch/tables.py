"""The tables of batch predictions and their chunks."""

from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.jobs.tables import Job
from service.storage.columns import BlobDigest, Id, Json, Table


class BatchPrediction(Job, Table):
    """Predictions of a model version for all rows of a dataset version, which become a dataset."""

    prefix = "batch"
    noun = "batch prediction"
    plural = "batch_predictions"
    reads = frozenset({"dataset_id", "model_name", "model_version"})

    __tablename__ = "batch_predictions"
    __table_args__ = (
        Index("ix_batch_predictions_queue", "state", "queued_at", "id"),
        # One for each list of batch predictions: all of them, and by each filter.
        Index("ix_batch_predictions_newest", "created_at", "id"),
        Index("ix_batch_predictions_state", "state", "created_at", "id"),
        Index("ix_batch_predictions_dataset", "dataset_id", "created_at", "id"),
        Index("ix_batch_predictions_model", "model_name", "created_at", "id"),
    )

    #: how the new dataset is called
    name: Mapped[str]
    #: warn or error
    on_problem: Mapped[str] = mapped_column(String(8))
    #: no foreign key: once it has ended, dataset and model may go
    dataset_id: Mapped[str] = mapped_column(Id)
    dataset_version: Mapped[int]
    model_name: Mapped[str] = mapped_column(String(128))
    model_version: Mapped[int]
    #: the alias that was asked for, which pointed to that version
    alias: Mapped[str | None] = mapped_column(String(128))
    #: the columns that the result has beside those of the dataset: name, what it holds, its type
    added: Mapped[list[Any]]
    #: columns of the dataset that the model does not read
    ignored: Mapped[list[Any]]
    #: rows, errors, and warnings by code, of the rows that are done
    counts: Mapped[Json]
    #: the new dataset
    result_id: Mapped[str | None] = mapped_column(Id)


class BatchChunk(Table):
    """A part of the rows that is done: the new columns of it are a blob."""

    __tablename__ = "batch_chunks"

    batch_id: Mapped[str] = mapped_column(
        Id, ForeignKey("batch_predictions.id", ondelete="CASCADE"), primary_key=True
    )
    #: 1..n
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    rows: Mapped[int]
    #: errors, and warnings by code
    counts: Mapped[Json]
    sha256: Mapped[str] = mapped_column(BlobDigest, index=True)
    bytes: Mapped[int]
