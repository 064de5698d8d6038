"""The script inside a bundle: no Descent, only torch and safetensors, the same predictions."""

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from models.export import bundle, standalone
from models.model import save
from tests.models.export.portables import ABOUT, Answers, agree, portable, portables, predict


def run(folder: Path, *arguments: str) -> Answers:
    """Run `predict.py` of the bundle where no package of ours can be imported."""
    with zipfile.ZipFile(folder / "bundle.zip") as archive:
        archive.extract("predict.py", folder)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ISOLATED, "predict.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


#: Runs a script with the installed packages on the path, but none of ours.
ISOLATED = f"""
import importlib.abc, runpy, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {{"models", "service", "descent"}}:
            raise ImportError(f"the script imports {{name}}")
sys.meta_path.insert(0, Refuse())
sys.path += {[path for path in sys.path if "site-packages" in path]!r}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def make(folder: Path, task: str, net: str) -> dict[str, Any]:
    save(portable(task, net), folder / "source", {})
    bundle.write(folder / "bundle.zip", folder / "source", ABOUT)
    with zipfile.ZipFile(folder / "bundle.zip") as archive:
        golden: dict[str, Any] = json.loads(archive.read("golden.json"))
    return golden


def test_the_golden_rows_are_predicted_from_json(tmp_path: Path) -> None:
    golden = make(tmp_path, "text classes", "gelu")
    (tmp_path / "rows.json").write_text(json.dumps(golden["rows"]))
    assert agree(run(tmp_path, "bundle.zip", "rows.json"), golden)


def test_the_golden_rows_are_predicted_from_csv_and_the_unpacked_folder(tmp_path: Path) -> None:
    golden = make(tmp_path, "numbers", "tanh")
    shutil.unpack_archive(tmp_path / "bundle.zip", tmp_path / "unpacked")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, golden["rows"][0])
        writer.writeheader()
        writer.writerows(golden["rows"])
    assert agree(run(tmp_path, "unpacked", "rows.csv"), golden)


def test_every_kind_of_model_is_predicted_as_the_service_does(tmp_path: Path) -> None:
    for name, model in portables():
        source, file = tmp_path / "source", tmp_path / "bundle.zip"
        save(model, source, {})
        bundle.write(file, source, ABOUT)
        golden = bundle.read(file).golden.model_dump()
        assert agree(standalone.predict(file, golden["rows"]), golden), name


def test_numbers_far_outside_the_training_rows_are_clipped_alike(tmp_path: Path) -> None:
    model = portable("number", "linear")
    row = make(tmp_path, "number", "linear")["rows"][0]
    rows = [row | {"Age": far} for far in (1e300, -1e300, 1e9)]
    found = standalone.predict(tmp_path / "bundle.zip", rows)
    wanted = [{"value": each.value} for each in predict(model, rows, tmp_path)]
    assert agree(found, {"predictions": wanted})


def test_cells_that_are_no_value_count_as_missing(tmp_path: Path) -> None:
    make(tmp_path, "number", "relu")
    cells = ["", "NA", "?", "word", "1e999", "inf", "1_000"]
    rows = "".join(f"{cell},1\n" for cell in cells)
    (tmp_path / "rows.csv").write_text(f"Age,Class\n{rows}41,1\n")
    *missing, given = run(tmp_path, "bundle.zip", "rows.csv")
    assert missing == [missing[0]] * len(cells)
    assert given != missing[0]


def test_the_encoding_and_quotes_behind_blanks_are_found() -> None:
    features = {"inputs": [{"name": "a"}, {"name": "größe"}], "table": {"names": ["a", "größe"]}}
    text = 'a, "größe"\n1, "x, y"\n'
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"):
        rows = standalone.read_csv(text.encode(encoding), features)
        assert rows == [{"a": "1", "größe": "x, y"}], encoding
