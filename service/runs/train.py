"""The training child: reads its job, trains, and reports through its pipe. It knows nothing else.

It holds no credentials and opens no connection; whatever it makes is a message of JSON or a file
in its scratch folder.
"""

import base64
import socket
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from descent.spec import ColumnSplit, GroupSplit, RunConfig, TimeSplit
from models.checkpoint import read
from models.data import read_table
from models.devices import memory_failures
from models.errors import LearningError
from models.events import Alive, Event, Frame, Job, Metrics, Noted, Saved, Started
from models.failpoints import reach
from models.features import Features
from models.train import train
from service.jobs.channel import Channel

FLUSH_S = 0.1  # seconds between two messages with rows
FLUSH_ROWS = 2000  # rows that are held at most
QUIET_S = 0.5  # seconds without a message after which a sign of life, one a second, is one


class Reporter(Channel):
    """Sends what training yields; rows are gathered so that a fast run is no flood of messages."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        self._rows: list[dict[str, Any]] = []
        self._frames: list[dict[str, Any]] = []
        #: what was reported last; nothing is sent of the run before its first rows
        self._newest: Metrics | None = None
        self._flushed_at = 0.0
        self._signature: dict[str, Any] | None = None

    def report(self, event: Event) -> None:
        if isinstance(event, Metrics):
            # Thousands of epochs a second come by here: what is only of the newest waits for it.
            self._rows += [vars(row) for row in event.rows]
            self._frames += _frames(event.frame)
            self._newest = event
            is_due = time.monotonic() - self._flushed_at >= FLUSH_S
            if is_due or len(self._rows) >= FLUSH_ROWS:
                self.flush()
            return
        if isinstance(event, Alive) and time.monotonic() - self.sent_at < QUIET_S:
            return
        self.flush()
        if isinstance(event, Started):
            about = {name: getattr(event, name) for name in ("device", "warnings", "subject")}
            self.send("started", **about, frames=_frames(event.frame))
        elif isinstance(event, Alive):
            self.send("alive", progress=asdict(event.progress))
        elif isinstance(event, Saved):
            if event.is_best:
                self._signature = _signature(event.path)
            self.send("checkpoint", **asdict(event) | {"path": str(event.path)})
        elif isinstance(event, Noted):
            self.send("log", line=f"{event.code}: {event.detail}")
        else:
            self.send("finished", **asdict(event), signature=self._signature)

    def flush(self) -> None:
        if self._rows and self._newest:
            progress, best = asdict(self._newest.progress), self._newest.best
            shown = {"progress": progress, "best": asdict(best) if best else None}
            self.send("metrics", rows=self._rows, frames=self._frames, **shown)
            self._rows, self._frames = [], []
        self._flushed_at = time.monotonic()

    def send(self, kind: str, **fields: Any) -> None:  # noqa: ANN401  JSON
        reach(f"trainer.{kind}")
        super().send(kind, **fields)


def _frames(frame: Frame | None) -> list[dict[str, Any]]:
    """Return a frame, where there is one, as JSON can carry it."""
    if frame is None:
        return []
    values = base64.b64encode(frame.values).decode()
    return [{"epoch": frame.epoch, "step": frame.step, "values": values}]


def _signature(path: Path) -> dict[str, Any]:
    _tensors, document = read(path, prefix="no tensor, only the document")
    return Features.from_json(document["features"]).signature()


def read_job(job: dict[str, Any]) -> Job:
    """Return the job with the columns that the run needs, read from the dataset's file."""
    config = RunConfig.model_validate(job["config"])
    needed = [*(config.features or []), *config.targets]
    if isinstance(config.split, TimeSplit | GroupSplit | ColumnSplit):
        needed.append(config.split.column)
    columns = list(dict.fromkeys(needed))
    types = {name: job["columns"][name] for name in columns}
    return Job(
        config=config,
        table=read_table(Path(job["table"]), types, columns),
        scratch=Path(job["scratch"]),
        resume=Path(job["resume"]) if job["resume"] else None,
        attempt=job["attempt"],
        seq=job["seq"],
        elapsed_s=job["elapsed_s"],
        checkpoint_s=job["checkpoint_s"],
        saving_s=job["saving_s"],
    )


def main(end: socket.socket, job: dict[str, Any]) -> None:
    """Run one attempt to its end."""
    reporter = Reporter(end)
    reach("trainer.begin")
    try:
        with memory_failures("the columns of this table", torch.device("cpu")):
            order = read_job(job)
        for event in train(order, reporter.should_stop):
            reporter.report(event)
        reach("trainer.end")
    except LearningError as error:
        reporter.flush()
        reporter.send("failed", code=error.code, detail=error.detail, where=error.where)
    except Exception:  # noqa: BLE001  whatever it was, the run must end with a sentence
        traceback.print_exc()
        reporter.flush()
        last = traceback.format_exc().splitlines()[-1]
        reporter.send("log", line=traceback.format_exc())
        reporter.send(
            "failed", code="internal_error", detail=f"The training stopped unexpectedly: {last}"
        )
    reporter.close()
