"""The route that tells the contract of one model version."""

from typing import Annotated, Any

from fastapi import Path, Request, Response

from descent.spec import Name
from service.http import strict_route
from service.http.dependencies import ReadSession
from service.http.etags import etag_of, not_modified
from service.http.responses import json_response
from service.predict import contracts
from service.registry import versions

router = strict_route.router()


@router.get(
    "/models/{name}/versions/{version}/openapi.json",
    response_model=dict[str, Any],
    operation_id="get_model_contract",
)
@strict_route.has_etag
def get_contract(
    request: Request,
    session: ReadSession,
    name: Annotated[Name, Path(description="The name of a model.")],
    version: Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")],
) -> Response:
    """Describe how to predict with a version, in OpenAPI 3.1, with its own columns and types."""
    row = versions.find_version(session, name, version)
    root = request.scope.get("root_path", "")
    document = contracts.openapi_of(name, version, row.signature, root=root)
    etag = etag_of(document)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return json_response(document, headers={"ETag": etag})
