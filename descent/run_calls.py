"""What the client does with runs and with predictions of whole tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from descent import schemas
from descent.batch import BatchPrediction
from descent.connection import Connection
from descent.model import Model
from descent.run import Run
from descent.transport import API, Call, part


class RunCalls:
    """The part of Client that knows work which takes its time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # ---- runs ------------------------------------------------------------------------------------

    def train(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        **config: Any,  # noqa: ANN401  JSON of many shapes
    ) -> Run:
        """Start a run, show its loss until it is over, and return it.

        `config` are the further fields of `descent.spec.RunConfig`: `model`, `loss`, `optimizer`,
        `epochs`, `split`, `register_as`, … Each has a default that is a good choice. Raises
        RunFailed unless the run succeeds; it is in the list of runs all the same.

        >>> run = client.train(scores, "Final", **line, epochs=300, register_as="scores")
        >>> run.state
        'succeeded'
        """
        return self.submit(dataset, target, **config).show()

    def submit(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        **config: Any,  # noqa: ANN401  JSON of many shapes
    ) -> Run:
        """Start a run as `train` does, and return it at once.

        >>> later = client.submit(scores, "Final", epochs=5)
        >>> later.wait(60).info.progress.epoch
        5
        """
        body = _run_body(dataset, target, config)
        answer = self._connection.transport.send(Call("POST", f"{API}/runs", json=body))
        return Run(self._connection, schemas.Run.model_validate_json(answer.content))

    def validate(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        **config: Any,  # noqa: ANN401  JSON of many shapes
    ) -> schemas.RunPlan:
        """Return the normalised configuration, warnings and an estimate; start nothing.

        >>> client.validate(scores, "Final", model={"type": "linear"}).estimate.parameters
        2
        """
        body = _run_body(dataset, target, config)
        answer = self._connection.transport.send(Call("POST", f"{API}/runs/validate", json=body))
        return schemas.RunPlan.model_validate_json(answer.content)

    def run(self, run_id: str) -> Run:
        """Return a run that exists.

        >>> client.run(run.id).state
        'succeeded'
        """
        content = self._connection.get(f"{API}/runs/{part(run_id)}")
        return Run(self._connection, schemas.Run.model_validate_json(content))

    def runs(self, **filters: str) -> Iterator[Run]:
        """Yield all runs, newest first; `filters` are `state, dataset, model, tag`.

        >>> run.id in [each.id for each in client.runs(state="succeeded")]
        True
        """
        for info in self._connection.pages(f"{API}/runs", filters, schemas.Run.model_validate):
            yield Run(self._connection, info)

    # ---- batch predictions -----------------------------------------------------------------------

    def predict_dataset(
        self,
        model: str | Model,
        dataset: str | schemas.Dataset,
        *,
        name: str | None = None,
        on_problem: str = "warn",
    ) -> BatchPrediction:
        """Start predictions for all rows of a dataset, which become a new dataset called `name`.

        >>> job = client.predict_dataset("scores", scores, name="predicted")
        >>> job.show().result().rows
        13
        """
        body = {
            "model": model if isinstance(model, str) else model.reference(),
            "dataset": dataset if isinstance(dataset, str) else dataset.id,
            "on_problem": on_problem,
        }
        body |= {"name": name} if name else {}
        call = Call("POST", f"{API}/batch_predictions", json=body)
        content = self._connection.transport.send(call).content
        info = schemas.BatchPrediction.model_validate_json(content)
        return BatchPrediction(self._connection, info)

    def batch_prediction(self, batch_id: str) -> BatchPrediction:
        """Return a batch prediction that exists.

        >>> client.batch_prediction(job.id).state
        'succeeded'
        """
        content = self._connection.get(f"{API}/batch_predictions/{part(batch_id)}")
        info = schemas.BatchPrediction.model_validate_json(content)
        return BatchPrediction(self._connection, info)

    def batch_predictions(self, **filters: str) -> Iterator[BatchPrediction]:
        """Yield all batch predictions, newest first; `filters` are `state, dataset, model`.

        >>> job.id in [each.id for each in client.batch_predictions(dataset=scores.id)]
        True
        """
        path = f"{API}/batch_predictions"
        for info in self._connection.pages(path, filters, schemas.BatchPrediction.model_validate):
            yield BatchPrediction(self._connection, info)


def _run_body(
    dataset: str | schemas.Dataset, target: str | Sequence[str], config: Mapping[str, Any]
) -> dict[str, Any]:
    body = {
        "dataset": dataset if isinstance(dataset, str) else dataset.id,
        "target": target if isinstance(target, str) else list(target),
    }
    fields = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in config.items()
    }
    return body | fields
