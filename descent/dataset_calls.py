"""What the client does with datasets."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from descent import frames, schemas
from descent.connection import Connection
from descent.errors import DatasetRejected
from descent.predictions import Table
from descent.transport import API, Call, part
from descent.uploads import upload_call

INGEST_POLL = 0.2  # seconds between two looks at a large file that is being read


class DatasetCalls:
    """The part of Client that knows tables."""

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
        """Upload a table and wait until it can be trained on. Raises DatasetRejected.

        `source` is a path (CSV, TSV, NDJSON, JSON, Parquet or Arrow, also with `.gz`), the bytes of
        such a file, a DataFrame of pandas or polars, a dict of columns or a list of rows. Files
        are streamed. `options` are the query options of `POST /datasets`, such as
        `header="absent"`.

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
        while dataset.state in {"receiving", "ingesting"}:
            time.sleep(INGEST_POLL)
            dataset = self.dataset(dataset.id)
        if dataset.state == "rejected":
            problem = dataset.error
            code = problem.code if problem else "rejected"
            detail = problem.detail if problem else "the file could not be read as a table"
            raise DatasetRejected(code, detail, problem)
        return dataset

    def dataset(self, dataset_id: str) -> schemas.Dataset:
        """Return one dataset.

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
        """Yield the rows as they are typed, in the order of the file.

        >>> next(client.rows(scores))
        {'Quiz': 25.2, 'Final': 30.5}
        """
        return self._connection.pages(f"{_path(dataset)}/rows", {}, dict[str, Any])

    def frame(self, dataset: str | schemas.Dataset, kind: frames.Kind = "pandas") -> Any:  # noqa: ANN401  a DataFrame
        """Return the rows as a DataFrame of pandas or polars.

        >>> client.frame(scores).shape
        (13, 2)
        """
        rows = list(self.rows(dataset))
        names = dict.fromkeys(name for row in rows for name in row)
        return frames.frame_of({name: [row.get(name) for row in rows] for name in names}, kind)

    def download(self, dataset: str | schemas.Dataset, path: str | Path | None = None) -> Path:
        """Download the bytes as they were uploaded, after decompression; returns where they lie.

        `path` is a file, or a folder for the usual name.

        >>> client.download(scores, "again.csv").read_text().splitlines()[:2]
        ['Quiz,Final', '25.2,30.5']
        """
        found = self.dataset(dataset) if isinstance(dataset, str) else dataset
        return self._connection.download(Call("GET", f"{_path(found)}/content"), path, found.name)

    def retype(self, dataset: str | schemas.Dataset, types: Mapping[str, str]) -> schemas.Dataset:
        """Make a new version whose columns have other types, such as `{"zip": "category"}`.

        >>> made = client.upload({"zip": [10115, 20095], "price": [1.0, 2.0]})
        >>> client.retype(made, {"zip": "category"}).columns[0].type
        'category'
        """
        body = {"columns": {column: {"type": kind} for column, kind in types.items()}}
        answer = self._connection.transport.send(Call("PATCH", _path(dataset), json=body))
        return schemas.Dataset.model_validate_json(answer.content)

    def delete_dataset(self, dataset: str | schemas.Dataset) -> None:
        """Delete a dataset. Raises Conflict while an unfinished run needs it.

        >>> client.delete_dataset(client.upload({"a": [1, 2]}))
        """
        self._connection.transport.send(Call("DELETE", _path(dataset)))


def _path(dataset: str | schemas.Dataset) -> str:
    return f"{API}/datasets/{part(dataset if isinstance(dataset, str) else dataset.id)}"
