"""Every version loads the bundles that earlier versions exported. See their README."""

from pathlib import Path

import pytest

from models.export import bundle, standalone
from models.export.card import TOLERANCE, check_golden
from models.export.onnx_graph import build
from tests.models.export.portables import agree

FOLDER = Path(__file__).parent / "bundles"
FILES = sorted(path.name for path in FOLDER.glob("*.zip"))


def test_the_folder_and_its_readme_name_the_same_bundles() -> None:
    text = (FOLDER / "README.md").read_text()
    assert [name for name in FILES if f"| `{name}` |" in text] == FILES
    assert text.count("| `bundle-") == len(FILES) >= 3


@pytest.mark.parametrize("name", FILES)
def test_an_old_bundle_still_predicts_its_golden_rows(name: str, tmp_path: Path) -> None:
    found = bundle.read(FOLDER / name)
    predictor, _written = bundle.to_predictor(found, tmp_path / "checkpoint")
    assert check_golden(predictor, found.golden.model_dump()) <= 1
    assert found.golden.tolerance == TOLERANCE


@pytest.mark.parametrize("name", FILES)
def test_an_old_bundle_can_be_exported_again(name: str, tmp_path: Path) -> None:
    """An old bundle holds the script of its version; a new one holds the script of this version."""
    found = bundle.read(FOLDER / name)
    golden = found.golden.model_dump()
    bundle.to_predictor(found, tmp_path / "checkpoint")
    bundle.write(tmp_path / "again.zip", tmp_path / "checkpoint", found.training.model_dump())
    assert agree(standalone.predict(tmp_path / "again.zip", golden["rows"]), golden)
    assert build(found.model, {})
