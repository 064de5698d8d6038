"""JSON responses: written by orjson, with times in UTC that end in `Z`."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response
from pydantic import BaseModel

OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY


def json_response(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with a body of plain values, NumPy values and Pydantic models."""
    content = orjson.dumps(body, default=_plain, option=OPTIONS)
    return Response(content, status, headers, media_type="application/json")


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")
