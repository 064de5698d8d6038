"""The tables of blobs."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.columns import Id, Table, utc_now


class Blob(Table):
    """An object in the blob store, or one that a writer is about to put; see `references`."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class BlobPin(Table):
    """A writer's hold on a blob until a row refers to it."""

    __tablename__ = "blob_pins"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    #: when the pin ends, by `database.clock`
    expires: Mapped[float]
    boot_id: Mapped[str] = mapped_column(String(40))
