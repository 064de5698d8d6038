"""Durable files are synced before they appear under their name, and so is their folder."""

import os
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from service.storage.blobs import LocalBlobs

WATCHED = {os.fsync: "sync", os.replace: "publish", os.link: "publish"}


def calls_of(work: Callable[[], object]) -> list[str]:
    """Return the watched system calls that `work` made, in order, by Python's own profiler."""
    made = []

    def note(_frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called in WATCHED:
            made.append(WATCHED[called])

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


def put_blob(folder: Path) -> Callable[[], object]:
    source, store = folder / "source", LocalBlobs(folder / "blobs")
    source.write_bytes(b"bytes")
    return lambda: store.put(source)


def take_blob(folder: Path) -> Callable[[], object]:
    source, store = folder / "source", LocalBlobs(folder / "blobs")
    source.write_bytes(b"bytes")
    return lambda: store.take(source, sha256(b"bytes").hexdigest())


@pytest.mark.parametrize("write", [put_blob, take_blob])
def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, write: Callable[[Path], Callable[[], object]]
) -> None:
    made = calls_of(write(tmp_path))
    published = made.index("publish")
    assert "sync" in made[:published]
    assert "sync" in made[published:]
