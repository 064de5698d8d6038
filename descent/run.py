"""A run on the client's side: follow it, steer it, read its curves, predict with it."""

import json
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, overload

from descent import frames, schemas
from descent.errors import DescentError, RunFailed, TimedOut, Unavailable, Unreachable
from descent.model import Model
from descent.predictions import Predictions, Table, predict
from descent.progress import POINTS, Event, plot, show_training, transfer
from descent.transport import API, ApiCall, Connection, NothingLeft, Pauses, part

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESTART_PATIENCE = 120.0  # seconds that a stream waits for the service to restart
LONG_POLL = 30  # seconds that the service may hold back one answer while a job goes on

Info = TypeVar("Info", bound=schemas.Run | schemas.BatchPrediction | schemas.Sweep)


class RemoteJob(Generic[Info]):
    """A job that a worker carries out. `info` is its state as of the latest answer."""

    #: the last part of the path under which the service lists such jobs
    _collection: ClassVar[str]
    _parse: Callable[[bytes], Info]

    def __init__(self, connection: Connection, info: Info) -> None:
        self._connection = connection
        self.info = info

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.state}>"

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def state(self) -> str:
        return self.info.state

    @property
    def is_over(self) -> bool:
        return self.info.state in schemas.TERMINAL_STATES

    def refresh(self, *, wait_s: int | None = None) -> Self:
        """Fetch the job again; with `wait_s`, wait up to that long for its state to change.

        >>> run.refresh().is_over
        True
        """
        return self._take(self._connection.get(self._path(), {"wait": wait_s}))

    def wait(self, timeout_s: float | None = None, *, check: bool = True) -> Self:
        """Wait until the job is over. Raises TimedOut, and RunFailed unless it succeeded.

        With `check=False` a job that failed or was cancelled is returned too.

        >>> run.wait(60).state
        'succeeded'
        """
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        while not self.is_over:
            left_s = LONG_POLL if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise TimedOut("timed_out", f"{self.id} is still {self.state} after {timeout_s} s")
            self.refresh(wait_s=min(LONG_POLL, int(left_s) + 1))
        if check and self.state != "succeeded":
            problem = self.info.error
            code = problem.code if problem else self.state
            detail = problem.detail if problem else f"{self.id} was {self.state}"
            raise RunFailed(code, detail, problem)
        return self

    def cancel(self) -> Self:
        """Ask the job to stop. A run keeps its best checkpoint, a batch prediction keeps nothing.

        >>> long = client.submit(scores, "Final", epochs=1_000_000, early_stopping=None)
        >>> long.cancel().wait(60, check=False).state
        'cancelled'
        >>> job.wait(60).cancel()
        Traceback (most recent call last):
        descent.errors.Conflict: ...
        """
        return self._ask("cancel")

    def delete(self) -> None:
        """Delete a job that is over.

        A run's curves and checkpoints are deleted with it. Models that a run registered, and the
        dataset that a batch prediction made, stay.

        >>> client.submit(scores, "Final", epochs=1).wait(60).delete()
        >>> client.predict_dataset("scores", scores).wait(60).delete()
        """
        self._connection.transport.send(ApiCall("DELETE", self._path()))

    def _events(self, after: int) -> Iterator[Event]:
        """Yield every event after number `after`, across broken connections, until the end."""
        pauses = Pauses(RESTART_PATIENCE)
        while True:
            failure: DescentError | None = None
            try:
                for message in self._connection.transport.stream(self._path("/events"), after):
                    after = int(message.id or after)
                    yield Event(after, message.event, json.loads(message.data))
                    if message.event == "end":
                        self.refresh()
                        return
                    pauses = Pauses(RESTART_PATIENCE)
            except NothingLeft:
                self.refresh()
                return
            except (Unreachable, Unavailable) as error:
                failure = error
            if not pauses.sleep():
                raise failure or Unreachable("unreachable", f"the events of {self.id} ended early")

    def _ask(self, verb: str) -> Self:
        call = ApiCall("POST", self._path(f"/{verb}"))
        return self._take(self._connection.transport.send(call).content)

    def _take(self, content: bytes) -> Self:
        self.info = self._parse(content)
        return self

    def _path(self, rest: str = "") -> str:
        return f"{API}/{self._collection}/{part(self.id)}{rest}"


class BatchPrediction(RemoteJob[schemas.BatchPrediction]):
    """Predictions for all rows of a dataset. `info` is its state as of the latest answer.

    >>> job = client.predict_dataset("scores", scores, name="predicted")
    >>> job.wait(60).info.errors
    0
    """

    _collection = "batch_predictions"
    _parse = staticmethod(schemas.BatchPrediction.model_validate_json)

    def show(self, *, check: bool = True) -> Self:
        """Show a progress bar of the rows until the job is over, then return as `wait` does.

        >>> job.show().state
        'succeeded'
        """
        title = f"Predicting {self.info.name}"
        with transfer(title, self._connection.screen, unit="rows") as report:
            while not self.is_over:
                report(self.info.progress.done, self.info.progress.rows)
                self.refresh(wait_s=1)
        return self.wait(check=check)

    def result(self) -> schemas.Dataset:
        """Return the dataset of the predictions. Raises RunFailed unless the job succeeded.

        >>> made = job.result()
        >>> [column.name for column in made.columns]
        ['Quiz', 'Final', 'prediction', 'warnings', 'error']
        >>> int(client.frame(made)["prediction"].count())
        13
        """
        if self.info.result is None:
            raise RunFailed("no_result", f"{self.id} is {self.state} and has made no dataset")
        path = f"{API}/datasets/{part(self.info.result.id)}"
        return schemas.Dataset.model_validate_json(self._connection.get(path))


class Run(RemoteJob[schemas.Run]):
    """A training job: watch it, steer it, use its model. `info` is the latest answer about it.

    >>> run = client.run(run.id)
    >>> run.state
    'succeeded'
    """

    _collection = "runs"
    _parse = staticmethod(schemas.Run.model_validate_json)

    @property
    def evaluation(self) -> dict[str, Any]:
        """The metrics of the kept model by split; empty before the run has ended.

        >>> round(run.evaluation["train"]["mae"], 1)
        3.8
        """
        return self.info.evaluation or {}

    def report(self) -> schemas.Report:
        """Return how the model compares with simple ones, and what makes its scores doubtful.

        Raises Conflict before the run has ended.

        >>> run.report().baselines[0].name
        'constant'
        """
        content = self._connection.get(self._path("/report"))
        return schemas.Report.model_validate_json(content)

    @property
    def model(self) -> Model:
        """The model version that this run registered. Raises RunFailed if it registered none.

        >>> run.model
        <Model scores@2>
        """
        if self.info.model is None:
            raise RunFailed("no_model", f"{self.id} has registered no model: give register_as=…")
        return Model(self._connection, self.info.model.name, version=self.info.model.version)

    # ---- watching --------------------------------------------------------------------------------

    def show(self, *, check: bool = True) -> Self:
        """Show a bar with the loss until the run is over, then return as `wait` does.

        A terminal and a notebook show a live bar, any other output gets a few plain lines. Ctrl-C
        stops the bar but not the run.

        >>> run.show().state
        'succeeded'
        """
        title = f"Training {self.info.name or self.info.config.get('register_as') or self.id}"
        epochs = int(self.info.config.get("epochs", 0))
        try:
            show_training(self.follow(), title, epochs, self._connection.screen)
        except KeyboardInterrupt:
            sys.stderr.write(f'\n{self.id} goes on: client.run("{self.id}").cancel() stops it\n')
            raise
        return self.wait(check=check)

    def follow(self, after: int = 0) -> Iterator[Event]:
        """Yield every event after number `after` as it happens, until the run is over.

        No event is lost or repeated if the connection breaks or the service restarts.

        >>> [event.data["state"] for event in run.follow() if event.kind == "state"]
        ['queued', 'starting', 'running', 'succeeded']
        """
        yield from self._events(after)

    @overload
    def metrics(
        self,
        *,
        names: str = "",
        splits: str = "",
        max_points: int | None = None,
        frame: None = None,
    ) -> schemas.MetricColumns: ...
    @overload
    def metrics(
        self,
        *,
        names: str = "",
        splits: str = "",
        max_points: int | None = None,
        frame: frames.Kind,
    ) -> frames.DataFrame: ...
    def metrics(
        self,
        *,
        names: str = "",
        splits: str = "",
        max_points: int | None = None,
        frame: frames.Kind | None = None,
    ) -> schemas.MetricColumns | frames.DataFrame:
        """Return the curves as one list per field, or as a pandas or polars DataFrame.

        `names` and `splits` select curves, separated by commas. `max_points` thins the curves and
        keeps the extremes. NaN and infinite values are floats.

        >>> curve = run.metrics(names="loss", splits="train")
        >>> curve.epoch[:3], curve.value[0] > curve.value[-1]
        ([1, 2, 3], True)
        >>> frame = run.metrics(names="loss", frame="pandas")
        >>> round(float(frame["value"].min()))
        19
        >>> run.metrics(frame="polars").columns[:5]
        ['seq', 'attempt', 'epoch', 'step', 'split']
        """
        params: dict[str, str | int | None] = {"layout": "columns", "max_points": max_points}
        params |= {"names": names or None, "splits": splits or None}
        columns = self._curves(params, is_thinned=max_points is not None)
        # JSON spells NaN and infinities as strings.
        columns["value"] = list(map(float, columns["value"]))
        if frame is not None:
            return frames.frame_of(columns, frame)
        return schemas.MetricColumns.model_validate(columns)

    def plot(self, name: str = "loss", axes: "Axes | None" = None) -> "Axes":
        """Plot a metric by epoch, one line per split, with matplotlib; return the axes.

        Raises ModuleNotFoundError if matplotlib is not installed.

        >>> axes = run.plot()
        >>> axes.get_ylabel(), axes.get_xlabel()
        ('loss', 'epoch')
        >>> axes.figure.savefig("loss.png")
        """
        curves = self.metrics(names=name, max_points=POINTS)
        return plot(curves, name, self.info.name or self.id, axes)

    def checkpoints(self) -> list[schemas.Checkpoint]:
        """Return the newest checkpoints, at most 200.

        >>> [checkpoint.is_best for checkpoint in run.checkpoints()][:1]
        [True]
        """
        page = json.loads(self._connection.get(self._path("/checkpoints"), {"limit": 200}))
        return [schemas.Checkpoint.model_validate(item) for item in page["data"]]

    def register(self, checkpoint_id: str, model: str) -> schemas.ModelVersion:
        """Register a checkpoint as the next version of a model.

        >>> checkpoint = run.checkpoints()[0]
        >>> run.register(checkpoint.id, "picked").version
        1
        """
        path = self._path(f"/checkpoints/{part(checkpoint_id)}/register")
        answer = self._connection.transport.send(ApiCall("POST", path, json={"model": model}))
        return schemas.ModelVersion.model_validate_json(answer.content)

    def log(self) -> str:
        """Return the log of the run.

        >>> "Traceback" in run.log()
        False
        """
        return self._connection.get(self._path("/log")).decode()

    # ---- steering --------------------------------------------------------------------------------

    def pause(self) -> Self:
        """Ask the run to pause. `resume` continues it exactly at the same step.

        >>> long = client.submit(scores, "Final", epochs=1_000_000, early_stopping=None)
        >>> _ = next(event for event in long.follow() if event.kind == "metrics")
        >>> long.pause().state in {"pausing", "paused"}
        True
        >>> while long.refresh(wait_s=30).state != "paused":
        ...     pass
        >>> long.resume().cancel().wait(60, check=False).state
        'cancelled'
        """
        return self._ask("pause")

    def resume(self) -> Self:
        """Continue a paused run; see `pause`."""
        return self._ask("resume")

    def retry(self) -> "Run":
        """Start a new run from the last good checkpoint of this failed or cancelled run.

        >>> long = client.submit(scores, "Final", epochs=1_000_000, early_stopping=None)
        >>> again = long.cancel().wait(60, check=False).retry()
        >>> again.info.retry_of == long.id
        True
        >>> again.cancel().wait(60, check=False).state
        'cancelled'
        """
        answer = self._connection.transport.send(ApiCall("POST", self._path("/retry")))
        return Run(self._connection, schemas.Run.model_validate_json(answer.content))

    def rename(self, name: str | None = None, tags: dict[str, str] | None = None) -> Self:
        """Change the name, the tags, or both.

        >>> run.rename(tags={"course": "intro"}).info.tags
        {'course': 'intro'}
        """
        given = {"name": name, "tags": tags}
        body = {field: value for field, value in given.items() if value is not None}
        call = ApiCall("PATCH", self._path(), json=body)
        return self._take(self._connection.transport.send(call).content)

    def predict(
        self, table: Table, *, on_problem: str = "warn", interval: float | None = None
    ) -> Predictions:
        """Predict with the best checkpoint of this run; see Model.predict.

        >>> len(run.predict({"Quiz": [10.0, 20.0]}))
        2
        """
        transport = self._connection.transport
        return predict(transport, self._path(), "/predict", table, on_problem, interval)

    def _curves(
        self, params: dict[str, str | int | None], *, is_thinned: bool
    ) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {field: [] for field in schemas.MetricColumns.model_fields}
        after, attempt = 0, None
        while True:
            place = {"after": after, "attempt": attempt}
            page = json.loads(self._connection.get(self._path("/metrics"), {**params, **place}))
            # A newer attempt resumed from a checkpoint and replaced the rows after it.
            kept = min((rewind["after_seq"] for rewind in page["rewinds"]), default=after)
            live = bisect_right(columns["seq"], kept)
            for field, values in columns.items():
                values[live:] = page["data"][field]
            if kept >= after and (page["next_after"] == after or is_thinned):
                return columns
            after, attempt = page["next_after"], page["attempt"]
