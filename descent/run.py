"""A run on the client's side: follow it, steer it, read its curves, predict with it."""

import json
import sys
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Self, overload

from descent import frames, schemas
from descent.curve import POINTS, Event, plot
from descent.errors import DescentError, RunFailed, Unavailable, Unreachable
from descent.job import RemoteJob
from descent.model import Model
from descent.predictions import Predictions, Table, predict
from descent.progress import show_training
from descent.transport import ApiCall, NothingLeft, Pauses, part

RESTART_PATIENCE = 120.0  # seconds that a stream waits for the service to restart


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
    ) -> Any: ...  # noqa: ANN401  a DataFrame
    def metrics(
        self,
        *,
        names: str = "",
        splits: str = "",
        max_points: int | None = None,
        frame: frames.Kind | None = None,
    ) -> Any:
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

    def plot(self, name: str = "loss", axes: Any = None) -> Any:  # noqa: ANN401  axes of matplotlib
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

    def predict(self, table: Table, *, on_problem: str = "warn") -> Predictions:
        """Predict with the best checkpoint of this run; see Model.predict.

        >>> len(run.predict({"Quiz": [10.0, 20.0]}))
        2
        """
        transport = self._connection.transport
        return predict(transport, self._path(), "/predict", table, on_problem)

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
