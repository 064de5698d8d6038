"""Bundles: equal bytes for equal models, damaged ones are refused, and equal predictions."""

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import BundleInvalid
from models.export import bundle
from models.export.bundle import MANIFEST, MEMBERS, SCHEMA
from models.export.card import golden_rows
from models.features.inputs import Numeric
from models.model import save
from models.predict.intervals import NumberCalibration
from tests.models.export.portables import ABOUT, portable, portables

Members = Mapping[str, bytes]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a bundle."""
    return write(tmp_path, "boolean", "relu")


def write(folder: Path, task: str, net: str) -> Path:
    source = folder / "source.safetensors"
    save(portable(task, net), source, {})
    bundle.write(folder / "bundle.zip", source, ABOUT)
    return folder / "bundle.zip"


def members_of(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(file: Path, members: Members, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def sealed(members: Members) -> dict[str, bytes]:
    """Return the members with a matching manifest, as a forger would write it."""
    rest = {name: content for name, content in members.items() if name != MANIFEST}
    manifest = bundle._manifest(rest)  # noqa: SLF001  the forger has our sources
    return {MANIFEST: json.dumps(manifest).encode(), **rest}


def edited(members: Members, name: str, edit: dict[str, Any]) -> dict[str, bytes]:
    """Change fields of a JSON member and seal it again."""
    document = json.loads(members[name]) | edit
    return sealed({**members, name: json.dumps(document).encode()})


def test_every_kind_of_model_comes_back_and_predicts_the_same(tmp_path: Path) -> None:
    for name, model in portables():
        source, file = tmp_path / "source", tmp_path / "bundle"
        save(model, source, {})
        bundle.write(file, source, ABOUT)
        found = bundle.read(file)
        assert found.model.features == model.features, name
        predictor, _written = bundle.to_predictor(found, tmp_path / "again")
        assert found.prove(predictor) == 0, name


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path, "numbers", "gelu").read_bytes()
    assert write(tmp_path, "numbers", "gelu").read_bytes() == first


def test_a_bundle_of_an_imported_model_is_the_same_bundle(file: Path, tmp_path: Path) -> None:
    bundle.to_predictor(bundle.read(file), tmp_path / "imported")
    bundle.write(tmp_path / "again.zip", tmp_path / "imported", ABOUT)
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_a_bundle_that_was_unpacked_and_packed_with_another_tool_is_read(
    file: Path, tmp_path: Path
) -> None:
    members = dict(reversed(members_of(file).items()))
    packed = pack(tmp_path / "packed.zip", members, zipfile.ZIP_DEFLATED)
    assert bundle.read(packed).training.model == "boats"


def test_golden_rows_hold_missing_and_unknown_values_and_no_row_of_the_training_data() -> None:
    features = portable("boolean", "relu").features
    rows = golden_rows(features)
    assert any(all(value is None for value in row.values()) for row in rows)
    assert any(row["Sex"] == "?" for row in rows)
    for column in features.inputs:
        assert any(row[column.name] is None for row in rows), column.name
    age = next(column for column in features.inputs if column.name == "Age")
    assert isinstance(age, Numeric)
    named = {age.mean, age.min, age.max, None}
    assert sum(row["Age"] not in named for row in rows) <= 2  # halfway between two of them


def test_wide_models_have_few_golden_rows() -> None:
    features = portable("number", "linear").features
    many = tuple(replace(features.inputs[1], name=f"c{number}") for number in range(5000))
    assert len(golden_rows(replace(features, inputs=many))) == 4


@pytest.mark.parametrize("name", MEMBERS)
def test_a_flipped_bit_in_any_member_is_found(file: Path, tmp_path: Path, name: str) -> None:
    """The test repairs the ZIP's own checksum, so that ours must detect the change."""
    members = members_of(file)
    for place in np.linspace(0, len(members[name]) - 1, 40).astype(int).tolist():
        content = bytearray(members[name])
        content[place] ^= 1 << place % 8
        changed = pack(tmp_path / "changed.zip", {**members, name: bytes(content)})
        with pytest.raises(BundleInvalid):
            bundle.read(changed)


def test_a_flipped_bit_of_the_file_is_found_or_changes_nothing(file: Path, tmp_path: Path) -> None:
    whole, wanted = file.read_bytes(), members_of(file)
    places = np.random.default_rng(0).choice(len(whole), 300, replace=False).tolist()
    for place in [*places, *range(len(whole) - 600, len(whole))]:
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        changed = tmp_path / "changed.zip"
        changed.write_bytes(content)
        try:
            bundle.read(changed)
        except BundleInvalid:
            continue
        assert members_of(changed) == wanted, place


def test_a_bundle_that_was_cut_off_is_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        cut = tmp_path / "cut.zip"
        cut.write_bytes(whole[:length])
        with pytest.raises(BundleInvalid):
            bundle.read(cut)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_bundle_without_a_member_is_refused(file: Path, tmp_path: Path, name: str) -> None:
    members = members_of(file)
    del members[name]
    with pytest.raises(BundleInvalid, match=f"lacks '{name}'"):
        bundle.read(pack(tmp_path / "packed.zip", members))


@pytest.mark.parametrize("name", ["evil.pkl", "../model.safetensors", "/etc/passwd", "bundle/"])
def test_a_member_that_no_bundle_has_is_refused(file: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleInvalid, match="has an unknown member"):
        bundle.read(pack(tmp_path / "packed.zip", {**members_of(file), name: b""}))


def test_a_member_that_is_there_twice_is_refused(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("net.json", b"{}")
    with pytest.raises(BundleInvalid, match="twice"):
        bundle.read(file)


def test_a_bomb_is_refused_before_it_is_unpacked(file: Path, tmp_path: Path) -> None:
    members = {**members_of(file), "model_card.md": bytes(50 * 2**20)}
    packed = pack(tmp_path / "packed.zip", members, zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleInvalid, match="200 times"):
        bundle.read(packed)
    with pytest.raises(BundleInvalid, match="unpacks to more"):
        bundle.read(packed, max_bytes=10 * 2**20)


def test_a_newer_schema_says_to_update(file: Path, tmp_path: Path) -> None:
    members = members_of(file)
    manifest = json.loads(members[MANIFEST]) | {"schema_version": SCHEMA + 1}
    packed = pack(tmp_path / "p.zip", {**members, MANIFEST: json.dumps(manifest).encode()})
    with pytest.raises(BundleInvalid, match="update Descent") as caught:
        bundle.read(packed)
    assert caught.value.reason == "bundle_too_new"


def test_a_forger_who_changes_weights_is_told_by_the_golden_rows(
    file: Path, tmp_path: Path
) -> None:
    members = members_of(file)
    content = bytearray(members["model.safetensors"])
    content[-2] ^= 0x40
    forged = pack(tmp_path / "f.zip", sealed({**members, "model.safetensors": bytes(content)}))
    with pytest.raises(BundleInvalid) as caught:
        bundle.to_predictor(bundle.read(forged), tmp_path / "again")
    assert caught.value.reason == "golden_mismatch"


def test_a_bundle_without_golden_rows_is_refused(file: Path, tmp_path: Path) -> None:
    members = edited(members_of(file), "golden.json", {"rows": [], "predictions": []})
    with pytest.raises(BundleInvalid, match="rows"):
        bundle.read(pack(tmp_path / "unproved.zip", members))


def test_preprocessing_of_the_wrong_types_is_refused(file: Path, tmp_path: Path) -> None:
    members = members_of(file)
    for at, field, value in (
        (1, "mean", "40"),
        (1, "std", None),
        (1, "scale", 0),
        (1, "name", 7),
        (1, "kind", "choice"),
        (1, "surprise", 1),
        (0, "categories", ["a", 2]),
        (0, "counts", [1]),
        (0, "name", "Age"),
        (4, "parts", ["century"]),
        (4, "mean", 1e999),
    ):
        document = json.loads(members["preprocessing.json"])
        document["inputs"][at][field] = value
        content = json.dumps(document).replace("Infinity", "1e999").encode()
        forged = pack(tmp_path / "f.zip", sealed({**members, "preprocessing.json": content}))
        with pytest.raises(BundleInvalid):
            bundle.read(forged)


@pytest.mark.parametrize(
    "edit",
    [
        {"operations": []},
        {"operations": 3},
        {"operations": None},
        {"operations": None, "layers": []},
        {"operations": None, "layers": ["relu"]},
        {"operations": None, "layers": [{"linear": 10**12}]},
        {"inputs": "16"},
        {"outputs": 3},
    ],
)
def test_a_net_that_does_not_fit_is_refused(
    file: Path, tmp_path: Path, edit: dict[str, Any]
) -> None:
    forged = pack(tmp_path / "f.zip", edited(members_of(file), "net.json", edit))
    with pytest.raises(BundleInvalid):
        bundle.read(forged)


def test_the_card_tells_lineage_metrics_columns_and_limits(file: Path) -> None:
    card = members_of(file)["model_card.md"].decode()
    for told in (
        "# boats, version 3",
        "`Survived`",
        "dataset ds_1, version 1",
        "| validation | loss | 0.25 |",
        "'female' (",
        "| `Age` | number |",
        "## Limits",
        "holds no row of the training data",
        "| `epochs` | `3` |",
    ):
        assert told in card


def test_the_card_tells_what_the_columns_are_worth(tmp_path: Path) -> None:
    columns = [{"column": "Age", "mean": 0.25, "std": 0.01}]
    told = {"metric": "r2", "rows": 24, "split": "test", "shuffles": 5, "columns": columns}
    save(portable("number", "linear"), tmp_path / "source", {})
    about = ABOUT | {"metrics": {"importance": told, "test": {"r2": 0.5}}}
    bundle.write(tmp_path / "bundle.zip", tmp_path / "source", about)
    card = members_of(tmp_path / "bundle.zip")["model_card.md"].decode()
    assert "| `Age` | 0.25 | 0.01 |" in card
    assert "| importance |" not in card


def test_the_card_tells_how_sure_the_model_is(tmp_path: Path) -> None:
    coverage = [{"level": 0.9, "reached": 0.885, "rows": 200}]
    known = {"method": "conformal", "split": "validation", "rows": 200, "coverage": coverage}
    save(portable("number", "linear"), tmp_path / "source", {})
    about = ABOUT | {"metrics": {"calibration": known, "test": {"r2": 0.5}}}
    bundle.write(tmp_path / "bundle.zip", tmp_path / "source", about)
    card = members_of(tmp_path / "bundle.zip")["model_card.md"].decode()
    assert "errors of 200 rows of the `validation` split" in card
    assert "| 0.9 | 0.885 | 200 |" in card
    assert "| calibration |" not in card


def test_a_bundle_holds_the_calibration(tmp_path: Path) -> None:
    scores = {"rows": 1, "margin": 0.0, "scores": [0.5], "at": [0.0], "sizes": [1.0]}
    known = {"kind": "numbers", "targets": [scores]}
    save(portable("number", "linear"), tmp_path / "source", {"calibration": known})
    bundle.write(tmp_path / "bundle.zip", tmp_path / "source", ABOUT)
    read = bundle.read(tmp_path / "bundle.zip")
    predictor, _written = bundle.to_predictor(read, tmp_path / "again")
    assert predictor.document["calibration"] == known
    assert isinstance(predictor.calibration, NumberCalibration)


def test_nothing_of_the_optimizer_leaves(tmp_path: Path) -> None:
    file = write(tmp_path, "number", "linear")
    shutil.unpack_archive(file, tmp_path / "unpacked")
    assert bundle.read(file).model.state()[1].keys() == {"0.weight", "0.bias"}
    assert sorted(path.name for path in (tmp_path / "unpacked").iterdir()) == sorted(MEMBERS)
