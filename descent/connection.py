"""What the parts of the client share: the transport, pages, files and what is shown of progress."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from descent.progress import Screen, screen, transfer
from descent.transport import Call, Transport

Item = TypeVar("Item")
PAGE = 200  # items of a list that are asked for at a time


@dataclass(frozen=True)
class Connection:
    """A service, and whether to show what takes its time."""

    transport: Transport
    shows_progress: bool = True

    @property
    def screen(self) -> Screen:
        return screen(wanted=self.shows_progress)

    def get(self, path: str, params: Mapping[str, str | int | None] | None = None) -> bytes:
        """Return the body that a GET answers."""
        return self.transport.send(Call("GET", path, params=params or {})).content

    def pages(
        self, path: str, params: Mapping[str, str | int | None], read: Callable[[Any], Item]
    ) -> Iterator[Item]:
        """Yield every item of a list, page by page, as `read` makes it of JSON."""
        after: str | None = None
        while True:
            page = json.loads(self.get(path, {**params, "limit": PAGE, "after": after}))
            yield from map(read, page["data"])
            if not page["has_more"]:
                return
            after = page["next_cursor"]

    def download(self, call: Call, path: str | Path | None, name: str) -> Path:
        """Write what a GET answers into the file `path`, or as `name` into the folder `path`."""
        target = Path(path or ".")
        target = target / name if target.is_dir() else target
        with transfer(f"Downloading {target.name}", self.screen) as tell:
            self.transport.download(call, target, tell)
        return target
