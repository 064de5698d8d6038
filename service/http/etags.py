"""ETags of responses, and the conditions `If-None-Match` and `If-Match` of requests."""

import hashlib
import json
from typing import TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from service.errors import PreconditionFailed, PreconditionRequired

Body = TypeVar("Body", bound=BaseModel)


def etag_of(*parts: object) -> str:
    """Return a strong ETag of the values that a representation is made from."""
    text = json.dumps(parts, default=str, sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


def not_modified(request: Request, etag: str) -> bool:
    """Return whether the client already has this representation, so that the response is 304."""
    return _names(request.headers.getlist("if-none-match"), etag)


def cached(
    request: Request, response: Response, body: Body, etag: str | None = None
) -> Body | Response:
    """Return 304 if the client already has this body, else the body."""
    etag = etag or etag_of(body.model_dump(mode="json"))
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return body


def check_match(request: Request, etag: str, *, is_required: bool = False) -> None:
    """Raise unless If-Match names this representation; 428 if it is required and missing."""
    headers = request.headers.getlist("if-match")
    if not headers:
        if is_required:
            raise PreconditionRequired
        return
    if not _names(headers, etag):
        raise PreconditionFailed


def _names(headers: list[str], etag: str) -> bool:
    given = [tag.strip().removeprefix("W/") for header in headers for tag in header.split(",")]
    return "*" in given or etag in given
