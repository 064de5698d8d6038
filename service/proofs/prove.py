"""The process of a proof: asks a model in every way and compares the answers with training's.

It holds no credentials and opens no connection; what it makes is a file in its scratch folder. It
gives way to whatever else the machine has to do.
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
from models.features.targets import ClassTarget, Label
from models.nets.architectures import Reference, keep_to_one_thread
from models.predict.predictor import Predictor
from service.jobs.pipe import Channel, Heartbeat, StopOrdered, last_message
from service.proofs.messages import Compared, ProofJob
from service.proofs.ways import WAYS, Answered, Sample, Subject, Way, read_sample

NICE = 10  # of the process: trainings and predictions go first
#: What says nothing of the model: a full disk, say. The process dies of it, and is tried again.
MACHINE = (OSError, MemoryError)
SHOWN = 5  # numbers of an answer that a sentence repeats


@dataclass(frozen=True)
class Difference:
    """How far a way is from what training computes."""

    #: None where a row has an answer by one of them and none by the other
    largest: float | None
    left_out: int
    #: a sentence, where it is too far
    failure: str | None


def prove(
    subject: Subject,
    sample: Sample,
    ways: Mapping[str, Way],
    pulse: Callable[[], None],
) -> tuple[dict[str, Any], str | None]:
    """Return what was compared, and a sentence that names the ways that differ."""
    found: dict[str, Difference] = {}
    for name, way in ways.items():
        pulse()
        reach("prover.way")
        if (compared := _by(name, way, subject, sample)) is not None:
            found[name] = compared
    figures = [each.largest for each in found.values()]
    details = {
        "rows": sample.rows,
        "source": sample.source,
        "ways": {name: each.largest for name, each in found.items()},
        "left_out": {name: each.left_out for name, each in found.items() if each.left_out},
        "largest": None if None in figures else max(filter(None, figures), default=0.0),
        "tolerance": TOLERANCE,
    }
    failures = [each.failure for each in found.values() if each.failure]
    return details, " ".join(failures) or None


def _by(name: str, way: Way, subject: Subject, sample: Sample) -> Difference | None:
    try:
        answered = way(subject, sample)
    except MACHINE:
        raise
    except Exception as error:  # noqa: BLE001  whatever a way raises is what is wrong with it
        traceback.print_exc()
        told = " ".join(str(error).split())[:300]
        return Difference(None, 0, f"By {name} it cannot be asked: {type(error).__name__}: {told}.")
    return None if answered is None else compare(name, subject.predictor, sample, answered)


def compare(name: str, predictor: Predictor, sample: Sample, answered: Answered) -> Difference:
    """Compare what a way answers with what is due."""
    features, expected = predictor.features, sample.expected
    if answered.numbers.shape != expected.shape:
        shape = answered.numbers.shape
        return Difference(None, 0, f"By {name} {shape} numbers are answered to {expected.shape}.")
    apart = differences(features, expected, answered.numbers)
    named: Sequence[Label | None] = [None] * sample.rows
    if answered.classes is not None and isinstance(features.target, ClassTarget):
        named = answered.classes
        apart = np.maximum(apart, _misnamed(features.target, expected, named))
    apart[list(answered.left_out)] = 0.0
    worst = int(apart.argmax())
    largest = float(apart[worst])
    if largest <= TOLERANCE:
        return Difference(largest, len(answered.left_out), None)
    got = _told(answered.numbers[worst], named[worst])
    due = _told(expected[worst], _likeliest(features, expected[worst]))
    failure = (
        f"By {name} {sample.named(worst)} is answered {got}, where training computes {due}:"
        f" {largest:.1g} apart, {TOLERANCE:g} is allowed."
    )
    return Difference(largest if math.isfinite(largest) else None, len(answered.left_out), failure)


def _misnamed(target: ClassTarget, expected: Floats, classes: Sequence[Label | None]) -> Floats:
    """Return half of how much likelier another class is than the one that is named."""
    found = np.zeros(len(expected))
    for row, label in enumerate(classes):
        if np.isnan(expected[row]).any():  # then there is no class, which the numbers show
            continue
        place = _place(target, label)
        lead = expected[row].max() - expected[row][place] if place is not None else math.inf
        found[row] = lead / 2
    return found


def _place(target: ClassTarget, label: Label | None) -> int | None:
    for place, known in enumerate(target.classes):
        if known == label and type(known) is type(label):
            return place
    return None


def _likeliest(features: Features, numbers: Floats) -> Label | None:
    if isinstance(features.target, ClassTarget) and not np.isnan(numbers).any():
        return features.target.classes[int(numbers.argmax())]
    return None


def _told(numbers: Floats, label: Label | None) -> str:
    """Write an answer for people: its first numbers, and the class where there is one."""
    told = ", ".join("nothing" if np.isnan(n) else f"{n:.9g}" for n in numbers[:SHOWN])
    told += ", …" if len(numbers) > SHOWN else ""
    return told if label is None else f"{str(label)[:60]!r} ({told})"


def _prove(channel: Channel, job: ProofJob) -> None:
    def pulse() -> None:
        if channel.should_stop():
            raise StopOrdered
        channel.send(Heartbeat())

    predictor = Predictor.load(job.model)
    sample = read_sample(job, predictor, Reference.load(job.model))
    subject = Subject(predictor, job.model, job.training, job.scratch)
    began = time.monotonic()
    details, failure = prove(subject, sample, WAYS, pulse)
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
    with last_message(channel, "proof"):
        try:
            _prove(channel, ProofJob.model_validate_json(job))
        except MACHINE as error:
            sys.exit(f"{type(error).__name__}: {error}")
