"""The tables of models, their versions and aliases, and the proofs of versions."""

from datetime import datetime

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.jobs.kind import Job
from service.storage.columns import BlobDigest, Id, Json, SqlTable, utc_now


class Model(SqlTable):
    """A name under which versions are published."""

    __tablename__ = "models"
    __table_args__ = (Index("ix_models_newest", "created_at", "name"),)

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    #: the highest version number ever used; a deleted number is never used again
    last_version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ModelVersion(SqlTable):
    """An immutable trained model: a checkpoint with its signature, metrics and lineage."""

    __tablename__ = "model_versions"

    model_name: Mapped[str] = mapped_column(
        String(128), ForeignKey("models.name", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True)
    #: the run that trained it; NULL if it was imported
    run_id: Mapped[str | None] = mapped_column(Id, index=True)
    checkpoint_id: Mapped[str | None] = mapped_column(Id)
    sha256: Mapped[str] = mapped_column(BlobDigest, index=True)
    bytes: Mapped[int]
    signature: Mapped[Json]
    metrics: Mapped[Json]
    config: Mapped[Json]
    dataset_id: Mapped[str | None] = mapped_column(Id)
    dataset_version: Mapped[int | None]
    #: the imported bundle, and the origin that it names
    imported: Mapped[Json | None]
    #: trained and closed-form parameters of a linear model
    parameters: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Alias(SqlTable):
    """A name such as `champion` that points to a version of a model."""

    __tablename__ = "aliases"
    __table_args__ = (
        *(
            ForeignKeyConstraint(
                ["model_name", column],
                ["model_versions.model_name", "model_versions.version"],
                name=f"fk_aliases_{column}",
            )
            for column in ("version", "canary_version", "shadow_version")
        ),
        Index("ix_aliases_newest", "model_name", "created_at", "alias"),
    )

    model_name: Mapped[str] = mapped_column(String(128), primary_key=True)
    alias: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int]
    #: the version that answers `canary_percent` of the requests in its place
    canary_version: Mapped[int | None]
    canary_percent: Mapped[float | None]
    #: the version that gets copies of the requests; its answers are discarded
    shadow_version: Mapped[int | None]
    #: grows with each move; the ETag of the alias
    revision: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


class AliasMove(SqlTable):
    """The versions of an alias at one of its revisions."""

    __tablename__ = "alias_moves"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model_name", "alias"],
            ["aliases.model_name", "aliases.alias"],
            name="fk_alias_moves_alias",
            ondelete="CASCADE",
        ),
    )

    model_name: Mapped[str] = mapped_column(String(128), primary_key=True)
    alias: Mapped[str] = mapped_column(String(128), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    #: put, rollback
    how: Mapped[str] = mapped_column(String(16))
    version: Mapped[int]
    canary_version: Mapped[int | None]
    canary_percent: Mapped[float | None]
    shadow_version: Mapped[int | None]
    #: the revision that a rollback from here tries first
    before: Mapped[int | None]
    #: the API key of the request, if it had one
    key_id: Mapped[str | None] = mapped_column(Id)
    moved_at: Mapped[datetime] = mapped_column(default=utc_now)


class ModelChange(SqlTable):
    """The last change of a model, its versions or its aliases; the row outlives the model.

    The row with an empty name holds the newest revision of all (see `versions.changed`).
    """

    __tablename__ = "model_changes"

    model_name: Mapped[str] = mapped_column(String(128), primary_key=True)
    revision: Mapped[int] = mapped_column(index=True)


class Proof(Job, SqlTable):
    """The export verification of a version: every way of predicting gives the same answers."""

    prefix = "proof"
    noun = "proof"
    plural = "proofs"

    __tablename__ = "proofs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model_name", "model_version"],
            ["model_versions.model_name", "model_versions.version"],
            name="fk_proofs_version",
            ondelete="CASCADE",
        ),
        Index("uq_proofs_version", "model_name", "model_version", unique=True),
        Index("ix_proofs_queue", "state", "queued_at", "id"),
    )

    model_name: Mapped[str] = mapped_column(String(128))
    model_version: Mapped[int]
    #: the comparison: rows, the difference of each way, the largest, the tolerance
    details: Mapped[Json | None]
