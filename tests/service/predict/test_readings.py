"""A cell of a request means what it meant in the training table, in every format."""

import csv
import io
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import checkpoint
from models.data import Categories, Table
from models.export import bundle
from models.features.encoding import Features
from models.features.widths import MAX_CATEGORIES
from models.predict.predictor import Prediction, Predictor
from models.predict.values import RawValue
from models.reading import MISSING, Reading, TableReading
from service.errors import BadRequest, Invalid
from service.predict import bodies
from service.predict.answers import wanted
from service.protocols import mlflow, tensors
from tests.models.export.portables import ABOUT
from tests.service import trained

MARKERS = (*MISSING, "-999", "-")
NAMES = ("column_1", "income", "sold", "port", "grade", "paid", "y")
#: The rows of the table as they are spelled in its file.
CELLS = [
    ["0", "1.137,5", "01.02.2020", "red", "1", "Ja", "0"],
    ["1", "-999", "13.12.2020", " red ", "2", "Nein", "1"],
    ["2", "0,5", "-", "green", "3", "NA", "2"],
    ["3", "1.000.000", "28.02.2021 13:30", "", "2", " ja", "3"],
    ["4", "\u22122,25", "01.03.2021", "green", "1", "Nein", "4"],
    ["5", "7", "5.3.2021", "red", "-999", "Ja", "5"],
]
DAY = 86_400.0
#: The meaning of these cells.
INCOME = [1137.5, np.nan, 0.5, 1_000_000.0, -2.25, 7.0]
SOLD = [1580515200.0, 1607817600.0, np.nan, 1614519000.0, 1614556800.0, 1614902400.0]
PORT = ["red", "red", "green", None, "green", "red"]
GRADE = ["1", "2", "3", "2", "1", None]
PAID = [1.0, 0.0, np.nan, 1.0, 0.0, 1.0]


def coded(words: list[str | None]) -> Categories:
    known = sorted({word for word in words if word is not None})
    codes = [-1 if word is None else known.index(word) for word in words]
    return Categories(np.array(codes, dtype=np.int32), known)


def table(*, header: bool = True, delimiter: str = ";") -> Table:
    return Table(
        types={
            "income": "number",
            "sold": "datetime",
            "port": "category",
            "grade": "category",
            "paid": "boolean",
            "y": "number",
        },
        columns={
            "income": np.array(INCOME),
            "sold": np.array(SOLD),
            "port": coded(PORT),
            "grade": coded(GRADE),
            "paid": np.array(PAID),
            "y": np.arange(6.0),
        },
        rows=6,
        readings={
            "income": Reading("number", missing=MARKERS, decimal=",", thousands="."),
            "sold": Reading("datetime", missing=MARKERS, form="%d.%m.%Y"),
            "port": Reading("category", missing=MARKERS),
            "grade": Reading("category", missing=MARKERS),
            "paid": Reading("boolean", missing=MARKERS, true="Ja", false="Nein"),
            "y": Reading("number", missing=MARKERS),
        },
        reading=TableReading(NAMES, MARKERS, delimiter, header),
    )


def load(folder: Path, given: Table, features: list[str]) -> Predictor:
    fitted = Features.fit(
        given,
        np.arange(given.rows),
        features=features,
        targets=["y"],
        task="regression",
        standardize=True,
    )
    weights = np.linspace(-1, 1, fitted.width) + 0.1
    saved = trained.saved(fitted, [weights.tolist()], [0.25])
    checkpoint.write(folder / "model", saved["tensors"], saved["document"])
    return Predictor.load(folder / "model")


FEATURES = ["income", "sold", "port", "grade", "paid"]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load(tmp_path_factory.mktemp("model"), table(), FEATURES)


@pytest.fixture(scope="module")
def due(predictor: Predictor) -> list[float]:
    return expected(predictor, table())


def expected(predictor: Predictor, given: Table) -> list[float]:
    outputs = predictor.outputs_with_care(predictor.features.encode(given))
    found: list[float] = predictor.features.decode(outputs)[:, 0].tolist()
    return found


def written(
    rows: list[list[str]], delimiter: str = ";", header: tuple[str, ...] | None = NAMES
) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    if header:
        writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def ask(
    predictor: Predictor, content: str | bytes, media_type: str = bodies.CSV, charset: str = ""
) -> list[Prediction]:
    text = content.encode() if isinstance(content, str) else content
    rows = bodies.read(text, media_type, predictor.features, 1000, mlflow, charset)
    assert not rows.unreadable
    return predictor.predict(rows.columns, rows.count, from_text=rows.is_text)


def agree(found: list[Prediction], due: list[float]) -> None:
    assert [each.value for each in found] == pytest.approx(due, rel=1e-6)
    codes = {warning.code for each in found for warning in each.warnings}
    assert codes <= {"missing"}


# ---- the file itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "delimiter", "header"),
    [
        (bodies.CSV, ";", NAMES),
        (bodies.CSV, ",", NAMES),
        (bodies.CSV, "|", NAMES),
        (bodies.CSV, "\t", NAMES),
        (bodies.TSV, "\t", NAMES),
        (bodies.CSV, ";", ("", *NAMES[1:])),
        (bodies.CSV, ";", None),
        (bodies.TSV, "\t", None),
    ],
)
def test_the_rows_of_the_table_are_read_as_the_table_was(
    predictor: Predictor,
    due: list[float],
    media_type: str,
    delimiter: str,
    header: tuple[str, ...] | None,
) -> None:
    agree(ask(predictor, written(CELLS, delimiter, header), media_type), due)


def test_lines_above_the_table_and_its_delimiter_are_found(
    predictor: Predictor, due: list[float]
) -> None:
    agree(ask(predictor, "sep=;\n" + written(CELLS)), due)
    agree(ask(predictor, "Report of 2021\n\n" + written(CELLS)), due)


@pytest.mark.parametrize(
    ("encoding", "charset"),
    [("utf-8-sig", ""), ("utf-16", ""), ("cp1252", ""), ("cp1252", "windows-1252")],
)
def test_the_encoding_of_a_body_is_found_or_named(
    tmp_path: Path, encoding: str, charset: str
) -> None:
    words = ["Köln", "Zürich", "Köln", "Zürich"]
    given = Table(
        {"port": "category", "y": "number"},
        {"port": coded([*words]), "y": np.arange(4.0)},
        4,
        {"port": Reading("category")},
        TableReading(("port", "y")),
    )
    predictor = load(tmp_path, given, ["port"])
    text = "port,y\n" + "".join(f"{word},1\n" for word in words)
    agree(ask(predictor, text.encode(encoding), charset=charset), expected(predictor, given))


def test_a_charset_that_is_not_known_is_refused(predictor: Predictor) -> None:
    with pytest.raises(BadRequest, match="klingon"):
        ask(predictor, written(CELLS), charset="klingon")


def test_rows_without_a_header_must_be_as_wide_as_the_table(predictor: Predictor) -> None:
    with pytest.raises(Invalid) as caught:
        ask(predictor, written([row[1:4] for row in CELLS], header=None))
    assert caught.value.code == "header_missing"
    assert "7 cells" in caught.value.detail


# ---- other formats -------------------------------------------------------------------------------


def texts() -> dict[str, list[str]]:
    return dict(zip(NAMES, map(list, zip(*CELLS, strict=True)), strict=True))


def records() -> list[dict[str, str]]:
    return [dict(zip(NAMES, row, strict=True)) for row in CELLS]


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        (bodies.JSON, json.dumps({"rows": records()})),
        (bodies.JSON, json.dumps({"columns": texts()})),
        (bodies.NDJSON, "".join(json.dumps(row) + "\n" for row in records())),
        (bodies.JSON, json.dumps({"dataframe_records": records()})),
        (bodies.JSON, json.dumps({"dataframe_split": {"columns": NAMES, "data": CELLS}})),
        (bodies.JSON, json.dumps({"inputs": texts()})),
    ],
)
def test_strings_of_json_are_read_as_the_table_was(
    predictor: Predictor, due: list[float], media_type: str, content: str
) -> None:
    agree(ask(predictor, content, media_type), due)


def test_tensors_of_text_are_read_as_the_table_was(predictor: Predictor, due: list[float]) -> None:
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": values}
        for name, values in texts().items()
        if name in FEATURES
    ]
    asked = tensors.parse(json.dumps({"inputs": inputs}).encode(), None)
    rows = tensors.read(asked, predictor.features, 100)
    agree(predictor.predict(rows.columns, rows.count), due)


def test_typed_values_are_what_they_are_and_markers_are_missing(
    predictor: Predictor, due: list[float]
) -> None:
    rows: list[dict[str, Any]] = [
        {"income": 1137.5, "sold": "2020-02-01", "port": "red", "grade": 1, "paid": True},
        {
            "income": -999,
            "sold": "2020-12-13T00:00:00Z",
            "port": "red",
            "grade": 2.0,
            "paid": False,
        },
        {"income": 0.5, "sold": -999, "port": "green", "grade": "3.0", "paid": None},
        {"income": 1_000_000, "sold": "28.02.2021 13:30", "port": None, "grade": "2"},
        {"income": -2.25, "sold": "2021-03-01", "port": "green", "grade": 1.0, "paid": False},
        {"income": 7, "sold": "2021-03-05", "port": "red", "grade": -999.0, "paid": "Ja"},
    ]
    rows[3]["paid"] = True
    agree(ask(predictor, json.dumps({"rows": rows}), bodies.JSON), due)


def test_the_exported_script_reads_the_rows_of_the_table(tmp_path: Path, due: list[float]) -> None:
    load(tmp_path, table(), FEATURES)
    bundle.write(tmp_path / "bundle.zip", tmp_path / "model", ABOUT)
    script = types.ModuleType("script")
    exec(compile(bundle.script(), "predict.py", "exec"), script.__dict__)  # noqa: S102  our own file
    features = json.loads(script.read(tmp_path / "bundle.zip", "preprocessing.json"))
    for content in (
        written(CELLS).encode(),
        written(CELLS, "\t").encode("utf-16"),
        written(CELLS, header=None).encode(),
        b"sep=;\n" + written(CELLS).encode(),
        b"Report of 2021\n\n" + written(CELLS).encode(),
        written(CELLS, "|", ("", *NAMES[1:])).encode(),
    ):
        found = script.predict(tmp_path / "bundle.zip", script.read_csv(content, features))
        assert [row["value"] for row in found] == pytest.approx(due, rel=1e-6)


# ---- categories ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Return a model that knows more categories than it tells apart."""
    known = [f"w{number:03}" for number in range(MAX_CATEGORIES + 50)]
    cells = [*known, *known[:MAX_CATEGORIES]]
    given = Table(
        {"word": "category", "y": "number"},
        {"word": coded([*cells]), "y": np.arange(float(len(cells)))},
        len(cells),
        {"word": Reading("category")},
        TableReading(("word", "y")),
    )
    return load(tmp_path_factory.mktemp("words"), given, ["word"])


def test_a_rare_category_is_no_unknown_one(words: Predictor) -> None:
    rare, unknown, missing = words.predict({"word": ["w300", "other", None]}, 3)
    assert [warning.code for warning in rare.warnings] == ["rare_category"]
    assert [warning.code for warning in unknown.warnings] == ["unknown_category"]
    assert rare.value == unknown.value == missing.value
    strict = words.predict({"word": ["w300", "other"]}, 2, on_problem="error")
    assert strict[0].error is None
    assert strict[1].error is not None


def test_rare_categories_survive_json(words: Predictor) -> None:
    again = Features.from_json(json.loads(json.dumps(words.features.to_json())))
    assert again == words.features


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", " 1 ", "1.00"])
def test_a_category_is_one_in_every_spelling_of_its_number(
    predictor: Predictor, value: RawValue
) -> None:
    base: dict[str, RawValue] = dict(
        zip(FEATURES, ["0,5", "01.02.2020", "red", "1", "Ja"], strict=True)
    )
    due, found = (
        predictor.predict({name: [cell] for name, cell in row.items()}, 1)[0]
        for row in (base, base | {"grade": value})
    )
    assert found == due
    assert found.warnings == ()


def test_leading_zeros_make_another_category(predictor: Predictor) -> None:
    (found,) = predictor.predict({"grade": ["01"]}, 1)
    assert ("grade", "unknown_category") in [(w.column, w.code) for w in found.warnings]


# ---- columns -------------------------------------------------------------------------------------


def test_columns_of_the_table_need_no_warning_and_others_name_the_nearest(
    predictor: Predictor,
) -> None:
    row: dict[str, list[RawValue]] = {
        "income": [1.0],
        "Incom": [1],
        "y": [1],
        "column_1": [0],
        "zzz": [1],
    }
    (found,) = predictor.predict(row, 1)
    unknown = {w.column: w.detail for w in found.warnings if w.code == "unknown_column"}
    assert list(unknown) == ["Incom", "zzz"]
    assert "perhaps 'income'" in unknown["Incom"]
    assert "perhaps" not in unknown["zzz"]


def test_the_signature_shows_how_text_is_read(predictor: Predictor) -> None:
    income = predictor.features.signature()["inputs"][0]
    assert income["reading"] == {
        "type": "number",
        "missing": list(MARKERS),
        "decimal": ",",
        "thousands": ".",
    }


# ---- the Accept header ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "due"),
    [
        ("", bodies.JSON),
        ("*/*", bodies.JSON),
        ("text/csv", bodies.CSV),
        ("text/csv;q=0.2, application/json", bodies.JSON),
        ("application/json;q=0.2, text/csv", bodies.CSV),
        ("application/json; q=0.2, text/csv; q=0.5", bodies.CSV),
        ("text/csv, application/json", bodies.JSON),
        ("text/csv, */*;q=0.1", bodies.CSV),
        ("text/csv;q=0.1, */*", bodies.JSON),
        ("text/csv;q=0", bodies.JSON),
        ("text/html, application/x-ndjson;q=0.5", bodies.NDJSON),
        ("text/csv;q=high", bodies.CSV),
        ("application/vnd.apache.parquet;q=0.9, text/csv;q=0.8", "application/vnd.apache.parquet"),
    ],
)
def test_the_largest_weight_of_an_accept_header_decides(accept: str, due: str) -> None:
    assert wanted(accept) == due
