"""A run as the client sees it: wait for it, follow it, steer it, ask it."""

import json
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Literal, Self, overload

from descent import frames, plot, schemas
from descent.connection import Connection
from descent.errors import DescentError, RunFailed, TimedOut, Unavailable, Unreachable
from descent.events import Event
from descent.model import Model
from descent.predictions import Predictions, Table, predict
from descent.progress import show_training
from descent.transport import API, Call, NothingLeft, Pauses, part

RESTART_PATIENCE = 120.0  # seconds for which a stream waits for a service that restarts
WAIT = 30  # seconds for which the service may hold back an answer that is awaited


class Run:
    """One training job: watch it, steer it, ask it. `info` is what was last heard of it.

    >>> run = client.run(run.id)
    >>> run.state
    'succeeded'
    """

    def __init__(self, connection: Connection, info: schemas.Run) -> None:
        self._connection = connection
        self.info = info

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.state}>"

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def state(self) -> str:
        return self.info.state

    @property
    def is_over(self) -> bool:
        return self.info.state in schemas.TERMINAL_STATES

    @property
    def evaluation(self) -> dict[str, Any]:
        """Split → metrics of the model that was kept; empty before the run has ended.

        >>> round(run.evaluation["train"]["mae"], 1)
        3.8
        """
        return self.info.evaluation or {}

    @property
    def model(self) -> "Model":
        """The version that this run registered. Raises RunFailed if it registered none.

        >>> run.model
        <Model scores@2>
        """
        if self.info.model is None:
            raise RunFailed("no_model", f"{self.id} has registered no model: give register_as=…")
        return Model(self._connection, self.info.model.name, version=self.info.model.version)

    # ---- watching --------------------------------------------------------------------------------

    def refresh(self, *, wait_s: int | None = None) -> Self:
        """Ask for the run again; with `wait_s`, wait up to so long for its state to change.

        >>> run.refresh().is_over
        True
        """
        params = {"wait": wait_s}
        self.info = schemas.Run.model_validate_json(self._connection.get(self._path(), params))
        return self

    def wait(self, timeout_s: float | None = None, *, check: bool = True) -> Self:
        """Wait until the run is over. Raises TimedOut, and RunFailed unless it has succeeded.

        With `check=False` a run that failed is returned like any other.

        >>> run.wait(60).state
        'succeeded'
        """
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        while not self.is_over:
            left_s = WAIT if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise TimedOut("timed_out", f"{self.id} is still {self.state} after {timeout_s} s")
            self.refresh(wait_s=min(WAIT, int(left_s) + 1))
        if check and self.state != "succeeded":
            problem = self.info.error
            code = problem.code if problem else self.state
            detail = problem.detail if problem else f"{self.id} was {self.state}"
            raise RunFailed(code, detail, problem)
        return self

    def show(self, *, check: bool = True) -> Self:
        """Show a bar with the loss until the run is over, then be like `wait`.

        In a terminal or a notebook the bar is alive; elsewhere there are a few plain lines. Ctrl-C
        ends the bar and not the run.

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
        """Yield every event after number `after` as it comes, until the run is over.

        Survives lost connections and restarts of the service without a gap or a repeat.

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
        """Return the curves as one list per field, or as a DataFrame of pandas or polars.

        `names` and `splits` choose, separated by commas; `max_points` thins and keeps the extremes.
        Values that are not finite are floats too.

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
        # In JSON they are words.
        columns["value"] = list(map(float, columns["value"]))
        if frame is not None:
            return frames.frame_of(columns, frame)
        return schemas.MetricColumns.model_validate(columns)

    def plot(self, name: str = "loss", axes: Any = None) -> Any:  # noqa: ANN401  matplotlib's
        """Draw a metric by epoch, one line for each split, with matplotlib; return the axes.

        Raises ModuleNotFoundError where it is not installed.

        >>> axes = run.plot()
        >>> axes.get_ylabel(), axes.get_xlabel()
        ('loss', 'epoch')
        >>> axes.figure.savefig("loss.png")
        """
        curves = self.metrics(names=name, max_points=plot.POINTS)
        return plot.plot(curves, name, self.info.name or self.id, axes)

    def checkpoints(self) -> list[schemas.Checkpoint]:
        """Return the newest checkpoints, at most 200.

        >>> [checkpoint.is_best for checkpoint in run.checkpoints()][:1]
        [True]
        """
        page = json.loads(self._connection.get(self._path("/checkpoints"), {"limit": 200}))
        return [schemas.Checkpoint.model_validate(item) for item in page["data"]]

    def register(self, checkpoint_id: str, model: str) -> schemas.ModelVersion:
        """Make a checkpoint the next version of a model.

        >>> checkpoint = run.checkpoints()[0]
        >>> run.register(checkpoint.id, "picked").version
        1
        """
        path = self._path(f"/checkpoints/{part(checkpoint_id)}/register")
        answer = self._connection.transport.send(Call("POST", path, json={"model": model}))
        return schemas.ModelVersion.model_validate_json(answer.content)

    def log(self) -> str:
        """Return what the run wrote into its log.

        >>> "Traceback" in run.log()
        False
        """
        return self._connection.get(self._path("/log")).decode()

    # ---- steering --------------------------------------------------------------------------------

    def cancel(self) -> Self:
        """Ask the run to stop; its best checkpoint stays.

        >>> long = client.submit(scores, "Final", epochs=1_000_000, early_stopping=None)
        >>> long.cancel().wait(60, check=False).state
        'cancelled'
        """
        return self._ask("cancel")

    def pause(self) -> Self:
        """Ask the run to stop until `resume`, which goes on exactly where it was.

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
        """Go on with a run that was paused; see `pause`."""
        return self._ask("resume")

    def retry(self) -> "Run":
        """Start a new run from the last good checkpoint of this one, which failed or was cancelled.

        >>> long = client.submit(scores, "Final", epochs=1_000_000, early_stopping=None)
        >>> again = long.cancel().wait(60, check=False).retry()
        >>> again.info.retry_of == long.id
        True
        >>> again.cancel().wait(60, check=False).state
        'cancelled'
        """
        answer = self._connection.transport.send(Call("POST", self._path("/retry")))
        return Run(self._connection, schemas.Run.model_validate_json(answer.content))

    def rename(self, name: str | None = None, tags: dict[str, str] | None = None) -> Self:
        """Change the name, the tags, or both.

        >>> run.rename(tags={"course": "intro"}).info.tags
        {'course': 'intro'}
        """
        given = {"name": name, "tags": tags}
        body = {field: value for field, value in given.items() if value is not None}
        answer = self._connection.transport.send(Call("PATCH", self._path(), json=body))
        self.info = schemas.Run.model_validate_json(answer.content)
        return self

    def delete(self) -> None:
        """Delete the run with its curves and checkpoints; the models that it registered stay.

        >>> client.submit(scores, "Final", epochs=1).wait(60).delete()
        """
        self._connection.transport.send(Call("DELETE", self._path()))

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
            # A newer attempt went on from a checkpoint: what lies behind that was replaced.
            kept = min((rewind["after_seq"] for rewind in page["rewinds"]), default=after)
            live = bisect_right(columns["seq"], kept)
            for field, values in columns.items():
                values[live:] = page["data"][field]
            if kept >= after and (page["next_after"] == after or is_thinned):
                return columns
            after, attempt = page["next_after"], page["attempt"]

    def _ask(self, verb: Literal["cancel", "pause", "resume"]) -> Self:
        answer = self._connection.transport.send(Call("POST", self._path(f"/{verb}")))
        self.info = schemas.Run.model_validate_json(answer.content)
        return self

    def _path(self, rest: str = "") -> str:
        return f"{API}/runs/{part(self.id)}{rest}"
