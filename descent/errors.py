"""What can go wrong for a user of the client, as exceptions that carry the service's own words.

DescentError
├── Unreachable            the service gave no answer
├── Unavailable 429, 5xx   it answered, but cannot do it now
├── Refused 4xx            it will not do it
│   ├── Unauthorized 401, 403
│   ├── NotFound 404
│   ├── Conflict 409, 412, 428
│   └── InvalidRequest 400, 413, 415, 422
├── DatasetRejected        the file could not be read as a table
├── RunFailed              the run ended as `failed` or `cancelled`
└── TimedOut               the run had not ended within the time that the caller gave

`code` is stable, `detail` is for people, `problem` is the whole answer.
"""

import httpx
from pydantic import ValidationError

from descent.schemas import Problem


class DescentError(Exception):
    """Something went wrong; `code` is stable, `detail` is for people."""

    def __init__(self, code: str, detail: str, problem: Problem | None = None) -> None:
        self.code = code
        self.detail = detail
        #: the whole answer, with `errors`, `allowed` and what else it says
        self.problem = problem
        self.status = problem.status if problem else None
        self.request_id = problem.request_id if problem else None
        super().__init__(f"{code}: {detail}" + _items(problem))


class Unreachable(DescentError):
    """The service gave no answer."""


class Unavailable(DescentError):
    """The service cannot do it now; the client has tried again for a while."""


class Refused(DescentError):
    """The service will not do it, however often it is asked."""


class Unauthorized(Refused):
    """The key is missing, wrong or not allowed to do this."""


class NotFound(Refused):
    """There is no such thing."""


class Conflict(Refused):
    """The thing is in a state that does not allow this."""


class InvalidRequest(Refused):
    """The request cannot be carried out as it stands; `problem.errors` says where."""


class DatasetRejected(DescentError):
    """The file could not be read as a table; `problem.errors` names row and column."""


class RunFailed(DescentError):
    """The run ended without a result that was asked for."""


class TimedOut(DescentError):
    """The run had not ended in time; it goes on."""


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
    """Return the exception for an answer that is no success, whoever sent it."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # a proxy, or something that is not this service
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
        if place or len(items) > 1:  # the detail of a single item is that of the whole
            lines.append(f"\n  {place}: {item.detail}" if place else f"\n  {item.detail}")
    return "".join(lines)
