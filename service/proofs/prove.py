"""The verification process: predicts in every way and compares the answers with training's.

It has no credentials and opens no connections. It writes only to its scratch folder, and runs with
low priority.
"""

import math
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from models.data import Floats
from models.export.card import TOLERANCE, differences
from models.failpoints import reach
from models.features.encoding import Features
from models.features.targets import ClassTarget
from models.nets.module import keep_to_one_thread
from models.predict.predictor import Predictor
from models.predict.reference import Reference
from service.jobs.pipe import Channel, Heartbeat, StopOrdered, last_message
from service.proofs.messages import Compared, ProofJob
from service.proofs.ways import SPELLED_WAYS, WAYS, Answered, Sample, Subject, Way, read_sample

NICE = 10  # niceness of the process: trainings and predictions have priority
#: errors of the machine, not of the model, such as a full disk: the process exits and is retried
MACHINE = (OSError, MemoryError)
SHOWN = 5  # numbers of an answer that a message repeats


@dataclass(frozen=True)
class Difference:
    """The difference between a path's answers and training's."""

    #: None if a row has an answer by one of the two only
    largest: float | None
    #: the number of rows that the path cannot represent
    left_out: int
    #: a sentence, if the difference is too large
    failure: str | None


def prove(
    subject: Subject,
    sample: Sample,
    ways: Mapping[str, Way],
    pulse: Callable[[], None],
) -> tuple[dict[str, Any], str | None]:
    """Return the details of the comparison, and a sentence that names the paths that differ."""
    found: dict[str, Difference] = {}
    for name, way in ways.items():
        pulse()
        reach("prover.way")
        if (compared := _by(name, way, subject, sample)) is not None:
            found[name] = compared
    largest = [each.largest for each in found.values()]
    details = {
        "rows": sample.rows,
        "source": sample.source,
        "ways": {name: each.largest for name, each in found.items()},
        "left_out": {name: each.left_out for name, each in found.items() if each.left_out},
        "largest": None if None in largest else max(filter(None, largest), default=0.0),
        "tolerance": TOLERANCE,
    }
    failures = [each.failure for each in found.values() if each.failure]
    return details, " ".join(failures) or None


def _by(name: str, way: Way, subject: Subject, sample: Sample) -> Difference | None:
    try:
        answered = way(subject, sample)
    except MACHINE:
        raise
    except Exception as error:  # noqa: BLE001  any error of a path is a failure of that path
        traceback.print_exc()
        reason = " ".join(str(error).split())[:300]
        return Difference(None, 0, f"Path {name} failed: {type(error).__name__}: {reason}.")
    return None if answered is None else compare(name, subject.predictor, sample, answered)


def compare(name: str, predictor: Predictor, sample: Sample, answered: Answered) -> Difference:
    """Compare the answers of a path with training's."""
    features, expected = predictor.features, sample.expected
    if answered.numbers.shape != expected.shape:
        shape = answered.numbers.shape
        return Difference(
            None, 0, f"Path {name}: the answer has the shape {shape}, not {expected.shape}."
        )
    apart = differences(features, expected, answered.numbers)
    named: Sequence[Any] = [None] * sample.rows
    if answered.classes is not None and isinstance(features.target, ClassTarget):
        named = answered.classes
        apart = np.maximum(apart, _misnamed(features.target, expected, named))
    apart[list(answered.left_out)] = 0.0
    worst = int(apart.argmax())
    largest = float(apart[worst])
    if largest <= TOLERANCE:
        return Difference(largest, len(answered.left_out), None)
    got = _shown(answered.numbers[worst], named[worst])
    due = _shown(expected[worst], _likeliest(features, expected[worst]))
    failure = (
        f"Path {name}: the answer for {sample.named(worst)} is {got}, but training computes {due}:"
        f" the difference is {largest:.1g}, and {TOLERANCE:g} is allowed."
    )
    return Difference(largest if math.isfinite(largest) else None, len(answered.left_out), failure)


def _misnamed(target: ClassTarget, expected: Floats, classes: Sequence[Any]) -> Floats:
    """Return half the difference between the largest probability and that of the named class."""
    found = np.zeros(len(expected))
    for row, label in enumerate(classes):
        if np.isnan(expected[row]).any():  # there is no class; the comparison of numbers covers it
            continue
        place = _place(target, label)
        lead = expected[row].max() - expected[row][place] if place is not None else math.inf
        found[row] = lead / 2
    return found


def _place(target: ClassTarget, label: object) -> int | None:
    for place, known in enumerate(target.classes):
        if known == label and type(known) is type(label):
            return place
    return None


def _likeliest(features: Features, numbers: Floats) -> object:
    if isinstance(features.target, ClassTarget) and not np.isnan(numbers).any():
        return features.target.classes[int(numbers.argmax())]
    return None


def _shown(numbers: Floats, label: object) -> str:
    """Return an answer for a message: its first numbers, and its class if it has one."""
    text = ", ".join("missing" if np.isnan(n) else f"{n:.9g}" for n in numbers[:SHOWN])
    text += ", …" if len(numbers) > SHOWN else ""
    return text if label is None else f"{str(label)[:60]!r} ({text})"


def _prove(channel: Channel, job: ProofJob) -> None:
    def pulse() -> None:
        if channel.should_stop():
            raise StopOrdered
        channel.send(Heartbeat())

    predictor = Predictor.load(job.model)
    sample = read_sample(job, predictor, Reference.of(predictor.model), pulse)
    subject = Subject(predictor, job.model, job.training, job.scratch)
    began = time.monotonic()
    ways = WAYS | SPELLED_WAYS if sample.spelled else WAYS
    details, failure = prove(subject, sample, ways, pulse)
    details["seconds"] = round(time.monotonic() - began, 3)
    reach("prover.compared")
    channel.send(Compared(details=details, failure=failure))


def main(end: socket.socket, job: str) -> None:
    """Run one attempt to its end."""
    channel = Channel(end)
    os.nice(NICE)
    pa.set_cpu_count(1)
    keep_to_one_thread()
    reach("prover.begin")
    with last_message(channel, "export verification"):
        try:
            _prove(channel, ProofJob.model_validate_json(job))
        except MACHINE as error:
            sys.exit(f"{type(error).__name__}: {error}")
