"""Predict with a model that Descent exported; needs Python 3.11, torch and safetensors only.

    python predict.py bundle.zip rows.csv      (or rows.json: [{"column": value, …}, …])

Prints one JSON object for each row. Cells are read as those of the table that the model was trained
on. Missing values are empty cells, or null. `bundle.zip` may also be the folder that it was
unpacked into.
"""

import codecs
import csv
import io
import json
import math
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from models.reading import WHITE, Reading, category_key, category_text

CellValue = str | int | float | bool | None  # in a row of CSV or JSON
DAY = 86_400.0
PERIODS = {"hour": DAY, "weekday": 7 * DAY, "day_of_year": 365.2425 * DAY}
HEAD = 50  # rows among which the header is looked for
#: cells of CSV that mean missing in columns without a reading, which have no such category
EMPTY = {"", "NA", "N/A", "NaN", "null", "?"}
#: true and false in columns without a reading
WORDS = {"true": 1, "t": 1, "yes": 1, "y": 1, "1": 1, "false": 0, "f": 0, "no": 0, "n": 0, "0": 0}


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return y = x Wᵀ + b."""
    return x @ weight.T + bias


def trees(
    x: torch.Tensor,
    feature: torch.Tensor,
    threshold: torch.Tensor,
    leaves: torch.Tensor,
    start: torch.Tensor,
) -> torch.Tensor:
    """Add a leaf of each tree, whose number has a bit for each comparison."""
    count, depth = feature.shape
    bits, first = 2 ** torch.arange(depth), torch.arange(count) * 2**depth
    found = []
    for part in torch.split(x.float(), 512):
        numbers = ((part[:, feature.long()] > threshold) * bits).sum(2) + first
        found.append(leaves.flatten(0, 1)[numbers].double().sum(1) + start)
    return torch.cat([start[None, :][:0].double(), *found]).to(x.dtype)


def piecewise_linear(
    x: torch.Tensor,
    place: torch.Tensor,
    knots: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """Return x beside a small map of each number's code: the shares of bins that lie below it."""
    widths = knots.diff()
    per_width = torch.where(widths > 0, 1 / widths, 0)
    code = (x[:, place.long()][:, :, None] - knots[:, :-1]) * per_width
    at = torch.arange(code.shape[2])
    code = torch.where(at > 0, code.clamp(min=0), code)  # the first bin goes on below
    code = torch.where(at < len(at) - 1, code.clamp(max=1), code)  # the last one above
    bent = torch.einsum("rnb,nbs->rns", code, weight) + bias
    return torch.cat([x, bent.relu().flatten(1)], 1)


def mix(*given: torch.Tensor) -> torch.Tensor:
    """Add values, each times its weight; the weights are the last argument."""
    *values, weight = given
    found: torch.Tensor = torch.tensordot(weight, torch.stack(values), 1)
    return found


def mix_classes(*given: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the weighted sum of several values' probabilities."""
    *values, weight = given
    logs = torch.stack(values).log_softmax(2)
    return torch.logsumexp(logs + weight.log()[:, None, None], 0)


#: the operations of the net that have parameters, and their names
LEARNED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "linear": (linear, ("weight", "bias")),
    "trees": (trees, ("feature", "threshold", "leaves", "start")),
    "piecewise_linear": (piecewise_linear, ("place", "knots", "weight", "bias")),
    "mix": (mix, ("weight",)),
    "mix_classes": (mix_classes, ("weight",)),
}
#: the operations of the net that have no parameters
OPERATIONS: dict[str, Any] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": torch.nn.functional.gelu,
    "dropout": torch.clone,  # it does nothing outside of training
    "add": torch.add,
    "multiply": torch.mul,
}


def read(bundle: Path, name: str) -> bytes:
    """Return a file of the bundle."""
    if bundle.is_dir():
        return (bundle / name).read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        return archive.read(name)


def number(column: dict[str, Any], reading: Reading | None, value: CellValue) -> float | None:
    """Return a number, a boolean or a time as float; None if the value is missing or invalid."""
    if value is None:
        return None
    try:
        if reading is not None:
            found = number_by(reading, column["type"], value)
        elif column["type"] == "datetime" and isinstance(value, str):
            found = seconds(value.strip())
        elif column["type"] == "boolean":
            word = value.strip().lower() if isinstance(value, str) else f"{float(value):g}"
            found = WORDS[word]
        elif isinstance(value, str) and "_" in value:
            return None
        else:
            found = float(value)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    if found is None or not math.isfinite(found):
        return None
    clipped: float = min(max(found, column["least"]), column["most"])
    return clipped


def number_by(reading: Reading, kind: str, value: str | float) -> float | None:
    """Return the number of a value by the reading of its column; None if it is missing.

    Raises ValueError.
    """
    if not isinstance(value, str):
        if kind == "boolean":
            return float(WORDS[f"{float(value):g}"])
        is_missing = not isinstance(value, bool) and value in reading.missing_numbers
        return None if is_missing else float(value)
    text = value.strip(WHITE)
    if reading.is_missing(text):
        return None
    if kind == "boolean":
        return float(reading.truth(text))
    if kind != "datetime":
        return reading.number(text)
    try:
        return reading.moment(text) / 1e6
    except ValueError:
        return seconds(text)


def seconds(text: str) -> float:
    """Return the seconds since 1970 of a time in ISO 8601, in UTC unless it names a zone."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def category(column: dict[str, Any], reading: Reading | None, value: CellValue) -> list[float]:
    """Return the one-hot category; for other values the last number, or each category's share."""
    known, counts = column["categories"], column["counts"]
    has_other = column["missing"] + column["rare"] > 0
    hot = [0.0] * (len(known) + has_other)
    place = None if value is None else place_of(known, reading, value)
    if place is not None:
        hot[place] = 1.0
    elif has_other:
        hot[-1] = 1.0
    else:
        hot = [count / max(1, sum(counts)) for count in counts]
    return hot


def place_of(known: list[str], reading: Reading | None, value: str | float) -> int | None:
    """Return the place of a category; None if it is missing or unknown."""
    word = value if isinstance(value, str) else category_text(value)
    if word in known:
        return known.index(word)
    if reading is None:
        return None
    word = word.strip(WHITE)
    spelled = [word, word.title(), word.upper()] if isinstance(value, bool) else [word]
    for each in spelled:
        if each in known:
            return known.index(each)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if reading.is_missing(word) or (is_number and value in reading.missing_numbers):
        return None
    keys = list(map(category_key, known))
    key = category_key(word)
    return keys.index(key) if key in keys else None


def encode(column: dict[str, Any], reading: Reading | None, value: CellValue) -> list[float]:
    """Encode a value as the numbers that the net reads."""
    if column["kind"] == "choice":
        return category(column, reading, value)
    found = number(column, reading, value)
    indicator = [float(found is None)] if column["missing"] else []
    found = column["mean"] if found is None else found
    if column["kind"] == "scalar":
        return [(found - column["center"]) / column["scale"], *indicator]
    phases = [2 * math.pi / PERIODS[part] * (found % PERIODS[part]) for part in column["parts"]]
    waves = [wave(phase) for phase in phases for wave in (math.sin, math.cos)]
    return [(found - column["mean"]) / (column["std"] or 1.0), *waves, *indicator]


def forward(bundle: Path, x: torch.Tensor) -> torch.Tensor:
    """Run the net: (rows, width) to (rows, outputs)."""
    parameters = load(read(bundle, "model.safetensors"))
    values = {"x": x}
    for each in json.loads(read(bundle, "net.json"))["operations"]:
        inputs, name = [values[name] for name in each["inputs"]], each["output"]
        if each["kind"] in LEARNED:
            function, parts = LEARNED[each["kind"]]
            x = function(*inputs, *(parameters[f"{name}.{part}"] for part in parts))
        else:
            x = OPERATIONS[each["kind"]](*inputs)
        values[name] = x
    return x


def predict(bundle: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `{"value": …}` for each row, with `probabilities` if the target is a class."""
    features = json.loads(read(bundle, "preprocessing.json"))
    target = features["target"]
    columns = [
        (column, Reading.from_json(column["reading"]) if column.get("reading") else None)
        for column in features["inputs"]
    ]
    encoded = [
        [x for column, how in columns for x in encode(column, how, row.get(column["name"]))]
        for row in rows
    ]
    with torch.no_grad():
        outputs = forward(bundle, torch.tensor(encoded, dtype=torch.float64).float()).double()
    if target["kind"] == "classes":
        classes = target["classes"]
        labels = [str(c).lower() if isinstance(c, bool) else str(c) for c in classes]
        shares = [dict(zip(labels, row, strict=True)) for row in outputs.softmax(1).tolist()]
        best = outputs.argmax(1).tolist()
        pairs = zip(best, shares, strict=True)
        return [{"value": classes[place], "probabilities": each} for place, each in pairs]
    scale, center = (
        torch.tensor(target[name], dtype=torch.float64) for name in ("scale", "center")
    )
    values = (outputs * scale + center).tolist()
    if len(target["names"]) == 1:
        return [{"value": row[0]} for row in values]
    return [{"value": dict(zip(target["names"], row, strict=True))} for row in values]


def read_csv(content: bytes, features: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of a CSV, whose encoding, delimiter and header are found."""
    inputs = {column["name"]: column for column in features["inputs"]}
    table = features.get("table") or {}
    text = decoded(content)
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep="):
        delimiters, text = [first.strip("\r")[4:5]], rest
    else:
        delimiters = [table.get("delimiter") or ",", ",", ";", "\t", "|"]
    # Readings trim cells, so a quote may stand behind blanks.
    trims = bool(table)
    lines = {
        mark: list(
            csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=trims)
        )
        for mark in delimiters
    }
    names: list[str] = table.get("names") or list(inputs)
    # The header is the first row that names the most columns.
    hits, _, start, mark = max(
        (sum(cell.strip(WHITE) in names for cell in row), -delimiters.index(mark), -place, mark)
        for mark, rows in lines.items()
        for place, row in enumerate(rows[:HEAD] or [[]])
    )
    if hits:
        rows, names = lines[mark][1 - start :], unique(lines[mark][-start])
    else:
        fitting = [
            mark for mark in delimiters if len(next(filter(None, lines[mark]), [])) == len(names)
        ]
        if not fitting:
            raise SystemExit(f"the first row must name the columns {', '.join(inputs)}")
        rows = lines[fitting[0]]
    found = [dict(zip(names, row, strict=False)) for row in rows if row or len(names) == 1]
    return [
        {name: cell for name, cell in row.items() if not is_empty(cell, inputs.get(name))}
        for row in found
    ]


def decoded(content: bytes) -> str:
    """Return the text of a file: UTF-8, or UTF-16, or else Windows-1252."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if b"\0" in content[:2]:  # the first letter is one of ASCII
        return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def unique(header: list[str]) -> list[str]:
    """Return names for the columns of a header, which may have empty and equal ones."""
    names: list[str] = []
    for number, cell in enumerate(header, 1):
        name = wanted = cell.strip(WHITE) or f"column_{number}"
        again = 2
        while name in names:
            name, again = f"{wanted}_{again}", again + 1
        names.append(name)
    return names


def is_empty(cell: str, column: dict[str, Any] | None) -> bool:
    """Return whether a cell of a column without a reading is missing."""
    if column is None or column.get("reading"):
        return False
    return cell in EMPTY and cell not in (column.get("categories") or [])


def main(bundle: Path, table: Path) -> None:
    """Print the predictions for a table."""
    if table.suffix == ".json":
        rows = json.loads(table.read_text("utf-8"))
    else:
        features = json.loads(read(bundle, "preprocessing.json"))
        rows = read_csv(table.read_bytes(), features)
    for prediction in predict(bundle, rows):
        sys.stdout.write(json.dumps(prediction, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
