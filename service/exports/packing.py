"""Exports a checkpoint to a bundle or ONNX, and imports bundles, in a confined process.

A malicious bundle is bound by the limits of an upload's parser, and a large export does not delay
predictions.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from descent import schemas
from models.checkpoint import Written
from models.errors import BundleInvalid, LearningError
from models.export import bundle, onnx_graph
from models.export.bundle import Bundle
from models.model import load
from models.nets.lines import describe_line
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Task
from service.errors import BadRequest
from service.http.validation import strict_json

EXPORTED, IMPORTED = "exported", "imported"  # names of the files in the folder of the process
MAX_TEXT = 1024 * 1024  # bytes of configuration, metrics and lineage in an import
LINEAGE = {"model", "version", "created_at", "run", "dataset"}
PARAMETERS: TypeAdapter[Any] = TypeAdapter(schemas.Parameters | dict[str, schemas.Parameters])


def pack(task: Task) -> dict[str, Any]:
    """Carry out the task that the option `do` names. Raises Rejected."""
    work = {"bundle": _bundle, "onnx": _onnx, "import": _import}[task.options["do"]]
    try:
        return work(Path(task.path), Path(task.folder), task.options)
    except BundleInvalid as error:
        raise Rejected(error.reason, _sentence(error.detail)) from error
    except LearningError as error:
        raise Rejected(error.code, _sentence(error.detail)) from error


def _bundle(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    return _written(bundle.write(folder / EXPORTED, source, options["training"]))


def _onnx(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    content = onnx_graph.build(load(source), options["properties"])
    (folder / EXPORTED).write_bytes(content)
    return {"bytes": len(content)}


def _import(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    found = bundle.read(source, options["max_bytes"])
    _check_text(found)
    _predictor, written = bundle.to_predictor(found, folder / IMPORTED)
    training = found.training
    return _written(written) | {
        "signature": _signature(found),
        "parameters": _parameters(found),
        "metrics": training.metrics,
        "config": training.config,
        "descent": found.manifest.descent,
        "training": training.model_dump(include=LINEAGE),
    }


def _written(written: Written) -> dict[str, Any]:
    return {"sha256": written.sha256, "bytes": written.bytes}


def _check_text(found: Bundle) -> None:
    """Raise Rejected for values that the database cannot store and for an invalid configuration."""
    text = json.dumps([found.training.model_dump(), found.model.features.to_json()])
    try:
        strict_json(text.encode())
    except BadRequest as error:
        raise BundleInvalid(f"a member is not strict JSON: {error.detail}") from error
    # Each answer about the version repeats these.
    shown = found.training.model_dump(exclude={"parameters", "calibration"})
    if len(json.dumps(shown)) > MAX_TEXT:
        raise BundleInvalid(
            f"the configuration, metrics and lineage take more than {MAX_TEXT} bytes"
        )
    if not isinstance(found.training.config.get("model", {}), dict):
        raise BundleInvalid("the configuration's model is not an object")


def _signature(found: Bundle) -> dict[str, Any]:
    """Return the signature of the model; the copy in the bundle is for readers without Descent."""
    signature = found.model.features.signature()
    try:
        schemas.Signature.model_validate(signature)
    except ValidationError as error:
        raise BundleInvalid("the signature has unknown types of columns") from error
    return signature


def _parameters(found: Bundle) -> dict[str, Any] | None:
    """Return the weights of a linear model, with the closed-form solution that the bundle holds."""
    model = found.model
    line = model.line
    if line is None:
        return None
    stored = found.training.parameters
    if stored is not None:
        try:
            PARAMETERS.validate_python(stored)
        except ValidationError as error:
            raise BundleInvalid("the linear model's parameters cannot be read") from error
        return stored
    described = describe_line(model.features, line)
    entries = {name: {"sse": None} | entry for name, entry in described.items()}
    return entries if len(entries) > 1 else next(iter(entries.values()))


def _sentence(detail: str) -> str:
    return f"{detail[:1].upper()}{detail[1:]}."
