"""The routes of MLflow's scoring server, for the one model that DESCENT_INVOCATIONS_MODEL names."""

from dataclasses import replace
from functools import partial

from fastapi import Response

from service import http, system
from service.dependencies import Parts, PartsDep
from service.errors import NotFound
from service.inference import registry
from service.inference.cache import Predictors
from service.inference.predictions import ANSWER, BODY, AskedDep, queued
from service.inference.texts import JSON

router = http.router(tags=["mlflow"])


@router.post("/invocations", openapi_extra=BODY, responses=ANSWER, operation_id="invocations")
@http.not_idempotent
@http.streams_body
async def invocations(parts: PartsDep, asked: AskedDep) -> Response:
    """Predict with the configured model; the answer has MLflow's shape, whatever the body."""
    return await queued(parts, partial(_target, parts), replace(asked, is_invocation=True))


@router.get("/ping", operation_id="ping")
def ping(parts: PartsDep) -> Response:
    """Load the configured model and tell that it is ready."""
    predictors: Predictors = parts.predictors
    predictors.get(_target(parts).sha256)
    return Response("\n", media_type=JSON)


@router.get("/version", operation_id="version")
def version() -> Response:
    """Tell the version of the service, as MLflow's server tells its own."""
    return Response(system.version(), media_type="text/plain")


def _target(parts: Parts) -> registry.Target:
    name, alias, number = parts.settings.invocations
    if not name:
        raise NotFound(
            "No model answers here: name one in DESCENT_INVOCATIONS_MODEL, or ask"
            " /api/v1/models/{name}/predict.",
            code="no_invocations_model",
        )
    if alias:
        return parts.directory.of_alias(name, alias)
    return parts.directory.of_version(name, number) if number else parts.directory.of_model(name)
