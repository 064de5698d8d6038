"""The routes of MLflow's scoring server, for the one model that DESCENT_INVOCATIONS_MODEL names."""

from dataclasses import replace
from functools import partial

from fastapi import Response
from fastapi.responses import PlainTextResponse

from service.errors import NotFound
from service.http import strict_route
from service.predict.bodies import JSON
from service.predict.routes import ANSWER, BODY, Inference, InferenceDep, PredictionBodyDep, queued
from service.registry import versions
from service.settings import version as own_version

router = strict_route.router(tags=["mlflow"])


@router.post("/invocations", openapi_extra=BODY, responses=ANSWER, operation_id="invocations")
@strict_route.not_idempotent
@strict_route.streams_body
async def invocations(inference: InferenceDep, asked: PredictionBodyDep) -> Response:
    """Predict with the configured model; the answer has MLflow's shape, whatever the body."""
    return await queued(inference, partial(_target, inference), replace(asked, is_invocation=True))


@router.get("/ping", operation_id="ping", response_class=Response)
def ping(inference: InferenceDep) -> Response:
    """Load the configured model and answer when it is ready."""
    inference.predictors.get(_target(inference).sha256)
    return Response("\n", media_type=JSON)


@router.get("/version", operation_id="version", response_class=PlainTextResponse)
def version() -> Response:
    """Return the version of the service, where MLflow's server returns its own."""
    return Response(own_version(), media_type="text/plain")


def _target(inference: Inference) -> versions.Target:
    name, alias, number = inference.settings.invocations
    if not name:
        raise NotFound(
            "No model is configured for this route: set DESCENT_INVOCATIONS_MODEL, or use"
            " /api/v1/models/{name}/predict.",
            code="no_invocations_model",
        )
    if alias:
        return inference.directory.of_alias(name, alias)
    return (
        inference.directory.of_version(name, number)
        if number
        else inference.directory.of_model(name)
    )
