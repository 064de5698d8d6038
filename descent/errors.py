"""The client's exceptions. They carry the code and the text of the service's error.

DescentError
├── Unreachable            the service gave no answer
├── Unavailable 429, 5xx   the service cannot do it now
├── Refused 4xx            the service refuses the request
│   ├── Unauthorized 401, 403
│   ├── NotFound 404
│   ├── Conflict 409, 412, 428
│   └── InvalidRequest 400, 413, 415, 422
├── DatasetRejected        the file could not be read as a table
├── RunFailed              the run ended as `failed` or `cancelled`
└── TimedOut               the run is not over after the given time

`code` is stable, `detail` is for people, `problem` is the whole body of the error.
"""

import httpx
from pydantic import ValidationError

from descent.schemas import Problem


class DescentError(Exception):
    """A call failed; `code` is stable, `detail` is for people."""

    def __init__(self, code: str, detail: str, problem: Problem | None = None) -> None:
        self.code = code
        self.detail = detail
        #: the whole body, with `errors`, `allowed` and further members
        self.problem = problem
        self.status = problem.status if problem else None
        self.request_id = problem.request_id if problem else None
        super().__init__(f"{code}: {detail}" + _items(problem))


class Unreachable(DescentError):
    """The service gave no answer."""


class Unavailable(DescentError):
    """The service cannot do it now, and repeating the request for a while did not help."""


class Refused(DescentError):
    """The service refuses the request; repeating it does not help."""


class Unauthorized(Refused):
    """The key is missing, wrong or lacks the permission."""


class NotFound(Refused):
    """The thing does not exist."""


class Conflict(Refused):
    """The thing's state does not allow the request."""


class InvalidRequest(Refused):
    """The request is invalid; `problem.errors` lists the places."""


class DatasetRejected(DescentError):
    """The file could not be read as a table; `problem.errors` names rows and columns."""


class RunFailed(DescentError):
    """The run or batch prediction has no such result, or it failed or was cancelled."""


class TimedOut(DescentError):
    """The job is not over after the given time; it goes on."""


_KINDS: dict[int, type[DescentError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    428: Conflict,
    429: Unavailable,
    400: InvalidRequest,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
}


def error_of(response: httpx.Response) -> DescentError:
    """Return the exception for an error response, also for one from a proxy."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # a proxy or another service answered
        problem = Problem(
            type="about:blank",
            title=response.reason_phrase,
            status=response.status_code,
            code=f"http_{response.status_code}",
            detail=f"{response.url} answered {response.status_code} {response.reason_phrase}",
        )
    fallback = Unavailable if response.status_code >= 500 else Refused
    return _KINDS.get(response.status_code, fallback)(problem.code, problem.detail, problem)


def _items(problem: Problem | None) -> str:
    items = (problem.errors or []) if problem else []
    lines = []
    for item in items:
        place = item.pointer or item.column
        if place or len(items) > 1:  # a single item repeats the detail of the whole
            lines.append(f"\n  {place}: {item.detail}" if place else f"\n  {item.detail}")
    return "".join(lines)
