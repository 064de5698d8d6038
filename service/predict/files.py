"""Parquet and Arrow bodies of predictions, read in a process of their own as uploads are.

A forged file can make its reader allocate without end or crash: it must not take this process.
"""

import errno
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from service.datasets import refusals, sandbox
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Limits, Task
from service.datasets.upload import ARROW, PARQUET
from service.errors import Busy, StorageFull, TooLarge
from service.predict import bodies
from service.settings import Settings

MEDIA_TYPES = (PARQUET, ARROW)
READERS = 2  # files that are read at a time: each may take the memory of a parser
PATIENCE_S = 5.0  # that a request waits for its turn
TIMEOUT_S = 30.0  # for one file; the largest that is allowed takes less than one
EXPANSION = 4  # times the largest body: what a file may hold as JSON

Folder = Callable[[], AbstractContextManager[Path]]


class Files:
    """Reads files, some at a time. `folder` gives a scratch folder that is gone afterwards."""

    def __init__(
        self, settings: Settings, folder: Folder, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._settings, self._folder, self._patience_s = settings, folder, patience_s
        self._turns = BoundedSemaphore(READERS)
        self._limits = Limits(
            settings.parse_memory_bytes,
            min(TIMEOUT_S, settings.parse_timeout_s),
            EXPANSION * settings.max_predict_bytes,
            timeout_setting=None,
        )

    def read(self, content: bytes, media_type: str, known: Collection[str]) -> bodies.Rows:
        """Return the rows of a file; of columns that are not `known` only where values are."""
        if not self._turns.acquire(timeout=self._patience_s):
            raise Busy(
                "Other files are being read: try again in a moment, or send the rows as CSV."
            )
        try:
            answer = self._parsed(content, media_type, known)
        except Rejected as refused:
            if refused.status == TooLarge.status:
                raise TooLarge(refused.detail) from refused
            raise refusals.as_error(refused) from refused
        finally:
            self._turns.release()
        return bodies.from_json(answer, self._settings.max_predict_rows)

    def _parsed(self, content: bytes, media_type: str, known: Collection[str]) -> dict[str, Any]:
        with self._folder() as folder:
            path = folder / "body"
            try:
                path.write_bytes(content)
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise StorageFull from error
                raise
            task = Task(
                path=str(path),
                folder=str(folder),
                media_type=media_type,
                options={"known": list(known), "max_rows": self._settings.max_predict_rows},
                max_columns=self._settings.max_columns,
                memory_bytes=sandbox.memory_for_queries(self._limits),
                parser=sandbox.READER,
            )
            return sandbox.run(task, self._limits)
