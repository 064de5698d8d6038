"""The versions of a dataset that jobs may read."""

from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.datasets.tables import Dataset, DatasetVersion, Parse
from service.errors import BlobCorrupt, Conflict, Invalid, NotFound, invalid_at
from service.jobs.kind import InputUnavailable, Site
from service.storage.database import reading


class DatasetUnavailable(InputUnavailable):
    """The dataset is gone or damaged: upload it again."""

    code = "dataset_unavailable"


GONE = "deleted"  # the state of a dataset whose runs outlive it


def ready_version(session: Session, dataset_id: str, version: int | None) -> DatasetVersion:
    """Return a version of a dataset, the newest by default.

    Raises NotFound, Conflict `dataset_not_ready`, or Invalid for a version that does not exist.
    The dataset is locked against deletion until the transaction ends.
    """
    dataset = session.scalars(
        select(Dataset)
        .where(Dataset.id == dataset_id, Dataset.state != GONE)
        .with_for_update(read=True)
    ).one_or_none()
    if dataset is None:
        raise NotFound(f"There is no dataset {dataset_id[:60]!r}.")
    if dataset.state != "ready":
        raise Conflict(
            f"The dataset {dataset_id} is {dataset.state}: wait until it is ready.",
            code="dataset_not_ready",
            state=dataset.state,
        )
    wanted = dataset.version if version is None else version
    found = None
    if 1 <= wanted <= dataset.version:
        found = session.get(DatasetVersion, (dataset_id, wanted))
    if found is None:
        detail = (
            f"The dataset {dataset_id} has no version {wanted}: its newest is {dataset.version}."
        )
        # A run is the only thing that may ask for another one than the newest.
        raise invalid_at("/dataset/version", "unknown_version", detail)
    return found


def table_digest(version: DatasetVersion) -> str:
    """Return the digest of a version's table. Raises NotFound once the dataset is deleted."""
    if version.table_sha256 is None:
        raise NotFound(f"The dataset {version.dataset_id} is deleted.")
    return version.table_sha256


def fetch_table(
    site: Site, dataset_id: str, version: int | None, scratch: Path
) -> tuple[DatasetVersion, Path]:
    """Return a version and its table as a local file. Raises DatasetUnavailable."""
    try:
        with reading(site.engine) as session:
            found = ready_version(session, dataset_id, version)
        return found, site.blobs.fetch(table_digest(found), scratch)
    except (BlobCorrupt, NotFound, Conflict, Invalid) as error:
        raise DatasetUnavailable(f"{error} Upload the dataset again.") from error


def lock_parses(session: Session, dataset_id: str) -> None:
    """Lock the parses of a dataset, which whoever changes a dataset does before he locks that."""
    session.execute(select(Parse.id).where(Parse.dataset_id == dataset_id).with_for_update())


def remove(session: Session, dataset_id: str) -> None:
    """Delete a dataset that no unfinished job reads; a process that parses it is stopped.

    Where finished runs refer to a version, the rows stay behind without their bytes.
    """
    session.execute(delete(Parse).where(Parse.dataset_id == dataset_id))
    session.execute(
        update(DatasetVersion)
        .where(DatasetVersion.dataset_id == dataset_id)
        .values(table_sha256=None)
    )
    try:
        with session.begin_nested():
            session.execute(delete(Dataset).where(Dataset.id == dataset_id))
    except IntegrityError:
        gone = update(Dataset).where(Dataset.id == dataset_id).values(state=GONE, sha256=None)
        session.execute(gone)
