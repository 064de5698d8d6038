"""The versions of a dataset that runs may use."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import Conflict, Invalid, NotFound
from service.tables import Dataset, DatasetVersion

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
        error = {"pointer": "/dataset/version", "code": "unknown_version", "detail": detail}
        raise Invalid(detail, code="unknown_version", errors=[error])
    return found
