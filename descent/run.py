"""A run as the client sees it: wait for it, follow it, steer it, ask it."""

import json
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from descent import schemas
from descent.errors import DescentError, RunFailed, TimedOut, Unavailable, Unreachable
from descent.model import Model, Table, predict
from descent.transport import API, Call, NothingLeft, Pauses, Transport, part

RESTART_PATIENCE = 120.0  # seconds for which a stream waits for a service that restarts
WAIT = 30  # seconds for which the service may hold back an answer that is awaited


@dataclass(frozen=True)
class Event:
    """Something that happened to a run; `data` of `metrics` holds the new `rows` of the curves."""

    id: int
    kind: str
    data: dict[str, Any]


class Run:
    """One training job: watch it, steer it, ask it. `info` is what was last heard of it."""

    def __init__(self, transport: Transport, info: schemas.Run) -> None:
        self._transport = transport
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
        """Split → metrics of the model that was kept; empty before the run has ended."""
        return self.info.evaluation or {}

    @property
    def model(self) -> "Model":
        """The version that this run registered. Raises RunFailed if it registered none."""
        if self.info.model is None:
            raise RunFailed("no_model", f"{self.id} has registered no model: give register_as=…")
        return Model(self._transport, self.info.model.name, version=self.info.model.version)

    def refresh(self, *, wait_s: int | None = None) -> Self:
        """Ask for the run again; with `wait_s`, wait up to so long for its state to change."""
        answer = self._transport.send(Call("GET", self._path(), params={"wait": wait_s}))
        self.info = schemas.Run.model_validate_json(answer.content)
        return self

    def wait(self, timeout_s: float | None = None, *, check: bool = True) -> Self:
        """Wait until the run is over. Raises TimedOut, and RunFailed unless it has succeeded.

        With `check=False` a run that failed is returned like any other.
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

    def follow(self, after: int = 0) -> Iterator[Event]:
        """Yield every event after number `after` as it comes, until the run is over.

        Survives lost connections and restarts of the service without a gap or a repeat.
        """
        pauses = Pauses(RESTART_PATIENCE)
        while True:
            failure: DescentError | None = None
            try:
                for message in self._transport.stream(self._path("/events"), after):
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

    def metrics(
        self, *, names: str = "", splits: str = "", max_points: int | None = None
    ) -> schemas.MetricColumns:
        """Return the curves as one list per field; `max_points` thins but keeps the extremes."""
        params: dict[str, str | int | None] = {"layout": "columns", "max_points": max_points}
        params |= {"names": names or None, "splits": splits or None}
        columns: dict[str, list[Any]] = {field: [] for field in schemas.MetricColumns.model_fields}
        after, attempt = 0, None
        while True:
            place = {"after": after, "attempt": attempt}
            call = Call("GET", self._path("/metrics"), params={**params, **place})
            page = json.loads(self._transport.send(call).content)
            # A newer attempt went on from a checkpoint: what lies behind that was replaced.
            kept = min((rewind["after_seq"] for rewind in page["rewinds"]), default=after)
            live = bisect_right(columns["seq"], kept)
            for field, values in columns.items():
                values[live:] = page["data"][field]
            is_over = page["next_after"] == after or max_points is not None
            if kept >= after and is_over:
                return schemas.MetricColumns.model_validate(columns)
            after, attempt = page["next_after"], page["attempt"]

    def checkpoints(self) -> list[schemas.Checkpoint]:
        """Return the newest checkpoints, at most 200."""
        call = Call("GET", self._path("/checkpoints"), params={"limit": 200})
        page = json.loads(self._transport.send(call).content)
        return [schemas.Checkpoint.model_validate(item) for item in page["data"]]

    def log(self) -> str:
        """Return what the run wrote into its log."""
        return self._transport.send(Call("GET", self._path("/log"))).text

    def cancel(self) -> Self:
        """Ask the run to stop; its best checkpoint stays."""
        return self._ask("cancel")

    def pause(self) -> Self:
        """Ask the run to stop until `resume`, which goes on exactly where it was."""
        return self._ask("pause")

    def resume(self) -> Self:
        return self._ask("resume")

    def retry(self) -> "Run":
        """Start a new run from the last good checkpoint of this one."""
        answer = self._transport.send(Call("POST", self._path("/retry")))
        return Run(self._transport, schemas.Run.model_validate_json(answer.content))

    def predict(self, table: Table, *, on_problem: str = "warn") -> list[schemas.Prediction]:
        """Predict with the best checkpoint of this run; see Model.predict."""
        return predict(self._transport, self._path("/predict"), table, on_problem)

    def _ask(self, verb: str) -> Self:
        answer = self._transport.send(Call("POST", self._path(f"/{verb}")))
        self.info = schemas.Run.model_validate_json(answer.content)
        return self

    def _path(self, rest: str = "") -> str:
        return f"{API}/runs/{part(self.id)}{rest}"
