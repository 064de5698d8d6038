"""Sends tables through every way and compares the answers with the predictions of training.

A difference counts beyond 1e-5 · max(|y|, the target's standard deviation). Every row has its
answer, a row whose numbers are not finite has an error, and every way gives the same warnings about
a row.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from models.data import Floats
from models.features.targets import ClassTarget
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.database import create_database, migrate
from tests.parity.models import Known, publish, train_all
from tests.parity.tables import Sample, make_sample
from tests.parity.ways import WAYS, Answer, Refused, Way
from tests.serving import app_of, serving

TOLERANCE = 1e-5
#: With `on_problem=error` these are errors in any column; see the README.
STRICT = {"unknown_category", "wrong_type", "non_finite"}


@dataclass
class Tally:
    """Counts of one way."""

    tables: int = 0
    rows: int = 0
    errors: int = 0
    largest: float = 0.0


@dataclass(frozen=True)
class Due:
    """A table, and the expected answer to each of its rows."""

    sample: Sample
    #: (rows, outputs) as training computes them; NaN where they are not finite
    numbers: Floats
    codes: list[set[tuple[str, str]]]


@dataclass
class Proof:
    """The counts of comparisons, and the differences."""

    tables: int = 0
    rows: int = 0
    ways: dict[str, Tally] = field(default_factory=dict)
    #: one sentence each
    failures: list[str] = field(default_factory=list)


@contextmanager
def stage(folder: Path) -> Iterator[tuple[httpx.Client, list[Known]]]:
    """Train and publish every model in a separate service, and give a client of it."""
    settings = Settings(data_dir=folder / "data")
    engine = create_database(settings.resolved_database_url)
    migrate(engine)
    models = list(train_all(folder))
    for known in models:
        publish(engine, LocalBlobs(settings.data_dir / "blobs"), known)
    app = app_of(settings, engine)
    with serving(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client, models


def prove(
    client: httpx.Client,
    models: list[Known],
    *,
    seed: int,
    numbers: range,
    ways: Mapping[str, Way] = WAYS,
) -> Iterator[Proof]:
    """Send these tables through all ways, and report the findings so far after each."""
    proof = Proof(ways={name: Tally() for name in ways})
    for number in numbers:
        sample = make_sample(seed, number, models)
        due = Due(sample, sample.known.predict(sample.table()), sample.codes())
        proof.tables += 1
        proof.rows += sample.rows
        for name, way in ways.items():
            where = f"table {number} of {sample.known.name!r} by {name}"
            try:
                answers = way(client, sample)
            except Refused as refused:
                proof.failures.append(f"{where}: {refused}")
                continue
            if answers is not None:
                _compare(proof, due, where, proof.ways[name], answers)
        yield proof


def _compare(proof: Proof, due: Due, where: str, tally: Tally, answers: list[Answer]) -> None:
    tally.tables += 1
    tally.rows += len(answers)
    sample = due.sample
    if len(answers) != sample.rows:
        proof.failures.append(f"{where}: {len(answers)} answers to {sample.rows} rows")
        return
    for row, answer in enumerate(answers):
        tally.errors += answer.error is not None
        problem, difference = _difference(sample, due.numbers[row], due.codes[row], answer)
        tally.largest = max(tally.largest, difference)
        if problem:
            cells = {name: cells[row] for name, cells in sample.columns.items()}
            proof.failures.append(f"{where}, row {row}: {problem}; {cells!r:.600}")


def _difference(
    sample: Sample, expected: Floats, codes: set[tuple[str, str]], answer: Answer
) -> tuple[str | None, float]:
    """Return the faults of an answer, and its largest difference relative to the scale."""
    told, due = answer.codes, codes
    if answer.reads_text:
        told = told and frozenset(item for item in told if item[1] != "coerced")
        due = {item for item in codes if item[1] != "coerced"}
    if told is not None and told != due:
        return f"told {sorted(told)}, due {sorted(due)}", 0.0
    refused = sample.on_problem == "error" and _is_refused(sample, codes)
    if refused or not math.isfinite(float(expected.sum())):
        is_right = answer.numbers is None and answer.value is None and answer.error
        return (None if is_right else f"an error is due, got {answer.value!r:.200}"), 0.0
    if answer.numbers is None:
        return f"{expected.tolist()} is due, got the error {answer.error}", 0.0
    return _compare_numbers(sample, expected, answer)


def _compare_numbers(sample: Sample, expected: Floats, answer: Answer) -> tuple[str | None, float]:
    assert answer.numbers is not None
    target = sample.known.features.target
    largest = 0.0
    for name, number, scale in zip(
        target.output_names, expected.tolist(), sample.known.scales.tolist(), strict=True
    ):
        found = answer.numbers[name]
        largest = max(largest, abs(found - number) / max(abs(number), scale))
        if not math.isfinite(found) or largest > TOLERANCE:
            return f"{name} is {found!r}, due is {number!r}", largest
    if isinstance(target, ClassTarget):
        shares = sorted(expected.tolist())
        likeliest = target.classes[int(expected.argmax())]
        is_close = shares[-1] - shares[-2] < 2 * TOLERANCE
        if not is_close and (answer.value, type(answer.value)) != (likeliest, type(likeliest)):
            return f"the class is {answer.value!r}, due is {likeliest!r}", largest
    return None, largest


def _is_refused(sample: Sample, codes: set[tuple[str, str]]) -> bool:
    required = {column.name for column in sample.known.features.inputs if not column.missing}
    return any(
        code in STRICT or (code == "missing" and column in required) for column, code in codes
    )
