"""Exports and imports: bundles and ONNX files, made and read in a confined process.

Knows no HTTP. `models.export.bundle` defines the contents of a bundle.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, BinaryIO, Literal

from sqlalchemy.orm import Session

from models.export.bundle import SCHEMA
from service.datasets import refusals, sandbox
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Limits, Task
from service.errors import Busy, Invalid, TooLarge
from service.registry.checkpoints import ModelDamaged, damage_named
from service.registry.lineage import training_of
from service.registry.tables import ModelVersion
from service.settings import Settings
from service.storage.blobs import BlobStore

Format = Literal["bundle", "onnx"]
TURNS = 2  # transfers at a time: each may take the memory of a parser
PATIENCE_S = 10.0  # that a request waits for its turn
TIMEOUT_S = 60.0  # for one; the largest that is allowed takes a few seconds
EXPORTED, IMPORTED = "exported", "imported"
#: what the confined process says of a file itself; all else is about its limits
BUNDLE_CODES = frozenset({"bundle_invalid", "bundle_changed", "bundle_too_new", "golden_mismatch"})

Folder = Callable[[], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Imported:
    """A bundle whose golden rows were verified, and its model as a checkpoint."""

    checkpoint: Path
    #: what the version is to say of itself
    document: dict[str, Any]


class Transfers:
    """Makes and reads files, a few at a time. `folder` gives a temporary folder."""

    def __init__(
        self, settings: Settings, folder: Folder, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._folder, self._patience_s = folder, patience_s
        self._turns = BoundedSemaphore(TURNS)
        self._max_bytes = settings.max_bundle_bytes
        self._limits = Limits(
            settings.parse_memory_bytes,
            min(TIMEOUT_S, settings.parse_timeout_s),
            timeout_setting=None,
        )

    def export(self, blobs: BlobStore, sha256: str, options: Mapping[str, Any]) -> BinaryIO:
        """Return the exported file, open and already unlinked."""
        with self._folder() as folder:
            with damage_named():
                source = blobs.fetch(sha256, folder)
            try:
                self._run(source, folder, options)
            except Rejected as refused:
                if refused.code == "checkpoint_corrupt":
                    raise ModelDamaged from refused
                if refused.status == 507:
                    raise refusals.as_error(refused) from refused
                raise Invalid(
                    f"This model has no export in that format: {refused.detail}",
                    code="not_supported",
                ) from refused
            return (folder / EXPORTED).open("rb")

    def check(self, file: Path, folder: Path, sha256: str) -> Imported:
        """Read a bundle and verify its golden rows. Raises Invalid or TooLarge."""
        options = {"do": "import", "max_bytes": self._max_bytes}
        try:
            document = self._run(file, folder, options)
        except Rejected as refused:
            if refused.code in {"too_large", "parse_out_of_memory"}:
                raise TooLarge(refused.detail, limit=self._max_bytes) from refused
            if refused.code in BUNDLE_CODES or refused.status == 507:
                raise refusals.as_error(refused) from refused
            raise Invalid(
                "The bundle cannot be read within the limits of its reader: it is damaged, or made"
                " to do this.",
                code="bundle_invalid",
            ) from refused
        lineage = {"sha256": sha256, "descent": document.pop("descent"), **document.pop("training")}
        return Imported(folder / IMPORTED, document | {"imported": lineage})

    def _run(self, source: Path, folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        task = Task(
            path=str(source),
            folder=str(folder),
            media_type="",
            options=dict(options),
            max_columns=0,
            memory_bytes=0,
            parser=sandbox.PACKER,
        )
        with self.turn():
            return sandbox.run(task, self._limits)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a free slot. Raises Busy."""
        if not self._turns.acquire(timeout=self._patience_s):
            raise Busy("Other models are being exported or imported: try again in a moment.")
        try:
            yield
        finally:
            self._turns.release()


def options_of(session: Session, row: ModelVersion, kind: Format) -> dict[str, Any]:
    """Return the documents of an exported file. Equal options give equal files."""
    if kind == "onnx":
        properties = {
            "model": row.model_name,
            "version": str(row.version),
            "created_at": row.created_at.isoformat(),
            "descent": version("descent"),
        }
        return {"do": kind, "properties": properties}
    training = training_of(session, row)
    return {"do": kind, "training": training, "schema": SCHEMA, "descent": version("descent")}
