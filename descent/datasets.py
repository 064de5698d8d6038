"""The client's calls for datasets, and how a table is uploaded: as a file, Parquet or JSON."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from descent import frames, schemas
from descent.errors import DatasetRejected
from descent.predictions import Table, headers_of, table_body
from descent.progress import Screen, transfer
from descent.transport import API, ApiCall, Connection, ReportProgress, Watched, part

PARSE_POLL = 0.2  # seconds between two requests while the service parses a large file
NAME = "dataset"  # of a table that has no name of its own


class DatasetCalls:
    """The calls of Client for datasets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def upload(
        self,
        source: str | Path | bytes | Table,
        name: str | None = None,
        *,
        content_type: str | None = None,
        **options: str,
    ) -> schemas.Dataset:
        """Upload a table and wait until it is ready for training. Raises DatasetRejected.

        `source` is a path (CSV, TSV, NDJSON, JSON, Parquet or Arrow, also with `.gz`), the bytes of
        such a file, a pandas or polars DataFrame, a dict of columns or a list of rows. Files are
        streamed. `options` are query parameters of `POST /datasets`, such as `header="absent"`.

        >>> client.upload("scores.csv").rows
        13
        >>> import pandas
        >>> frame = pandas.DataFrame({"size": [1.0, 2.5, 4.0], "kind": ["a", "b", "a"]})
        >>> [(column.name, column.type) for column in client.upload(frame, "sizes").columns]
        [('size', 'number'), ('kind', 'category')]
        """
        screen = self._connection.screen
        with upload_call(source, name, content_type, options, screen) as call:
            answer = self._connection.transport.send(call)
        dataset = schemas.Dataset.model_validate_json(answer.content)
        while dataset.state == "ingesting":
            time.sleep(PARSE_POLL)
            dataset = self.dataset(dataset.id)
        if dataset.state == "rejected":
            problem = dataset.error
            code = problem.code if problem else "rejected"
            detail = problem.detail if problem else "the file could not be read as a table"
            raise DatasetRejected(code, detail, problem)
        return dataset

    def dataset(self, dataset_id: str) -> schemas.Dataset:
        """Return a dataset by its id.

        >>> client.dataset(scores.id).name
        'scores'
        """
        return schemas.Dataset.model_validate_json(self._connection.get(_path(dataset_id)))

    def datasets(self) -> Iterator[schemas.Dataset]:
        """Yield all datasets, newest first.

        >>> scores.id in [dataset.id for dataset in client.datasets()]
        True
        """
        return self._connection.pages(f"{API}/datasets", {}, schemas.Dataset.model_validate)

    def rows(self, dataset: str | schemas.Dataset) -> Iterator[dict[str, Any]]:
        """Yield the typed rows in the order of the file.

        >>> next(client.rows(scores))
        {'Quiz': 25.2, 'Final': 30.5}
        """
        return self._connection.pages(f"{_path(dataset)}/rows", {}, dict[str, Any])

    def frame(
        self, dataset: str | schemas.Dataset, kind: frames.Kind = "pandas"
    ) -> frames.DataFrame:
        """Return the rows as a pandas or polars DataFrame.

        >>> client.frame(scores).shape
        (13, 2)
        """
        rows = list(self.rows(dataset))
        names = dict.fromkeys(name for row in rows for name in row)
        return frames.frame_of({name: [row.get(name) for row in rows] for name in names}, kind)

    def download(self, dataset: str | schemas.Dataset, path: str | Path | None = None) -> Path:
        """Download the uploaded file, decompressed, and return its path.

        `path` is a file, or a folder in which the file gets the dataset's name.

        >>> client.download(scores, "again.csv").read_text().splitlines()[:2]
        ['Quiz,Final', '25.2,30.5']
        """
        found = self.dataset(dataset) if isinstance(dataset, str) else dataset
        return self._connection.download(
            ApiCall("GET", f"{_path(found)}/content"), path, found.name
        )

    def retype(self, dataset: str | schemas.Dataset, types: Mapping[str, str]) -> schemas.Dataset:
        """Make a new version with other column types, such as `{"zip": "category"}`.

        >>> made = client.upload({"zip": [10115, 20095], "price": [1.0, 2.0]})
        >>> client.retype(made, {"zip": "category"}).columns[0].type
        'category'
        """
        return self.reread(dataset, {column: {"type": kind} for column, kind in types.items()})

    def reread(
        self,
        dataset: str | schemas.Dataset,
        columns: Mapping[str, Mapping[str, Any]] | None = None,
        reading: Mapping[str, Any] | None = None,
    ) -> schemas.Dataset:
        r"""Make a new version that is read in another way.

        `columns` holds changes of columns, such as `{"price": {"decimal": ","}}`, and `reading`
        those of the file, such as `{"skip_lines": 2}`; see `ColumnOverride` and `FileOverride`.

        >>> made = client.upload(b"price;n\n1,137;3\n2,274;4\n")
        >>> client.reread(made, {"price": {"thousands": ","}}).columns[0].min
        1137.0
        """
        body: dict[str, Any] = {
            "columns": {name: dict(each) for name, each in (columns or {}).items()}
        }
        if reading:
            body["reading"] = reading
        answer = self._connection.transport.send(ApiCall("PATCH", _path(dataset), json=body))
        return schemas.Dataset.model_validate_json(answer.content)

    def delete_dataset(self, dataset: str | schemas.Dataset) -> None:
        """Delete a dataset. Raises Conflict while an unfinished run needs it.

        >>> client.delete_dataset(client.upload({"a": [1, 2]}))
        """
        self._connection.transport.send(ApiCall("DELETE", _path(dataset)))


def _path(dataset: str | schemas.Dataset) -> str:
    return f"{API}/datasets/{part(dataset if isinstance(dataset, str) else dataset.id)}"


# ---- uploads ------------------------------------------------------------------------------------


@contextmanager
def upload_call(
    source: str | Path | bytes | Table,
    name: str | None,
    content_type: str | None,
    options: Mapping[str, str],
    where: Screen,
) -> Iterator[ApiCall]:
    """Yield the request that uploads a table. Temporary files exist until the block ends."""
    path = f"{API}/datasets"
    if isinstance(source, bytes):
        headers = {"Content-Type": content_type or "text/csv"}
        params = {"name": name or NAME, **options}
        yield ApiCall("POST", path, params=params, content=lambda: source, headers=headers)
    elif isinstance(source, str | Path):
        file = Path(source)
        headers = headers_of(file, content_type)
        with file_content(file, where, "Uploading") as content:
            params = {"name": name or file.name.split(".")[0], **options}
            yield ApiCall("POST", path, params=params, content=content, headers=headers)
    elif kind := frames.kind_of(source):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / (name or NAME)
            with file.open("wb") as target:
                written_as = frames.write(source, kind, target)
            with file_content(file, where, "Uploading") as content:
                params = {"name": name or NAME, **options}
                headers = {"Content-Type": written_as}
                yield ApiCall("POST", path, params=params, content=content, headers=headers)
    else:
        yield ApiCall(
            "POST", path, params=options, json={"name": name or NAME, **table_body(source)}
        )


@contextmanager
def file_content(file: Path, where: Screen, verb: str) -> Iterator["OpenFile"]:
    """Yield a function that opens the file for each attempt; a bar shows the progress."""
    with transfer(f"{verb} {file.name}", where) as report:
        yield OpenFile(file, report)


class OpenFile:
    """Opens a file for sending. Each call opens it anew, at its beginning."""

    def __init__(self, file: Path, report: ReportProgress) -> None:
        self._file = file
        self._report = report

    def __call__(self) -> Watched:
        return Watched(cast("BinaryIO", self._file.open("rb")), self._report)
