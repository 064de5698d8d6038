"""The model card in Markdown: the model's purpose, its training data and its use.

It is for readers of a bundle who do not have the service. Knows NumPy only.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from models.features.encoding import Features
from models.features.inputs import Choice, Input
from models.features.targets import ClassTarget

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
counts of categories, and the weights, which were fitted to all training rows. If any of these is
personal data, so is this file.
"""


def write_card(features: Features, about: Mapping[str, Any]) -> str:
    """Return the card; `about` is the content of the bundle's `training.json`."""
    file = f"{about['model']}-{about['version']}.zip"
    parts = [
        f"# {_inline(about['model'])}, version {about['version']}\n",
        f"{_purpose(features)}\n",
        *_lineage(about),
        *_metrics(about["metrics"]),
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
    rows = [
        (split, name, value)
        for split, values in metrics.items()
        if isinstance(values, Mapping) and split != "importance"
        for name, value in values.items()
        if isinstance(value, int | float | str)
    ]
    if not rows:
        return
    yield "## How good it is\n"
    yield from _table(("Rows", "Metric", "Value"), rows)


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
        yield "- Probabilities are the net's own and were not calibrated."
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
