"""The model card in Markdown: the model's purpose, its training data and its use.

It is for readers of a bundle who do not have the service. Knows NumPy only.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np

from models.data import Floats
from models.errors import BundleInvalid
from models.features.encoding import Features
from models.features.inputs import Choice, Input
from models.features.targets import ClassTarget, NumberTargets
from models.predict.predictor import Prediction, Predictor
from models.predict.values import RawValue

MAX_ROWS = 64
MAX_CELLS = 20_000  # so that wide models have few rows
#: The largest allowed difference: of a number, relative to the larger of its size and its target's
#: standard deviation; of a class probability, absolute.
TOLERANCE = 1e-5
#: Entries of a version's metrics that are no scores of a split.
SPECIAL = frozenset({"importance", "folds", "calibration"})
UNKNOWN = "?"  # the first character of a category that no training row had

GoldenRow: TypeAlias = dict[str, RawValue]


def golden_rows(features: Features) -> list[GoldenRow]:
    """Return rows that reach every branch of the preprocessing, the most important first."""
    columns = features.inputs
    most = max(4, min(MAX_ROWS, MAX_CELLS // max(1, len(columns))))
    rows: list[GoldenRow] = []
    for row in _rows(columns):
        if row not in rows:
            rows.append(row)
        if len(rows) == most:
            break
    return rows


def golden(predictor: Predictor) -> dict[str, Any]:
    """Return the golden rows and the model's predictions for them, ready for JSON."""
    rows = golden_rows(predictor.features)
    answers = [_answer(prediction) for prediction in _predict(predictor, rows)]
    return {"tolerance": TOLERANCE, "rows": rows, "predictions": answers}


def check_golden(predictor: Predictor, document: Mapping[str, Any]) -> float:
    """Predict the golden rows of a bundle and return the largest difference, in tolerances.

    Raises `BundleInvalid` if an answer differs by more than one tolerance.
    """
    rows, wanted = document["rows"], document["predictions"]
    worst = 0.0
    for number, (prediction, answer) in enumerate(
        zip(_predict(predictor, rows), wanted, strict=True), 1
    ):
        found = _answer(prediction)
        difference = _difference(predictor.features, found, answer)
        if not difference <= 1:
            raise BundleInvalid(
                f"the prediction for golden row {number} is {found['value']!r}, the bundle says "
                f"{answer['value']!r}: it was changed, or this version predicts differently",
                code="golden_mismatch",
            )
        worst = max(worst, difference)
    return worst


def _predict(predictor: Predictor, rows: Sequence[GoldenRow]) -> list[Prediction]:
    names = {name: None for row in rows for name in row}
    columns = {name: [row.get(name) for row in rows] for name in names}
    return predictor.predict(columns, len(rows))


def _answer(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction without its warnings, because their wording may change."""
    answer: dict[str, Any] = {"value": prediction.value}
    if prediction.probabilities is not None:
        answer["probabilities"] = prediction.probabilities
    return answer


# ---- rows ---------------------------------------------------------------------------------------


def _rows(columns: Sequence[Input]) -> Iterator[GoldenRow]:
    typical = {column.name: _values(column)[0] for column in columns}
    yield typical
    yield {column.name: None for column in columns}
    yield {column.name: _values(column)[1] for column in columns}
    yield {column.name: _values(column)[2] for column in columns}
    if any(isinstance(column, Choice) for column in columns):
        yield typical | {c.name: _unknown(c) for c in columns if isinstance(c, Choice)}
    for column in columns:
        yield typical | {column.name: None}
    for place in range(3, MAX_ROWS):
        for column in columns:
            values = _values(column)
            if place < len(values):
                yield typical | {column.name: values[place]}


def _values(column: Input) -> list[RawValue]:
    """Return a typical value, two values far apart, and further ones."""
    if isinstance(column, Choice):
        known: Sequence[str] = column.categories[:MAX_ROWS] or (UNKNOWN,)
        return [known[0], known[-1], known[len(known) // 2], *known]
    if column.type == "boolean":
        return [column.mean >= 0.5, False, True]
    low = column.mean if column.min is None else column.min
    high = column.mean if column.max is None else column.max
    numbers = [column.mean, low, high, (column.mean + low) / 2, (column.mean + high) / 2]
    return [_spelled(column, number) for number in numbers]


def _spelled(column: Input, number: float) -> RawValue:
    if column.type == "integer":
        return round(number)
    if column.type == "datetime":
        try:
            return datetime.fromtimestamp(number, UTC).isoformat()
        except (OverflowError, ValueError, OSError):  # beyond the years 1 to 9999
            return number
    return number


def _unknown(column: Choice) -> str:
    word = UNKNOWN
    while word in column.index:
        word += UNKNOWN
    return word


# ---- differences --------------------------------------------------------------------------------


def _difference(features: Features, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """Return the difference of two answers, in tolerances."""
    target = features.target
    if not isinstance(target, NumberTargets):
        return _share_difference(found, wanted)
    if found["value"] is None or wanted["value"] is None:
        return 0.0 if found["value"] is wanted["value"] else float("inf")
    several = len(target.names) > 1
    return max(
        _number_difference(
            found["value"][name] if several else found["value"],
            wanted["value"][name] if several else wanted["value"],
            std,
        )
        for name, std in zip(target.names, target.std, strict=True)
    )


def _number_difference(found: float, wanted: float, std: float) -> float:
    return abs(found - wanted) / (TOLERANCE * max(abs(wanted), std))


def _share_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """Compare probabilities; the class may differ if two classes are almost equally likely."""
    ours, theirs = found.get("probabilities"), wanted.get("probabilities")
    if ours is None or theirs is None:
        return 0.0 if ours is theirs and found["value"] is wanted["value"] else float("inf")
    if ours.keys() != theirs.keys():
        return float("inf")
    worst = max(abs(ours[label] - theirs[label]) for label in ours) / TOLERANCE
    if found["value"] != wanted["value"]:
        first, second = sorted(ours.values(), reverse=True)[:2]
        worst = max(worst, (first - second) / (2 * TOLERANCE))
    return float(worst)


def scales(features: Features) -> Floats:
    """Return the unit of differences of each output, (outputs,): a deviation, or 1 for classes."""
    target = features.target
    if isinstance(target, NumberTargets):
        return np.array(target.std, dtype=np.float64)
    return np.ones(target.outputs)


def differences(features: Features, expected: Floats, found: Floats) -> Floats:
    """Return the largest difference of each row, (rows,), for comparison with `TOLERANCE`.

    `expected` and `found` are (rows, outputs). NaN means no answer: it equals NaN, and is
    infinitely far from any number.
    """
    size = np.broadcast_to(scales(features), expected.shape)
    if isinstance(features.target, NumberTargets):
        size = np.maximum(np.abs(expected), size)
    with np.errstate(all="ignore"):
        apart = np.abs(found - expected)
        shares = np.where(apart == 0, 0.0, apart / size)
    shares[np.isnan(expected) & np.isnan(found)] = 0.0
    shares[np.isnan(shares)] = np.inf
    largest: Floats = shares.max(axis=1, initial=0.0)
    return largest


MAX_CATEGORIES = 12  # of a column that the card lists
MAX_COLUMNS = 500  # in the table of columns
MAX_IMPORTANT = 20  # columns in the table of importance
USE = """\
## How to use it

Import it into any Descent: `descent models import NAME {file}`, or
`POST /api/v1/models/NAME/versions` with the bundle as `application/zip`.

Without Descent, with Python, torch and safetensors only:

    unzip -p {file} predict.py > predict.py
    python predict.py {file} rows.csv

or with onnxruntime, from the file of `artifact?format=onnx`. `golden.json` holds rows with the
predictions that every copy of this model must give, within the tolerance stated there.
"""
PRIVACY = """\
## Training data in this file

The file holds no row of the training data: the golden rows are made up from the statistics above.
It holds the minimum, maximum, mean and standard deviation of each column of numbers, the names and
counts of categories, the weights, which were fitted to all training rows, and the sizes of errors
for some held-out rows. If any of these is personal data, so is this file. Of rare categories it
holds checksums of 4 bytes.
"""


def write_card(features: Features, about: Mapping[str, Any]) -> str:
    """Return the card; `about` is the content of the bundle's `training.json`."""
    file = f"{about['model']}-{about['version']}.zip"
    parts = [
        f"# {_inline(about['model'])}, version {about['version']}\n",
        f"{_purpose(features)}\n",
        *_lineage(about),
        *_metrics(about["metrics"]),
        *_sureness(about["metrics"].get("calibration")),
        *_importance(about["metrics"].get("importance")),
        *_columns(features),
        *_limits(features),
        USE.format(file=file),
        PRIVACY,
        *_configuration(about["config"]),
    ]
    return "\n".join(parts)


def _purpose(features: Features) -> str:
    target = features.target
    count = len(features.inputs)
    given = f"from {count} column{'s' * (count > 1)}"
    if isinstance(target, ClassTarget):
        classes = _some([repr(label) for label in target.labels])
        name = f"which of {len(target.classes)} classes `{_inline(target.name)}` is"
        return f"Predicts {name} {given}: {classes}."
    names = ", ".join(f"`{_inline(name)}`" for name in target.names)
    return f"Predicts {names} ({'a number' if len(target.names) == 1 else 'numbers'}) {given}."


def _lineage(about: Mapping[str, Any]) -> Iterator[str]:
    yield "## Where it comes from\n"
    yield f"- made {about['created_at']}"
    if dataset := about["dataset"]:
        named = f"`{_inline(dataset['name'])}`, " if dataset.get("name") else ""
        yield f"- trained on {named}dataset {dataset['id']}, version {dataset['version']}"
        if dataset.get("rows") is not None:
            yield f"- rows of that version: {dataset['rows']}"
        if dataset.get("sha256"):
            yield f"- SHA-256 of the file as uploaded: `{dataset['sha256']}`"
    if about["run"]:
        yield f"- by run {about['run']}"
    yield ""


def _metrics(metrics: Mapping[str, Any]) -> Iterator[str]:
    parts = {name: each for name, each in metrics.items() if name not in SPECIAL}
    if folds := metrics.get("folds"):
        parts["deviation over folds"] = folds["std"]
    rows = [
        (split, name, value)
        for split, values in parts.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if isinstance(value, int | float | str)
    ]
    if not rows:
        return
    yield "## How good it is\n"
    yield from _table(("Rows", "Metric", "Value"), rows)


def _sureness(calibration: Mapping[str, Any] | None) -> Iterator[str]:
    if not calibration:
        return
    yield "## How sure it is\n"
    if calibration.get("method") == "conformal":
        yield (
            f"Intervals and sets come from the errors of {calibration['rows']} rows of the"
            f" `{calibration['split']}` split; they hold for rows like these.\n"
        )
    elif calibration.get("method") == "exact":
        yield (
            "Intervals are Student's intervals of a least-squares line; they hold if errors are"
            " independent and normal with one variance.\n"
        )
    if rows := [
        (each["level"], each["reached"], each["rows"]) for each in calibration.get("coverage", [])
    ]:
        yield from _table(("Level", "Share of rows that hold the true value", "Rows"), rows)
    if reliability := calibration.get("reliability"):
        yield (
            f"Probabilities differ from the share of right predictions by {reliability['ece']:.3f}"
            f" on average over {reliability['rows']} rows (expected calibration error).\n"
        )


def _importance(importance: Mapping[str, Any] | None) -> Iterator[str]:
    if not importance:
        return
    yield "## Importance of columns\n"
    yield (
        f"The cost of shuffling a column: `{importance['metric']}` over {importance['rows']} rows "
        f"of the `{importance['split']}` split, {importance['shuffles']} times.\n"
    )
    shown = importance["columns"][:MAX_IMPORTANT]
    rows = [(f"`{_inline(each['column'])}`", each["mean"], each["std"]) for each in shown]
    yield from _table(("Column", "Mean", "Deviation"), rows)


def _columns(features: Features) -> Iterator[str]:
    yield "## Input columns\n"
    shown = features.inputs[:MAX_COLUMNS]
    rows = [
        (f"`{_inline(column.name)}`", column.type, _range(column), column.missing, _gap(column))
        for column in shown
    ]
    titles = ("Column", "Type", "In the training rows", "Missing", "A missing value counts as")
    yield from _table(titles, rows)
    spelled = [(c.name, c.reading.describe()) for c in shown if c.reading]
    if spelled := [(name, told) for name, told in spelled if told]:
        yield "Text in these columns is not spelled in the usual way:\n"
        yield from (f"- `{_inline(name)}`: {_inline(told)}" for name, told in spelled)
        yield ""
    if len(features.inputs) > len(shown):
        yield f"{len(features.inputs) - len(shown)} more are in `signature.json`.\n"


def _range(column: Input) -> str:
    if isinstance(column, Choice):
        pairs = zip(column.categories, column.counts, strict=True)
        return _some([f"{value!r} ({count})" for value, count in pairs])
    if column.min is None or column.max is None:
        return "no value"
    if column.type == "boolean":
        return f"true in {column.mean:.1%}"
    shown = (_told(column, number) for number in (column.min, column.max, column.mean))
    low, high, mean = shown
    unit = " s" if column.type == "datetime" else ""
    return f"{low} to {high}, mean {mean}, deviation {column.std:.6g}{unit}"


def _gap(column: Input) -> str:
    if isinstance(column, Choice):
        return "other" if column.has_other else "the mix of all categories"
    told = _told(column, column.mean)
    return f"{told}, and `is missing`" if column.missing else told


def _told(column: Input, number: float) -> str:
    if column.type == "datetime":
        try:
            return datetime.fromtimestamp(number, UTC).isoformat(timespec="seconds")
        except (OverflowError, ValueError, OSError):  # beyond the years 1 to 9999
            return f"{number:.9g} s since 1970"
    return f"{number:.9g}"


def _limits(features: Features) -> Iterator[str]:
    yield "## Limits\n"
    yield "- It learned from rows like those above; for other rows its predictions are guesses."
    if any(isinstance(column, Choice) for column in features.inputs):
        yield "- A category that no training row had is treated like a missing one."
    if isinstance(features.target, ClassTarget):
        yield "- Probabilities are the model's own; nothing was done to calibrate them."
    yield "- It was fitted to associations in one table: that is no evidence of cause."
    yield "- Numbers are standardised in float64; the net computes in float32.\n"


def _configuration(config: Mapping[str, Any]) -> Iterator[str]:
    yield "## Training configuration\n"
    rows = [
        (f"`{_inline(name)}`", f"`{_inline(str(value))}`")
        for name, value in config.items()
        if value is not None
    ]
    yield from _table(("Field", "Value"), rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    for row in rows:
        yield f"| {' | '.join(_cell(value) for value in row)} |"
    yield ""


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ").replace("\r", " ")


def _some(values: Sequence[str]) -> str:
    more = len(values) - MAX_CATEGORIES
    shown = ", ".join(_inline(value) for value in values[:MAX_CATEGORIES])
    return f"{shown} and {more} more" if more > 0 else shown


def _inline(text: str) -> str:
    """Return the text on one line, without characters that end a quotation or start a tag."""
    return " ".join(str(text).replace("`", "'").replace("<", "&lt;").split())
