"""The route that tells how a run's model does on its rows, point by point."""

from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import Query, Request, Response

from descent import schemas
from descent.spec import RunConfig
from service.datasets.tables import DatasetVersion
from service.datasets.versions import ready_version, table_digest
from service.errors import NotFound
from service.http import strict_route
from service.http.dependencies import BlobsDep, ScratchDep
from service.http.etags import etag_of, not_modified
from service.http.responses import json_response
from service.predict.evaluations import Stored, evaluate
from service.predict.inference import Inference, InferenceDep
from service.predict.routes import predictor_of
from service.registry import versions
from service.runs import lifecycle
from service.storage.database import reading

router = strict_route.router()


@router.get(
    "/runs/{run_id}/evaluation",
    response_model=schemas.Evaluation,
    operation_id="get_run_evaluation",
    tags=["runs"],
)
@strict_route.has_etag
async def get_run_evaluation(
    run_id: str,
    inference: InferenceDep,
    blobs: BlobsDep,
    scratch: ScratchDep,
    request: Request,
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        Query(description="Which rows; test, validation or train rows by default, as there are."),
    ] = None,
) -> Response:
    """Return predictions of the best checkpoint beside the truth, or ROC curves for classes.

    Of a large split they are those of a draw of rows, the same one each time; the figures of all
    rows are in the run's `evaluation`.
    """
    config, version, target = await run_sync(_found, inference, run_id)
    etag = etag_of(target.sha256, version.table_sha256, split)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})

    def compute() -> dict[str, Any]:
        predictor = predictor_of(inference, target)
        types = {column["name"]: column["type"] for column in version.columns}
        with scratch.folder() as folder:
            path = blobs.fetch(table_digest(version), folder)
            try:
                return evaluate(config, Stored(path, types, version.rows), predictor, split)
            except FileNotFoundError as error:  # deleted, and collected, since it was fetched
                raise NotFound(f"The dataset of the run {run_id} is gone.") from error

    return json_response(await inference.executor.run(compute), headers={"ETag": etag})


def _found(inference: Inference, run_id: str) -> tuple[RunConfig, DatasetVersion, versions.Target]:
    with reading(inference.engine) as session:
        run = lifecycle.get(session, run_id)
        target = lifecycle.target_of(session, run_id)
        version = ready_version(session, run.dataset_id, run.dataset_version)
        return RunConfig.model_validate(run.config), version, target
