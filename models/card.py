"""The model card: what a model is, what it was trained on and how to use it, in Markdown.

For people who find a bundle without the service that made it. Knows NumPy only.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from models.features import Features
from models.inputs import Choice, Input
from models.targets import ClassTarget

MAX_CATEGORIES = 12  # of a column that the card spells out
MAX_COLUMNS = 500  # that the table of columns has
MAX_IMPORTANT = 20  # columns whose importance is told
USE = """\
## How to use it

Import it into any Descent: `descent models import NAME {file}`, or
`POST /api/v1/models/NAME/versions` with the bundle as `application/zip`.

Without Descent, with Python, torch and safetensors only:

    unzip -p {file} predict.py > predict.py
    python predict.py {file} rows.csv

or with onnxruntime, from the file that `artifact?format=onnx` answers. `golden.json` holds rows
with the predictions that every copy of this model must give, within the tolerance named there.
"""
PRIVACY = """\
## What this file holds of the training data

No row of it: the golden rows are made up from what is listed above. It does hold each number's
least and greatest value, mean and deviation, the names and counts of categories, and the weights,
which were fitted to all training rows. Where one of these is personal, the file is too.
"""


def write_card(features: Features, about: Mapping[str, Any]) -> str:
    """Return the card; `about` is what `models.bundle` stores as `training.json`."""
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
    yield "## What each column is worth to it\n"
    yield (
        f"What shuffling a column costs: `{importance['metric']}` over {importance['rows']} rows "
        f"of the `{importance['split']}` split, {importance['shuffles']} times.\n"
    )
    shown = importance["columns"][:MAX_IMPORTANT]
    rows = [(f"`{_inline(each['column'])}`", each["mean"], each["std"]) for each in shown]
    yield from _table(("Column", "Mean", "Deviation"), rows)


def _columns(features: Features) -> Iterator[str]:
    yield "## Columns that it reads\n"
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
    yield "- It has seen nothing but rows like those described above; beyond them it guesses."
    if any(isinstance(column, Choice) for column in features.inputs):
        yield "- A category that no training row had is treated like a missing one."
    if isinstance(features.target, ClassTarget):
        yield "- Probabilities are the net's own and were not calibrated."
    yield "- It was fitted to associations in one table: that is no evidence of cause."
    yield "- Numbers are standardised in float64, the net computes in float32.\n"


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
    """Return a text that cannot end the line or the quotation that it stands in."""
    return " ".join(str(text).replace("`", "'").replace("<", "&lt;").split())
