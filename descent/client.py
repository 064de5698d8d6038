"""The Python client: upload a table, train on it, follow the run, predict.

>>> from descent import Client
>>> client = Client()  # or Client("http://127.0.0.1:8000", "a key")
>>> scores = client.upload("scores.csv")
>>> line = {"model": {"type": "linear"}, "split": {"type": "none"}, "loss": "mse"}
>>> run = client.train(scores, "Final", **line, register_as="scores")
>>> model = client.model("scores")
>>> round(model.predict({"Quiz": 10.0})[0].value, 1)
13.8

The examples of all methods continue from here. The client knows the API and nothing of how the
service works inside.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from descent import schemas
from descent.datasets import DatasetCalls, file_content
from descent.errors import Unavailable, Unreachable
from descent.model import Model
from descent.run import BatchPrediction, Run
from descent.sweep import Sweep
from descent.transport import API, ApiCall, Connection, Transport, part

DEFAULT_URL = "http://127.0.0.1:8000"
#: options of a sweep that are not fields of its runs; `sweep_seed` is the field `seed`
SWEEP_FIELDS = frozenset(
    {"trials", "strategy", "metric", "budget", "register_best_as", "sweep_seed", "name", "tags"}
)
PATIENCE = 15.0  # seconds for which the client repeats a request that fails temporarily


class Client(DatasetCalls):
    """A client of the service at `url`, with the API key `key`.

    Both default to DESCENT_URL and DESCENT_API_KEY. The client repeats requests that fail
    temporarily for `patience_s` seconds; the service carries each out only once. Every method
    raises DescentError, see `descent.errors`. `progress=False` hides progress bars.

    >>> with Client(client.url, patience_s=3, progress=False) as quiet:
    ...     quiet.is_ready()
    True
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        patience_s: float = PATIENCE,
        progress: bool = True,
    ) -> None:
        url = url or os.environ.get("DESCENT_URL") or DEFAULT_URL
        key = os.environ.get("DESCENT_API_KEY", "") if key is None else key
        super().__init__(Connection(Transport(url, key, patience_s), progress))

    def __repr__(self) -> str:
        return f"<Client {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections.

        >>> Client(client.url).close()
        """
        self._connection.transport.close()

    @property
    def url(self) -> str:
        return self._connection.transport.url

    # ---- runs ------------------------------------------------------------------------------------

    def train(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        **config: object,
    ) -> Run:
        """Start a run, show its loss until it is over, and return it.

        `config` holds further fields of `descent.spec.RunConfig`: `preset`, `model`, `loss`,
        `optimizer`, `epochs`, `split`, `register_as`, … Every field has a sensible default. Raises
        RunFailed unless the run succeeds; the list of runs contains failed runs too.

        >>> run = client.train(scores, "Final", **line, epochs=300, register_as="scores")
        >>> run.state
        'succeeded'
        """
        return self.submit(dataset, target, **config).show()

    def submit(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        **config: object,
    ) -> Run:
        """Start a run like `train`, but return it at once.

        >>> later = client.submit(scores, "Final", epochs=5)
        >>> later.wait(60).info.progress.epoch
        5
        """
        body = _run_body(dataset, target, config)
        answer = self._connection.transport.send(ApiCall("POST", f"{API}/runs", json=body))
        return Run(self._connection, schemas.Run.model_validate_json(answer.content))

    def validate(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        **config: object,
    ) -> schemas.RunPlan:
        """Return the complete configuration, warnings and an estimate of the cost; start no run.

        >>> client.validate(scores, "Final", model={"type": "linear"}).estimate.parameters
        2
        """
        body = _run_body(dataset, target, config)
        answer = self._connection.transport.send(ApiCall("POST", f"{API}/runs/validate", json=body))
        return schemas.RunPlan.model_validate_json(answer.content)

    def lr_range(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        **config: object,
    ) -> Run:
        """Test learning rates by a short run, show its loss until it is over, and return it.

        The rate rises with each batch until the loss explodes; `lr_range={"min": …, "max": …}`
        limits it. Its `evaluation["lr_range"]` holds the `suggested` rate, and in `detail` how fast
        the loss fell there.

        >>> tested = client.lr_range(scores, "Final")
        >>> tested.evaluation["lr_range"]["suggested"] > 0
        True
        """
        body = _run_body(dataset, target, config)
        answer = self._connection.transport.send(ApiCall("POST", f"{API}/runs/lr_range", json=body))
        return Run(self._connection, schemas.Run.model_validate_json(answer.content)).show()

    def run(self, run_id: str) -> Run:
        """Return a run by its id.

        >>> client.run(run.id).state
        'succeeded'
        """
        content = self._connection.get(f"{API}/runs/{part(run_id)}")
        return Run(self._connection, schemas.Run.model_validate_json(content))

    def runs(self, **filters: str) -> Iterator[Run]:
        """Yield all runs, newest first; filter by `state`, `dataset`, `model` or `tag`.

        >>> run.id in [each.id for each in client.runs(state="succeeded")]
        True
        """
        for info in self._connection.pages(f"{API}/runs", filters, schemas.Run.model_validate):
            yield Run(self._connection, info)

    # ---- sweeps ----------------------------------------------------------------------------------

    def sweep(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        space: Mapping[str, object],
        **options: object,
    ) -> Sweep:
        """Start a sweep, show its leaderboard until it is over, and return it.

        `space` holds paths of fields of a run and their values: `{"grid": […]}`,
        `{"choice": […]}`, `{"uniform": [low, high]}`, `{"log_uniform": [low, high]}` or
        `{"int": [low, high]}`; a list is a `grid`. `options` holds the fields of
        `descent.schemas.SweepRequest`: `trials`, `strategy`, `metric`, `budget`,
        `register_best_as`, `sweep_seed`, `name`, `tags`; all others are fields of
        `descent.spec.RunConfig`. Raises RunFailed unless a member succeeds.

        >>> rates = {"optimizer.learning_rate": {"grid": [0.1, 0.01, 0.001]}}
        >>> options = line | {"optimizer": {"type": "sgd"}, "epochs": 30}
        >>> sweep = client.sweep(scores, "Final", rates, **options, register_best_as="tuned")
        >>> sweep.info.best.parameters
        {'optimizer.learning_rate': 0.1}
        """
        return self.submit_sweep(dataset, target, space, **options).show()

    def submit_sweep(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        space: Mapping[str, object],
        **options: object,
    ) -> Sweep:
        """Start a sweep like `sweep`, but return it at once.

        >>> later = client.submit_sweep(scores, "Final", {"seed": [1, 2]}, epochs=3)
        >>> len(later.wait(60).leaderboard())
        2
        """
        call = ApiCall("POST", f"{API}/sweeps", json=_sweep_body(dataset, target, space, options))
        content = self._connection.transport.send(call).content
        return Sweep(self._connection, schemas.Sweep.model_validate_json(content))

    def validate_sweep(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        space: Mapping[str, object],
        **options: object,
    ) -> schemas.SweepPlan:
        """Return the trials, warnings and an estimate of the cost of a sweep; start none.

        >>> client.validate_sweep(scores, "Final", {"seed": [1, 2]}).parameters
        [{'seed': 1}, {'seed': 2}]
        """
        body = _sweep_body(dataset, target, space, options)
        call = ApiCall("POST", f"{API}/sweeps/validate", json=body)
        content = self._connection.transport.send(call).content
        return schemas.SweepPlan.model_validate_json(content)

    def get_sweep(self, sweep_id: str) -> Sweep:
        """Return a sweep by its id.

        >>> client.get_sweep(sweep.id).state
        'succeeded'
        """
        content = self._connection.get(f"{API}/sweeps/{part(sweep_id)}")
        return Sweep(self._connection, schemas.Sweep.model_validate_json(content))

    def sweeps(self, **filters: str) -> Iterator[Sweep]:
        """Yield all sweeps without their leaderboards, newest first; filter by `state`, `dataset`.

        >>> sweep.id in [each.id for each in client.sweeps(state="succeeded")]
        True
        """
        for info in self._connection.pages(f"{API}/sweeps", filters, schemas.Sweep.model_validate):
            yield Sweep(self._connection, info)

    # ---- batch predictions -----------------------------------------------------------------------

    def predict_dataset(
        self,
        model: str | Model,
        dataset: str | schemas.Dataset,
        *,
        name: str | None = None,
        on_problem: str = "warn",
        interval: float | None = None,
    ) -> BatchPrediction:
        """Start a batch prediction of all rows of a dataset. The result is a new dataset, `name`.

        `interval`, from 0.5 to 0.99, adds columns of intervals or of sets; see Model.predict.

        >>> job = client.predict_dataset("scores", scores, name="predicted")
        >>> job.show().result().rows
        13
        """
        body: dict[str, Any] = {
            "model": model if isinstance(model, str) else model.reference(),
            "dataset": dataset if isinstance(dataset, str) else dataset.id,
            "on_problem": on_problem,
        }
        body |= {"name": name} if name else {}
        body |= {} if interval is None else {"interval": interval}
        call = ApiCall("POST", f"{API}/batch_predictions", json=body)
        content = self._connection.transport.send(call).content
        info = schemas.BatchPrediction.model_validate_json(content)
        return BatchPrediction(self._connection, info)

    def batch_prediction(self, batch_id: str) -> BatchPrediction:
        """Return a batch prediction by its id.

        >>> client.batch_prediction(job.id).state
        'succeeded'
        """
        content = self._connection.get(f"{API}/batch_predictions/{part(batch_id)}")
        info = schemas.BatchPrediction.model_validate_json(content)
        return BatchPrediction(self._connection, info)

    def batch_predictions(self, **filters: str) -> Iterator[BatchPrediction]:
        """Yield all batch predictions, newest first; filter by `state`, `dataset` or `model`.

        >>> job.id in [each.id for each in client.batch_predictions(dataset=scores.id)]
        True
        """
        path = f"{API}/batch_predictions"
        for info in self._connection.pages(path, filters, schemas.BatchPrediction.model_validate):
            yield BatchPrediction(self._connection, info)

    # ---- models ----------------------------------------------------------------------------------

    def model(self, name: str, *, version: int | None = None, alias: str | None = None) -> Model:
        """Return a model by its name: its newest version unless you give `version` or `alias`.

        >>> client.model("scores", alias="champion")
        <Model scores@champion>
        """
        return Model(self._connection, name, version=version, alias=alias)

    def models(self) -> Iterator[schemas.Model]:
        """Yield all models, newest first.

        >>> "scores" in [model.name for model in client.models()]
        True
        """
        return self._connection.pages(f"{API}/models", {}, schemas.Model.model_validate)

    def import_model(self, source: str | Path | bytes, name: str) -> schemas.ModelVersion:
        """Import a bundle as the next version of the model `name`.

        `source` is a path or the bytes of the file. Raises DescentError with the code
        `golden_mismatch` if the model's predictions differ from those recorded in the bundle.

        >>> bundle = client.model("scores").export("scores.zip")
        >>> client.import_model(bundle, "twin").imported.model
        'scores'
        """
        path = f"{API}/models/{part(name)}/versions"
        headers = {"Content-Type": "application/zip"}
        if isinstance(source, bytes):
            call = ApiCall("POST", path, content=lambda: source, headers=headers)
            return self._imported(call)
        with file_content(Path(source), self._connection.screen, "Importing") as content:
            return self._imported(ApiCall("POST", path, content=content, headers=headers))

    def _imported(self, call: ApiCall) -> schemas.ModelVersion:
        content = self._connection.transport.send(call).content
        return schemas.ModelVersion.model_validate_json(content)

    # ---- the service -----------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether the service can serve now.

        >>> client.is_ready()
        True
        """
        try:
            self._connection.get("/readyz")
        except (Unreachable, Unavailable):
            return False
        return True

    def system(self) -> schemas.System:
        """Return the service's version, devices, workers, queue and limits.

        >>> client.system().database
        'sqlite'
        """
        return schemas.System.model_validate_json(self._connection.get(f"{API}/system"))

    def architectures(self) -> list[schemas.Architecture]:
        """Return the model types that a run can use, each with its JSON Schema.

        >>> [architecture.type for architecture in client.architectures()][:2]
        ['linear', 'mlp']
        """
        pages = self._connection.pages(
            f"{API}/architectures", {}, schemas.Architecture.model_validate
        )
        return list(pages)

    def keys(self) -> Iterator[schemas.Key]:
        """Yield the API keys without their secrets, newest first.

        >>> list(client.keys())
        []
        """
        return self._connection.pages(f"{API}/keys", {}, schemas.Key.model_validate)

    def create_key(self, name: str, expires_at: datetime | None = None) -> schemas.KeyCreated:
        """Create an API key and return it with its secret, which the service shows only once.

        From the first key on, every request needs one.

        >>> made = client.create_key("a colleague")
        >>> with Client(client.url, made.secret) as keyed:
        ...     print([key.name for key in keyed.keys()])
        ...     keyed.delete_key(made.id)
        ['a colleague']
        """
        body = {"name": name} | ({"expires_at": expires_at.isoformat()} if expires_at else {})
        answer = self._connection.transport.send(ApiCall("POST", f"{API}/keys", json=body))
        return schemas.KeyCreated.model_validate_json(answer.content)

    def delete_key(self, key_id: str) -> None:
        """Revoke an API key; see `create_key`."""
        self._connection.transport.send(ApiCall("DELETE", f"{API}/keys/{part(key_id)}"))


def _run_body(
    dataset: str | schemas.Dataset, target: str | Sequence[str], config: Mapping[str, object]
) -> dict[str, object]:
    body: dict[str, object] = {
        "dataset": dataset if isinstance(dataset, str) else dataset.id,
        "target": target if isinstance(target, str) else list(target),
    }
    return body | {name: _plain(value) for name, value in config.items()}


def _sweep_body(
    dataset: str | schemas.Dataset,
    target: str | Sequence[str],
    space: Mapping[str, object],
    options: Mapping[str, object],
) -> dict[str, object]:
    own = {name: _plain(value) for name, value in options.items() if name in SWEEP_FIELDS}
    rest = {name: value for name, value in options.items() if name not in SWEEP_FIELDS}
    if "sweep_seed" in own:
        own["seed"] = own.pop("sweep_seed")
    dimensions = {
        path: {"grid": values} if isinstance(values, list | tuple) else _plain(values)
        for path, values in space.items()
    }
    return own | {"base": _run_body(dataset, target, rest), "space": dimensions}


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
