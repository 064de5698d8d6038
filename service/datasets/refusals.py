"""Why a file is refused after it was received, in words for its client."""

from service.datasets.rejected import Place, Rejected, error_item, pointer
from service.errors import BadRequest, Invalid, ServiceError, StorageFull, field_error


def as_error(refused: Rejected) -> ServiceError:
    """Return the error that a client sees for a file that was refused."""
    kinds: dict[int, type[ServiceError]] = {400: BadRequest, 507: StorageFull}
    kind = kinds.get(refused.status, Invalid)
    errors = refused.errors
    if kind is Invalid and not errors:
        errors = [error_item(refused.code, refused.detail, Place())]
    return kind(refused.detail, code=refused.code, errors=errors)


def unknown_columns(names: list[str]) -> Invalid:
    errors = [
        field_error(
            pointer("columns", name), "unknown_column", f"There is no column {name[:80]!r}."
        )
        for name in names
    ]
    return Invalid(errors[0]["detail"], code="unknown_column", errors=errors)


def bytes_lost() -> Rejected:
    return Rejected("bytes_lost", "The stored bytes of the file are lost: upload it again.")


def endless(attempts: int) -> Rejected:
    return Rejected(
        "dataset_unparseable",
        f"Parsing the file was tried {attempts} times and never came to an end.",
    )


def interrupted() -> ServiceError:
    error = ServiceError("The service is stopping: the file is parsed when it starts again.")
    error.status, error.code = 503, "shutting_down"
    return error
