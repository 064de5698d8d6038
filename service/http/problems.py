"""Renders every error as an RFC 9457 problem, without internal details."""

import json

import structlog
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import (
    BadRequest,
    BlobCorrupt,
    Conflict,
    Invalid,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    TooLarge,
    UnsupportedMedia,
)

MEDIA_TYPE = "application/problem+json"
TENSORS = "/v2"  # the Open Inference Protocol, whose clients read the member `error`
_BY_STATUS: dict[int, type[ServiceError]] = {
    error.status: error
    for error in (BadRequest, NotFound, MethodNotAllowed, TooLarge, UnsupportedMedia, Invalid)
}
logger = structlog.get_logger(__name__)


def render(error: ServiceError, *, instance: str | None, request_id: str | None) -> Response:
    body = error.problem() | {"instance": instance, "request_id": request_id}
    # ASCII, because a detail may contain half a surrogate pair, which has no encoding.
    text = json.dumps(body, ensure_ascii=True, default=str)
    return Response(text, error.status, dict(error.headers), MEDIA_TYPE)


def respond(request: Request, error: ServiceError) -> Response:
    if error.status >= 500:
        logger.warning("problem", code=error.code, detail=error.detail, exc_info=error.__cause__)
    request_id = getattr(request.state, "request_id", None)
    path: str = request.scope["path"]
    own = path.removeprefix(request.scope.get("root_path", ""))
    if own == TENSORS or own.startswith(f"{TENSORS}/"):
        error.fields["error"] = error.detail
    return render(error, instance=path, request_id=request_id)


def of_fault(error: Exception) -> ServiceError | None:
    """Return the client's error for an exception; None if the exception is a bug of ours."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, DBAPIError) and type(error).__name__ == "DataError":
        detail = "The database cannot hold a value of this request: it is too large or malformed."
        return Invalid(detail, code="value_out_of_range")
    if isinstance(error, OverflowError):
        detail = "A number of this request is larger than 64 bits can hold."
        return Invalid(detail, code="value_out_of_range")
    if isinstance(error, BlobCorrupt):
        # Only the operator can repair this.
        logger.error("bytes_lost", reason=str(error))
        return Conflict(f"{error} Upload it again.", code="bytes_lost")
    return None


def unexpected() -> ServiceError:
    """Return the client's error for a bug of ours: it refers to the log and tells nothing else."""
    return ServiceError(
        "The service met an unexpected condition: its log tells more under this request_id."
    )


def from_framework(error: HTTPException, path: str) -> ServiceError:
    """Return our error for an error of the framework."""
    details = {
        404: f"There is no {path[:200]!r} here: /docs lists all paths.",
        405: "The resource does not support this method: see the Allow header.",
    }
    detail = details.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    kind = _BY_STATUS.get(error.status_code)
    if kind is not None:
        return kind(detail, headers=headers)
    other = ServiceError(detail, code="http_error", headers=headers)
    other.status = error.status_code
    return other
