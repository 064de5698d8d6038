"""A sealed bundle: a model in one ZIP file that needs nothing else.

The same model gives the same bytes. Members are stored or deflated and have fixed names. The
manifest holds the size and SHA-256 of each member, and the seal is the SHA-256 of the manifest.
Reading checks all of it, unpickles and executes nothing, and takes bounded memory. Knows no torch.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError

from models import reading
from models.checkpoint import Written
from models.errors import BundleInvalid, CheckpointCorrupt
from models.export.card import check_golden, golden, golden_rows, write_card
from models.features.encoding import Features
from models.features.inputs import KINDS, Choice, Moment, Numeric
from models.features.targets import ClassTarget, NumberTargets
from models.features.widths import PERIODS
from models.model import GraphModel, Model, load, save
from models.predict.predictor import Predictor

#: Of the bundle; a reader refuses a newer one. In format 1 a net was a list of layers.
SCHEMA = 2
FORMAT = "descent-bundle"
MANIFEST = "manifest.json"
TENSORS = "model.safetensors"
#: In their order in the file.
MEMBERS = (
    MANIFEST,
    "model_card.md",
    "signature.json",
    "preprocessing.json",
    "net.json",
    TENSORS,
    "golden.json",
    "training.json",
    "predict.py",
)
STANDALONE = Path(__file__).with_name("standalone.py")
READING = Path(reading.__file__)  # the script contains this module
TIME = (1980, 1, 1, 0, 0, 0)  # of every member: the earliest time of the ZIP format
MAX_BYTES = 256 * 2**20  # of all members together, unpacked
MAX_RATIO = 200  # of a member's size to its deflated size
RATIO_GRACE = 2**20  # bytes of a member that may have any ratio
MAX_GOLDEN = 1000  # rows
CHUNK = 2**20
#: The errors of `zipfile` for damaged bytes; for an encrypted member it raises RuntimeError.
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, LookupError)
SHA256 = r"^[0-9a-f]{64}$"

Members: TypeAlias = dict[str, bytes]


class _Document(BaseModel):
    """A JSON document of a bundle; unknown fields, which a newer version may add, are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Member(_Document):
    """A member's entry in the manifest."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=SHA256)]


class Manifest(_Document):
    """The manifest: the members of a bundle and its seal."""

    format: Literal["descent-bundle"]
    schema_version: int
    #: the version of the program that wrote the bundle
    descent: Annotated[str, Field(max_length=64)]
    members: dict[str, Member]
    #: SHA-256 of the manifest without this field, see `seal_of`
    seal: Annotated[str, Field(pattern=SHA256)]


class DatasetSource(_Document):
    """The dataset that a model was trained on, as far as the export knew it."""

    id: str
    version: int
    name: str | None = None
    rows: int | None = None
    sha256: str | None = None


class Provenance(_Document):
    """The origin of a model: its run, dataset, configuration and metrics."""

    model: Annotated[str, Field(max_length=128)]
    version: int
    created_at: str
    run: str | None
    dataset: DatasetSource | None
    config: dict[str, Any]
    metrics: dict[str, Any]
    #: trained and closed-form parameters of a linear model
    parameters: dict[str, Any] | None = None
    #: see `models.predict.intervals`
    calibration: dict[str, Any] | None = None


class Golden(_Document):
    """Rows with the model's predictions."""

    tolerance: float
    #: at least one, because without rows no copy can be verified
    rows: Annotated[
        list[dict[str, bool | int | float | str | None]],
        Field(min_length=1, max_length=MAX_GOLDEN),
    ]
    predictions: Annotated[list[dict[str, Any]], Field(max_length=MAX_GOLDEN)]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and is complete; `prove` verifies its predictions."""

    manifest: Manifest
    model: Model
    golden: Golden
    training: Provenance

    def prove(self, predictor: Predictor) -> float:
        """Return the largest difference of the golden rows, in tolerances.

        Raises `BundleInvalid` if it is above one.
        """
        return check_golden(predictor, self.golden.model_dump())


def seal_of(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest without its seal, as JSON with sorted keys and no spaces."""
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


# ---- writing ------------------------------------------------------------------------------------


def write(path: Path, source: Path | bytes, training: Mapping[str, Any]) -> Written:
    """Write the bundle of a checkpoint; `training` has the fields of `Provenance`.

    Raises `CheckpointCorrupt`.
    """
    model = load(source)
    net, parameters = model.state()
    about = Provenance.model_validate(
        {**training, "calibration": model.document.get("calibration")}
    ).model_dump()
    tensors = {name: np.asarray(each, order="C") for name, each in parameters.items()}
    members: Members = {
        "model_card.md": write_card(model.features, about).encode(),
        "signature.json": _to_json(model.features.signature()),
        "preprocessing.json": _to_json(model.features.to_json()),
        "net.json": _to_json(net),
        TENSORS: safetensors.numpy.save(tensors),
        "golden.json": _to_json(golden(Predictor(model))),
        "training.json": _to_json(about),
        "predict.py": script(),
    }
    members[MANIFEST] = _to_json(_manifest(members))
    with zipfile.ZipFile(path, "w") as archive:
        for name in MEMBERS:
            entry = zipfile.ZipInfo(name, TIME)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Unix, on every system
            archive.writestr(entry, members[name])  # stored: zlib's output differs by its version
    return Written(_digest(path), path.stat().st_size)


def script() -> bytes:
    """Return the script that predicts, with the reader of cells in place of its import."""
    reader = READING.read_text("utf-8").partition('\n"""\n')[2]  # without its docstring
    lines = STANDALONE.read_text("utf-8").splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if line.startswith("from models.reading "))
    lines[place] = reader.strip("\n") + "\n"
    return "".join(lines).encode()


def _manifest(members: Members) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "schema_version": SCHEMA,
        "descent": version("descent"),
        "members": {
            name: {"bytes": len(members[name]), "sha256": hashlib.sha256(members[name]).hexdigest()}
            for name in MEMBERS
            if name != MANIFEST
        },
    }
    return manifest | {"seal": seal_of(manifest)}


def _to_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- reading ------------------------------------------------------------------------------------


def read(path: Path, max_bytes: int = MAX_BYTES) -> Bundle:
    """Read a bundle from an untrusted source; raises `BundleInvalid` unless all of it is valid."""
    members = _read_members(path, max_bytes)
    manifest = _check_manifest(members)
    try:
        features = _read_features(members["preprocessing.json"])
        net, tensors = _object(members, "net.json"), _read_tensors(members[TENSORS])
        origin = Provenance.model_validate(_object(members, "training.json"))
        model = GraphModel.of(features, net, tensors, {"calibration": origin.calibration})
        golden_of = Golden.model_validate(_object(members, "golden.json"))
        found = Bundle(manifest, model, golden_of, origin)
        model.features.signature()
        _ = Predictor(model).calibration
    except (ValueError, CheckpointCorrupt) as error:
        raise BundleInvalid(f"the bundle describes no model: {_short(error)}") from error
    if len(found.golden.rows) != len(found.golden.predictions):
        raise BundleInvalid("golden.json has different numbers of rows and predictions")
    return found


def to_predictor(bundle: Bundle, path: Path) -> tuple[Predictor, Written]:
    """Write a bundle's model as a checkpoint, load it and verify it; raises `BundleInvalid`."""
    # Keep the golden rows in the checkpoint, so that it can be verified again without the bundle.
    origin = {
        "training": bundle.training.model_dump(exclude={"calibration"}),
        "golden": bundle.golden.model_dump(),
        "calibration": bundle.training.calibration,
    }
    written = save(bundle.model, path, origin)
    predictor = Predictor.load(path)
    bundle.prove(predictor)
    # Also predict the golden rows of this version: those of the bundle may leave a case out.
    rows = golden_rows(predictor.features)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if any(prediction.error for prediction in predictor.predict(columns, len(rows))):
        raise BundleInvalid("the model predicts a number that is not finite for an ordinary row")
    return predictor, written


def _read_members(path: Path, max_bytes: int) -> Members:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(entries, max_bytes)
            return {entry.filename: _read_member(archive, entry) for entry in entries}
    except (*UNREADABLE, OSError) as error:
        raise BundleInvalid(f"the file is no ZIP archive, or damaged: {_short(error)}") from error


def _check_entries(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    if unknown := sorted(set(names) - set(MEMBERS)):
        raise BundleInvalid(
            f"the bundle has an unknown member {unknown[0][:60]!r}: pack the files alone, "
            "without a folder"
        )
    if len(names) != len(set(names)):
        raise BundleInvalid("a member is in the bundle twice")
    if missing := [name for name in MEMBERS if name not in names]:
        raise BundleInvalid(f"the bundle lacks {missing[0]!r}")
    if sum(entry.file_size for entry in entries) > max_bytes:
        raise BundleInvalid(f"the bundle unpacks to more than {max_bytes} bytes", code="too_large")
    for entry in entries:
        if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise BundleInvalid(f"{entry.filename!r} is neither stored nor deflated")
        if entry.file_size > RATIO_GRACE + MAX_RATIO * entry.compress_size:
            raise BundleInvalid(
                f"{entry.filename!r} unpacks to more than {MAX_RATIO} times its size",
                code="too_large",
            )


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return a member, and stop reading at the size in its entry."""
    content = bytearray()
    with archive.open(entry) as file:
        while chunk := file.read(min(CHUNK, entry.file_size + 1 - len(content))):
            content += chunk
            if len(content) > entry.file_size:
                break
    if len(content) != entry.file_size:
        raise BundleInvalid(f"the size of {entry.filename!r} is not the size in its entry")
    return bytes(content)


def _check_manifest(members: Members) -> Manifest:
    document = _object(members, MANIFEST)
    schema = document.get("schema_version")
    if isinstance(schema, int) and schema > SCHEMA:
        raise BundleInvalid(
            f"the bundle has schema {schema}, this version reads up to {SCHEMA}: update Descent",
            code="bundle_too_new",
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise BundleInvalid(f"the manifest cannot be read: {_short(error)}") from error
    if manifest.seal != seal_of(document):
        raise BundleInvalid("the manifest was changed since it was sealed", code="bundle_changed")
    if manifest.members.keys() != set(MEMBERS) - {MANIFEST}:
        raise BundleInvalid("the members of the bundle are not those that the manifest lists")
    for name, member in manifest.members.items():
        content = members[name]
        if (len(content), hashlib.sha256(content).hexdigest()) != (member.bytes, member.sha256):
            raise BundleInvalid(f"{name!r} was changed since it was sealed", code="bundle_changed")
    return manifest


def _object(members: Members, name: str) -> dict[str, Any]:
    try:
        document = from_json(members[name], allow_inf_nan=False)
    except ValueError as error:
        raise BundleInvalid(f"{name!r} is no JSON: {_short(error)}") from error
    if not isinstance(document, dict):
        raise BundleInvalid(f"{name!r} is no JSON object")
    return document


def _read_features(content: bytes) -> Features:
    """Read the preprocessing and check every type, which `Features.from_json` does not."""
    document = _object({"": content}, "")
    features = Features.from_json(document)
    for column, stored in zip(features.inputs, document["inputs"], strict=True):
        _check_type(KINDS[column.kind], stored)
    kinds = {kind.kind: kind for kind in (NumberTargets, ClassTarget)}
    _check_type(kinds[features.target.kind], document["target"])
    _check_sense(features)
    return features


def _check_sense(features: Features) -> None:
    names = [column.name for column in features.inputs]
    if len(set(names)) != len(names) or not all(names):
        raise BundleInvalid("two columns have the same name, or one has none")
    for column in features.inputs:
        if (
            (isinstance(column, Numeric) and column.scale == 0)
            or (isinstance(column, Moment) and not set(column.parts) <= PERIODS.keys())
            or (isinstance(column, Choice) and len(column.counts) != len(column.categories))
        ):
            raise BundleInvalid(f"the column {column.name[:60]!r} cannot be encoded")
        if isinstance(column, Choice):
            column.is_rare("")  # ValueError if the marks of rare categories cannot be read
    target = features.target
    if isinstance(target, ClassTarget):
        labels = target.labels
        if len(set(labels)) != len(labels) or len({type(label) for label in target.classes}) > 1:
            raise BundleInvalid("two classes are the same, or of different types")


def _check_type(kind: type, document: Mapping[str, Any]) -> None:
    fields = {name: value for name, value in document.items() if name != "kind"}
    _adapter(kind).validate_json(json.dumps(fields, allow_nan=False), strict=True)


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Return the validator of a kind; it is cached because its construction takes milliseconds."""
    return TypeAdapter(kind)


def _read_tensors(content: bytes) -> dict[str, Any]:
    try:
        tensors = safetensors.numpy.load(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleInvalid(f"{TENSORS!r} cannot be read: {_short(error)}") from error
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise BundleInvalid(f"tensor {name[:60]!r} is not float32, or not finite")
    return tensors


def _short(error: Exception) -> str:
    """Return the first words of an error, because those of libraries may have many lines."""
    return " ".join(str(error).split())[:200] or type(error).__name__
