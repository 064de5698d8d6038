"""The Python client: upload a table, train on it, follow the run, predict.

>>> from descent import Client
>>> client = Client()  # or Client("http://127.0.0.1:8000", "a key")
>>> scores = client.upload("scores.csv")
>>> line = {"model": {"type": "linear"}, "split": {"type": "none"}, "loss": "mse"}
>>> run = client.train(scores, "Final", **line, register_as="scores")
>>> model = client.model("scores")
>>> round(model.predict({"Quiz": 10.0})[0].value, 1)
13.8

The examples in the documentation of each method go on from here. It knows the contract and nothing
of how the service keeps it.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Self

from descent import schemas
from descent.connection import Connection
from descent.dataset_calls import DatasetCalls
from descent.errors import Unavailable, Unreachable
from descent.model import Model
from descent.run_calls import RunCalls
from descent.transport import API, Call, Transport, part
from descent.uploads import file_content

DEFAULT_URL = "http://127.0.0.1:8000"
PATIENCE = 15.0  # seconds for which a request is repeated while the service cannot be reached


class Client(DatasetCalls, RunCalls):
    """A service at `url`, spoken to with `key`.

    Without arguments both come from DESCENT_URL and DESCENT_API_KEY. Requests that fail for a
    passing reason are repeated for `patience_s` seconds, without doing anything twice. Every
    method raises DescentError, see `descent.errors`. `progress=False` shows no bars.

    >>> with Client(client.url, patience_s=3, progress=False) as quiet:
    ...     quiet.is_ready()
    True
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        patience_s: float = PATIENCE,
        progress: bool = True,
    ) -> None:
        url = url or os.environ.get("DESCENT_URL") or DEFAULT_URL
        key = os.environ.get("DESCENT_API_KEY", "") if key is None else key
        super().__init__(Connection(Transport(url, key, patience_s), progress))

    def __repr__(self) -> str:
        return f"<Client {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections.

        >>> Client(client.url).close()
        """
        self._connection.transport.close()

    @property
    def url(self) -> str:
        return self._connection.transport.url

    # ---- models ----------------------------------------------------------------------------------

    def model(self, name: str, *, version: int | None = None, alias: str | None = None) -> Model:
        """Return a model by its name: its newest version unless one is named.

        >>> client.model("scores", alias="champion")
        <Model scores@champion>
        """
        return Model(self._connection, name, version=version, alias=alias)

    def models(self) -> Iterator[schemas.Model]:
        """Yield all models, newest first.

        >>> "scores" in [model.name for model in client.models()]
        True
        """
        return self._connection.pages(f"{API}/models", {}, schemas.Model.model_validate)

    def import_model(self, source: str | Path | bytes, name: str) -> schemas.ModelVersion:
        """Import a bundle as the next version of the model `name`.

        `source` is a path or the bytes of the file. Raises DescentError with the code
        `golden_mismatch` where the model does not predict what the bundle says.

        >>> bundle = client.model("scores").export("scores.zip")
        >>> client.import_model(bundle, "twin").imported.model
        'scores'
        """
        path = f"{API}/models/{part(name)}/versions"
        headers = {"Content-Type": "application/zip"}
        if isinstance(source, bytes):
            call = Call("POST", path, content=lambda: source, headers=headers)
            return self._imported(call)
        with file_content(Path(source), self._connection.screen, "Importing") as content:
            return self._imported(Call("POST", path, content=content, headers=headers))

    def _imported(self, call: Call) -> schemas.ModelVersion:
        content = self._connection.transport.send(call).content
        return schemas.ModelVersion.model_validate_json(content)

    # ---- the service -----------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether the service can serve now.

        >>> client.is_ready()
        True
        """
        try:
            self._connection.get("/readyz")
        except (Unreachable, Unavailable):
            return False
        return True

    def system(self) -> schemas.System:
        """Return what runs there: version, devices, workers, queue, limits.

        >>> client.system().database
        'sqlite'
        """
        return schemas.System.model_validate_json(self._connection.get(f"{API}/system"))

    def architectures(self) -> list[schemas.Architecture]:
        """Return the types of model that a run may ask for, each with its JSON Schema.

        >>> [architecture.type for architecture in client.architectures()][:2]
        ['linear', 'mlp']
        """
        pages = self._connection.pages(
            f"{API}/architectures", {}, schemas.Architecture.model_validate
        )
        return list(pages)

    def keys(self) -> Iterator[schemas.Key]:
        """Yield the API keys without their secrets, newest first.

        >>> list(client.keys())
        []
        """
        return self._connection.pages(f"{API}/keys", {}, schemas.Key.model_validate)

    def create_key(self, name: str, expires_at: datetime | None = None) -> schemas.KeyCreated:
        """Make an API key; its secret is shown this once. From now on every request needs a key.

        >>> made = client.create_key("a colleague")
        >>> with Client(client.url, made.secret) as keyed:
        ...     print([key.name for key in keyed.keys()])
        ...     keyed.delete_key(made.id)
        ['a colleague']
        """
        body = {"name": name} | ({"expires_at": expires_at.isoformat()} if expires_at else {})
        answer = self._connection.transport.send(Call("POST", f"{API}/keys", json=body))
        return schemas.KeyCreated.model_validate_json(answer.content)

    def delete_key(self, key_id: str) -> None:
        """Revoke an API key; see `create_key`."""
        self._connection.transport.send(Call("DELETE", f"{API}/keys/{part(key_id)}"))
