"""Every error that a client can get, with its status, its stable code and its default detail.

    ServiceError
    ├── BadRequest 400          malformed_json, malformed_header, …
    ├── Unauthorized 401        unauthorized
    ├── Forbidden 403           forbidden_host, forbidden_origin
    ├── NotFound 404            not_found
    ├── MethodNotAllowed 405    method_not_allowed
    ├── Conflict 409            conflict, in_use, in_flight, not_linear, …
    ├── RequestTimeout 408      request_timeout
    ├── PreconditionFailed 412  precondition_failed
    ├── TooLarge 413            too_large
    ├── UnsupportedMedia 415    unsupported_media_type
    ├── Invalid 422             invalid, and one code for each broken rule
    ├── PreconditionRequired 428  precondition_required
    ├── HeadTooLarge 431        head_too_large
    ├── Busy 503                busy, database_unavailable
    │   ├── StorageUnavailable  storage_unavailable
    │   ├── Overloaded          overloaded
    │   ├── DeadlineExceeded    deadline_exceeded
    │   └── TooManyConnections  too_many_connections
    └── StorageFull 507         storage_full

    Fenced                      internal: a later attempt owns the job now
    BlobCorrupt                 internal: a blob no longer matches its SHA-256

Every room raises these; one handler renders them as RFC 9457 problem objects.
"""

from typing import Any, Literal

from descent.codes import ErrorCode

#: the causes of the death of a process that are told apart
DeathCode = Literal["worker_lost", "out_of_memory", "stalled"]


class ServiceError(Exception):
    """The service cannot do this."""

    status = 500
    code: ErrorCode = "internal_error"

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: ErrorCode | None = None,
        errors: list[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
        **fields: object,  # the extension members of an RFC 9457 problem
    ) -> None:
        self.detail = detail or type(self).__doc__ or ""
        self.code = code or type(self).code
        self.errors = errors or []
        self.headers = headers or {}
        self.fields = fields
        super().__init__(self.detail)

    def problem(self) -> dict[str, Any]:
        """Return the RFC 9457 problem object, without `instance` and `request_id`."""
        body: dict[str, Any] = {
            "type": f"urn:descent:error:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return body | self.fields


class BadRequest(ServiceError):
    """The request is malformed."""

    status = 400
    code: ErrorCode = "malformed_request"


class Unauthorized(ServiceError):
    """Send a valid API key as `Authorization: Bearer <key>`."""

    status = 401
    code: ErrorCode = "unauthorized"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}: send `Authorization: Bearer <key>` with a key that is valid.",
            headers={"WWW-Authenticate": 'Bearer realm="descent"'},
        )


class Forbidden(ServiceError):
    """The request was refused."""

    status = 403
    code: ErrorCode = "forbidden"


class NotFound(ServiceError):
    """There is no such resource."""

    status = 404
    code: ErrorCode = "not_found"


class MethodNotAllowed(ServiceError):
    """The resource does not support this method."""

    status = 405
    code: ErrorCode = "method_not_allowed"


class Conflict(ServiceError):
    """The state of the resource does not allow this."""

    status = 409
    code: ErrorCode = "conflict"


class RequestTimeout(ServiceError):
    """The request did not arrive in time: send it again."""

    status = 408
    code = "request_timeout"


class PreconditionFailed(ServiceError):
    """The resource has changed since you read it: read it again and send its new ETag."""

    status = 412
    code: ErrorCode = "precondition_failed"


class TooLarge(ServiceError):
    """The request is larger than this service accepts."""

    status = 413
    code: ErrorCode = "too_large"


class UnsupportedMedia(ServiceError):
    """The resource does not read this content type."""

    status = 415
    code: ErrorCode = "unsupported_media_type"


class Invalid(ServiceError):
    """The request is well-formed, but its content is not valid."""

    status = 422
    code: ErrorCode = "invalid"


def invalid_at(pointer: str, code: ErrorCode, detail: str) -> Invalid:
    """Return the error about one place of a request: a JSON pointer into the body or `/query`."""
    return Invalid(detail, code=code, errors=[field_error(pointer, code, detail)])


def field_error(pointer: str, code: ErrorCode, detail: str) -> dict[str, Any]:
    """Return an item of `errors`."""
    return {"pointer": pointer, "code": code, "detail": detail}


class PreconditionRequired(ServiceError):
    """Send `If-Match` with the ETag of the resource that you want to change."""

    status = 428
    code: ErrorCode = "precondition_required"


class HeadTooLarge(ServiceError):
    """The URL and the headers together are too long."""

    status = 431
    code = "head_too_large"


class Busy(ServiceError):
    """The service cannot answer right now: try again in a moment."""

    status = 503
    code: ErrorCode = "busy"

    def __init__(self, detail: str | None = None, *, code: ErrorCode | None = None) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": "1"})


class StorageUnavailable(Busy):
    """The blob store does not answer: try again in a moment."""

    code: ErrorCode = "storage_unavailable"


class Overloaded(Busy):
    """The queue of predictions is full: try again in a moment."""

    code: ErrorCode = "overloaded"


class DeadlineExceeded(Busy):
    """The prediction reached its time limit: try again, or send fewer rows at a time."""

    code: ErrorCode = "deadline_exceeded"


class TooManyConnections(Busy):
    """The service has as many connections as it can hold: try again in a moment."""

    code = "too_many_connections"


class StorageFull(ServiceError):
    """The disk of the service is full: free some space and try again."""

    status = 507
    code: ErrorCode = "storage_full"


class Fenced(Exception):
    """A write came from an attempt that no longer owns its job."""


class BlobCorrupt(Exception):
    """A blob no longer matches its SHA-256."""
