"""Predict with a model that Descent exported; needs Python 3.11, torch and safetensors only.

    python predict.py bundle.zip rows.csv      (or rows.json: [{"column": value, …}, …])

Prints one JSON object for each row. Missing values are empty cells, or null. `bundle.zip` may also
be the folder that it was unpacked into.
"""

import csv
import json
import math
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

CellValue = str | int | float | bool | None  # in a row of CSV or JSON
DAY = 86_400.0
PERIODS = {"hour": DAY, "weekday": 7 * DAY, "day_of_year": 365.2425 * DAY}
MISSING = {"", "NA", "N/A", "NaN", "null", "?"}  # in CSV, unless the column has such a category
WORDS = {"true": 1, "t": 1, "yes": 1, "y": 1, "1": 1, "false": 0, "f": 0, "no": 0, "n": 0, "0": 0}
LAYERS = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


def read(bundle: Path, name: str) -> bytes:
    """Return a file of the bundle."""
    if bundle.is_dir():
        return (bundle / name).read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        return archive.read(name)


def number(column: dict[str, Any], value: CellValue) -> float | None:
    """Return a number, a boolean or a time as float; None if the value is missing or invalid."""
    if value is None:
        return None
    try:
        if column["type"] == "datetime" and isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        elif column["type"] == "boolean":
            word = value.strip().lower() if isinstance(value, str) else f"{float(value):g}"
            found = WORDS[word]
        elif isinstance(value, str) and "_" in value:
            return None
        else:
            found = float(value)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return min(max(found, column["least"]), column["most"]) if math.isfinite(found) else None


def category(column: dict[str, Any], value: CellValue) -> list[float]:
    """Return the one-hot category; for other values the last number, or each category's share."""
    known, counts = column["categories"], column["counts"]
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    has_other = column["missing"] + column["rare"] > 0
    hot = [0.0] * (len(known) + has_other)
    if value is not None and str(value) in known:
        hot[known.index(str(value))] = 1.0
    elif has_other:
        hot[-1] = 1.0
    else:
        hot = [count / max(1, sum(counts)) for count in counts]
    return hot


def encode(column: dict[str, Any], value: CellValue) -> list[float]:
    """Encode a value as the numbers that the net reads."""
    if column["kind"] == "choice":
        return category(column, value)
    found = number(column, value)
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
    for place, layer in enumerate(json.loads(read(bundle, "net.json"))["layers"]):
        if layer == "gelu":
            x = torch.nn.functional.gelu(x)
        elif isinstance(layer, str):
            x = LAYERS[layer](x)
        elif "linear" in layer:
            x = x @ parameters[f"{place}.weight"].T + parameters[f"{place}.bias"]
    return x


def predict(bundle: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `{"value": …}` for each row, with `probabilities` if the target is a class."""
    features = json.loads(read(bundle, "preprocessing.json"))
    target = features["target"]
    encoded = [
        [x for column in features["inputs"] for x in encode(column, row.get(column["name"]))]
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


def is_missing(cell: str | None, categories: list[str] | None) -> bool:
    """Return whether a CSV cell is empty; a column may have a category called `NA`."""
    return cell in {*MISSING, None} and cell not in (categories or [])


def main(bundle: Path, table: Path) -> None:
    """Print the predictions for a table."""
    if table.suffix == ".json":
        rows = json.loads(table.read_text("utf-8"))
    else:
        inputs = json.loads(read(bundle, "preprocessing.json"))["inputs"]
        known = {column["name"]: column.get("categories") for column in inputs}
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {name: cell for name, cell in row.items() if not is_missing(cell, known.get(name))}
                for row in csv.DictReader(file)
            ]
    for prediction in predict(bundle, rows):
        sys.stdout.write(json.dumps(prediction, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
