"""The training process: reads its job, trains, and reports through its pipe.

It has no credentials and opens no connections. It produces JSON messages and files in its scratch
folder, nothing else.
"""

import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import TypeAdapter

from descent.spec import RunConfig
from models.architectures.dense import Linear
from models.checkpoint import read
from models.data import Table, open_table
from models.engine.hardware import memory_failures, processors
from models.errors import LearningError
from models.failpoints import ignored, reach
from models.features.encoding import Features
from models.training.dataset import Data, TrainingInput
from models.training.interface import (
    Alive,
    Finished,
    Frame,
    MetricRow,
    Metrics,
    Noted,
    Piece,
    Saved,
    Started,
    StopReason,
)
from models.training.loop import MakeData, train
from models.training.scores import columns_that_split
from models.training.together import Member, SharedData, take_turns
from service.jobs.pipe import OWN_DEVICE, Channel, Message, Obeyed, last_message
from service.runs.messages import (
    CheckpointFile,
    LogLine,
    MetricRows,
    RungReached,
    TrainingBegan,
    TrainingEnded,
    TrainingGroup,
    TrainingHeartbeat,
    TrainingJob,
)

ORDERS: TypeAdapter[TrainingJob | TrainingGroup] = TypeAdapter(TrainingJob | TrainingGroup)
FLUSH_S = 0.1  # seconds between two messages with rows
FLUSH_AT_MOST = 1.0  # seconds between two of a run that trains with many others
FLUSH_ROWS = 2000  # rows after which a message is sent early
QUIET_S = 0.5  # a heartbeat, due once a second, is sent only after so many seconds of silence
MEMBER_FRAMES = 4  # the most frames of a member of a group
#: reasons that end a training by order of the supervisor
STOPS = frozenset({"cancel", "pause", "handback"})
Report: TypeAlias = Started | Metrics | Alive | Saved | Noted | Finished


class Reporter:
    """Sends the events of a training, with rows collected so that a fast run sends few messages.

    Progress is serialised only at a flush; only the latest matters. Several trainings of one
    process share the channel; `job_id` is None for the only one.
    """

    def __init__(
        self, channel: Channel, job_id: str | None = None, flush_s: float = FLUSH_S
    ) -> None:
        self._channel, self._job_id, self._flush_s = channel, job_id, flush_s
        self._sent_at = 0.0
        self._rows: list[MetricRow] = []
        self._frames: list[Frame] = []
        #: the newest report with rows; a flush shows its progress
        self._newest: Metrics | None = None
        self._flushed_at = 0.0
        #: whether a message has shown how long the rest takes
        self._has_progress = False
        self._signature: dict[str, Any] | None = None

    def should_stop(self) -> StopReason | None:
        """Return the reason if the supervisor has ordered to stop this training."""
        return self._channel.should_stop(self._job_id)

    def is_stopping(self) -> bool:
        """Return whether the supervisor has ordered to stop this training."""
        return self.should_stop() is not None

    def report(self, event: Report) -> None:
        if isinstance(event, Metrics):
            # A run may finish thousands of epochs in a second: keep only the rows of each.
            self._rows += event.rows
            self._frames += _frames(event.frame)
            self._newest, self._has_progress = event, True
            is_due = time.monotonic() - self._flushed_at >= self._flush_s
            if is_due or len(self._rows) >= FLUSH_ROWS:
                self.flush()
            return
        if isinstance(event, Alive):
            if self._has_progress and time.monotonic() - self._sent_at < QUIET_S:
                return
            self._has_progress = True
        self.flush()
        if isinstance(event, Saved) and event.is_best:
            self._signature = _signature(event.path)
        self.send(self._message(event))

    def _message(self, event: Started | Alive | Saved | Noted | Finished) -> Message:
        match event:
            case Started():
                own = os.environ.get(OWN_DEVICE)
                return TrainingBegan(
                    device=own if own and event.device.startswith("cuda") else event.device,
                    engine=event.engine,
                    warnings=event.warnings,
                    subject=event.subject,
                    frames=_frames(event.frame),
                )
            case Alive():
                return TrainingHeartbeat(progress=event.progress)
            case Saved():
                return CheckpointFile(**vars(event))
            case Noted():
                return LogLine(line=f"{event.code}: {event.detail}")
            case Finished() if event.reason == "pause" and self.should_stop() != "pause":
                return RungReached()
            case Finished() if event.reason in STOPS:
                return Obeyed()
            case Finished():
                return TrainingEnded(**vars(event), signature=self._signature)

    def flush(self) -> None:
        if self._rows and self._newest:
            rows, frames, newest = self._rows, self._frames, self._newest
            self._rows, self._frames = [], []
            self.send(
                MetricRows(rows=rows, frames=frames, progress=newest.progress, best=newest.best)
            )
        self._flushed_at = time.monotonic()

    def send(self, message: Message) -> None:
        if message.is_last:
            self.flush()
        reach(f"trainer.{message.type}")
        if self._job_id is not None:
            message = message.model_copy(update={"job_id": self._job_id})
        self._channel.send(message)
        self._sent_at = time.monotonic()

    def close(self) -> None:
        """Close the channel, unless other trainings use it."""
        if self._job_id is None:
            self._channel.close()


def _frames(frame: Frame | None) -> list[Frame]:
    return [] if frame is None else [frame]


def _signature(path: Path) -> dict[str, Any]:
    _tensors, document = read(path, prefix="no tensor, only the document")
    return Features.from_json(document["features"]).signature()


def read_job(job: TrainingJob, tables: "Tables", *, is_member: bool = False) -> TrainingInput:
    """Return the input of the training, with the needed columns read from the dataset's file.

    The members of a group have one thread each, and few frames: to write as many as for a single
    run would take longer than their training.
    """
    config = RunConfig.model_validate(job.config)
    if config.device == os.environ.get(OWN_DEVICE):  # the only GPU that torch sees here
        config = config.model_copy(update={"device": "cuda"})
    return TrainingInput(
        config=config,
        table=tables.read(job, config),
        scratch=job.scratch,
        resume=job.resume,
        attempt=job.attempt,
        seq=job.seq,
        elapsed_s=job.elapsed_s,
        checkpoint_s=job.checkpoint_s,
        memory_bytes=job.memory_bytes,
        saving_s=job.saving_s,
        pause_after=job.pause_after,
        threads=1 if is_member else None,
        frames=MEMBER_FRAMES if is_member else None,
        engine=job.engine,
    )


class Tables:
    """Reads the tables of trainings; those that need the same columns share them."""

    def __init__(self) -> None:
        self._read: dict[tuple[Path, tuple[str, ...], tuple[str, ...]], Table] = {}

    def read(self, job: TrainingJob, config: RunConfig) -> Table:
        """Return the needed columns of the dataset's file."""
        others = [*columns_that_split(config), *([config.weight] if config.weight else [])]
        columns = list(dict.fromkeys([*(config.features or []), *others]))
        key = (job.table, tuple(columns), tuple(config.targets))
        if key not in self._read:
            types = {name: job.columns[name] for name in columns}
            table = open_table(job.table, types, columns, config.targets)
            known = {name: each for name, each in job.reading.readings().items() if name in types}
            self._read[key] = replace(table, readings=known, reading=job.reading.table_reading())
        return self._read[key]


def rehearse() -> None:
    """Train on a small table of our own, so that the memory that this takes is in place for a job.

    It uses the CPU only, because the job's order chooses the GPU that this process sees.
    """
    numbers = [float(row) for row in range(20)]
    config = RunConfig(
        dataset="rehearsal",
        target="y",
        features=["x"],
        task="regression",
        loss="mse",
        model=Linear(),
        epochs=2,
        device="cpu",
    )
    supervisor, end = socket.socketpair()
    with ignored("rehearsal"), supervisor, end, TemporaryDirectory() as folder:
        table = Path(folder) / "table.parquet"
        pq.write_table(pa.table({"x": numbers, "y": numbers}), table)
        job = TrainingJob(
            run_id="rehearsal",
            attempt=1,
            config=config.model_dump(mode="json"),
            columns={"x": "number", "y": "number"},
            table=table,
            scratch=Path(folder),
            resume=None,
            seq=0,
            elapsed_s=0.0,
            saving_s=0.0,
            checkpoint_s=None,
        )
        _train_alone(Channel(end), TrainingJob.model_validate_json(job.model_dump_json()))


def main(end: socket.socket, job: str) -> None:
    """Run one attempt to its end, or several."""
    channel = Channel(end)
    reach("trainer.begin")
    order = ORDERS.validate_json(job)
    if isinstance(order, TrainingGroup):
        _train_together(channel, order.jobs)
    else:
        _train_alone(channel, order)


def _train_alone(channel: Channel, job: TrainingJob) -> None:
    for _piece in _train(Reporter(channel), partial(read_job, job, Tables()), Data):
        pass


def _train_together(channel: Channel, jobs: list[TrainingJob]) -> None:
    tables, data = Tables(), SharedData()
    flush_s = min(FLUSH_AT_MOST, FLUSH_S * len(jobs))
    reporters = [Reporter(channel, job.run_id, flush_s) for job in jobs]
    members = [
        Member(
            pieces=_train(reporter, partial(read_job, job, tables, is_member=True), data),
            is_urgent=reporter.is_stopping,
        )
        for reporter, job in zip(reporters, jobs, strict=True)
    ]
    take_turns(members, processors())


def _train(
    reporter: Reporter, read: Callable[[], TrainingInput], make_data: MakeData
) -> Iterator[None]:
    """Train and report until the end; yield once the training is prepared and after each piece."""
    with last_message(reporter, "training"):
        try:
            with memory_failures("the columns of this table", torch.device("cpu")):
                given = read()
            for event in train(given, reporter.should_stop, make_data):
                if isinstance(event, Piece):
                    yield
                else:
                    reporter.report(event)
            reach("trainer.end")
        except LearningError:
            raise
        except Exception:
            reporter.send(LogLine(line=traceback.format_exc()))
            raise
