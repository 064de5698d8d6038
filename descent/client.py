"""The Python client: upload a table, train on it, follow the run, predict.

    from descent import Client

    client = Client()
    scores = client.upload("scores.csv")
    run = client.train(scores, "Final", model={"type": "linear"}, register_as="scores").wait()
    client.model("scores").predict({"Quiz": 10.0})[0].value

It knows the contract and nothing of how the service keeps it.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from descent import schemas
from descent.errors import DatasetRejected, Unavailable, Unreachable
from descent.model import Model, Table, table_body
from descent.run import Run
from descent.transport import API, Call, Transport, part

DEFAULT_URL = "http://127.0.0.1:8000"
INGEST_POLL = 0.2  # seconds between two looks at a large file that is being read
PATIENCE = 15.0  # seconds for which a request is repeated while the service cannot be reached
CONTENT_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.file",
    ".feather": "application/vnd.apache.arrow.file",
}

Item = TypeVar("Item", bound=BaseModel)


class Client:
    """A service at `url`, spoken to with `key`.

    Without arguments both come from DESCENT_URL and DESCENT_API_KEY. Requests that fail for a
    passing reason are repeated for `patience_s` seconds, without doing anything twice. Every
    method raises DescentError, see `descent.errors`.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, patience_s: float = PATIENCE
    ) -> None:
        url = url or os.environ.get("DESCENT_URL") or DEFAULT_URL
        key = os.environ.get("DESCENT_API_KEY", "") if key is None else key
        self._transport = Transport(url, key, patience_s)

    def __repr__(self) -> str:
        return f"<Client {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @property
    def url(self) -> str:
        return self._transport.url

    def is_ready(self) -> bool:
        """Whether the service can serve now."""
        try:
            self._transport.send(Call("GET", "/readyz"))
        except (Unreachable, Unavailable):
            return False
        return True

    def system(self) -> schemas.System:
        """Return what runs there: version, devices, workers, queue, limits."""
        return schemas.System.model_validate_json(self._get("/system"))

    # ---- datasets --------------------------------------------------------------------------------

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
        such a file, a dict of columns or a list of rows. `options` are the query options of
        `POST /datasets`, such as `header="absent"`.
        """
        call = _upload_call(source, name, content_type, options)
        dataset = schemas.Dataset.model_validate_json(self._transport.send(call).content)
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
        """Return one dataset."""
        return schemas.Dataset.model_validate_json(self._get(f"/datasets/{part(dataset_id)}"))

    def datasets(self) -> Iterator[schemas.Dataset]:
        """Yield all datasets, newest first."""
        return self._pages("/datasets", {}, schemas.Dataset)

    def retype(self, dataset_id: str, types: Mapping[str, str]) -> schemas.Dataset:
        """Make a new version whose columns have other types, such as `{"zip": "category"}`."""
        body = {"columns": {column: {"type": kind} for column, kind in types.items()}}
        call = Call("PATCH", f"{API}/datasets/{part(dataset_id)}", json=body)
        return schemas.Dataset.model_validate_json(self._transport.send(call).content)

    def delete_dataset(self, dataset_id: str) -> None:
        self._transport.send(Call("DELETE", f"{API}/datasets/{part(dataset_id)}"))

    # ---- runs ------------------------------------------------------------------------------------

    def train(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        **config: Any,  # noqa: ANN401  JSON of many shapes
    ) -> Run:
        """Start a run and return it at once.

        `config` are the further fields of `descent.spec.RunConfig`: `model`, `loss`, `optimizer`,
        `epochs`, `split`, `register_as`, … Each has a default that is a good choice.
        """
        body = _run_body(dataset, target, config)
        answer = self._transport.send(Call("POST", f"{API}/runs", json=body))
        return Run(self._transport, schemas.Run.model_validate_json(answer.content))

    def validate(
        self,
        dataset: str | schemas.Dataset,
        target: str | Sequence[str],
        **config: Any,  # noqa: ANN401  JSON of many shapes
    ) -> schemas.RunPlan:
        """Return the normalised configuration, warnings and an estimate; start nothing."""
        body = _run_body(dataset, target, config)
        answer = self._transport.send(Call("POST", f"{API}/runs/validate", json=body))
        return schemas.RunPlan.model_validate_json(answer.content)

    def run(self, run_id: str) -> Run:
        """Return a run that exists."""
        info = schemas.Run.model_validate_json(self._get(f"/runs/{part(run_id)}"))
        return Run(self._transport, info)

    def runs(self, **filters: str) -> Iterator[Run]:
        """Yield all runs, newest first; `filters` are `state, dataset, model, tag`."""
        for info in self._pages("/runs", filters, schemas.Run):
            yield Run(self._transport, info)

    # ---- models ----------------------------------------------------------------------------------

    def model(self, name: str, *, version: int | None = None, alias: str | None = None) -> Model:
        """Return a model by its name: its newest version unless one is named."""
        return Model(self._transport, name, version=version, alias=alias)

    def models(self) -> Iterator[schemas.Model]:
        """Yield all models, newest first."""
        return self._pages("/models", {}, schemas.Model)

    def import_model(self, source: str | Path | bytes, name: str) -> schemas.ModelVersion:
        """Import a bundle as the next version of the model `name`.

        `source` is a path or the bytes of the file. Raises DescentError with the code
        `golden_mismatch` where the model does not predict what the bundle says.
        """
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        headers = {"Content-Type": "application/zip"}
        path = f"{API}/models/{part(name)}/versions"
        call = Call("POST", path, content=lambda: data, headers=headers)
        return schemas.ModelVersion.model_validate_json(self._transport.send(call).content)

    def _get(self, path: str, params: Mapping[str, str | int | None] | None = None) -> bytes:
        return self._transport.send(Call("GET", f"{API}{path}", params=params or {})).content

    def _pages(self, path: str, params: Mapping[str, str], kind: type[Item]) -> Iterator[Item]:
        after: str | None = None
        while True:
            page = json.loads(self._get(path, {**params, "limit": 200, "after": after}))
            yield from map(kind.model_validate, page["data"])
            if not page["has_more"]:
                return
            after = page["next_cursor"]


def _run_body(
    dataset: str | schemas.Dataset, target: str | Sequence[str], config: Mapping[str, Any]
) -> dict[str, Any]:
    body = {
        "dataset": dataset if isinstance(dataset, str) else dataset.id,
        "target": target if isinstance(target, str) else list(target),
    }
    fields = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in config.items()
    }
    return body | fields


def _upload_call(
    source: str | Path | bytes | Table,
    name: str | None,
    content_type: str | None,
    options: Mapping[str, str],
) -> Call:
    headers: dict[str, str] = {}
    path = f"{API}/datasets"
    if isinstance(source, str | Path):
        file = Path(source)
        suffixes = [suffix.lower() for suffix in file.suffixes]
        if suffixes[-1:] == [".gz"]:
            headers["Content-Encoding"] = "gzip"
            suffixes.pop()
        kind = content_type or CONTENT_TYPES.get(suffixes[-1] if suffixes else "", "text/csv")
        params = {"name": name or file.name.split(".")[0], **options}
        headers["Content-Type"] = kind
        return Call("POST", path, params=params, content=lambda: file.open("rb"), headers=headers)
    if isinstance(source, bytes):
        headers["Content-Type"] = content_type or "text/csv"
        params = {"name": name or "dataset", **options}
        return Call("POST", path, params=params, content=lambda: source, headers=headers)
    return Call(
        "POST", path, params=options, json={"name": name or "dataset", **table_body(source)}
    )
