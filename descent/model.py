"""A trained model as the client sees it: predictions, signature, parameters."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from descent import schemas
from descent.errors import DescentError, NotFound
from descent.transport import API, Call, Transport, part

#: One row, several rows, or columns.
Table = Mapping[str, Any] | Sequence[Mapping[str, Any]]
_PARAMETERS: TypeAdapter[schemas.Parameters | dict[str, schemas.Parameters]] = TypeAdapter(
    schemas.Parameters | dict[str, schemas.Parameters]
)


class Model:
    """A trained model by its name; its newest version unless one is named."""

    def __init__(
        self, transport: Transport, name: str, *, version: int | None, alias: str | None = None
    ) -> None:
        self._transport = transport
        self.name = name
        self._version = version
        self._alias = alias

    def __repr__(self) -> str:
        chosen = self._version or self._alias
        return f"<Model {self.name}@{chosen}>" if chosen else f"<Model {self.name}>"

    def predict(self, table: Table, *, on_problem: str = "warn") -> list[schemas.Prediction]:
        """Return one prediction for each row, in order.

        `table` is one row (`{"Quiz": 10.0}`), a list of rows, or columns
        (`{"Quiz": [10.0, 12.5]}`).
        A missing column, an unknown category or a value of the wrong type is a warning, or with
        `on_problem="error"` an error of its row.
        """
        return predict(self._transport, self._path("/predict"), table, on_problem)

    def info(self) -> schemas.ModelVersion:
        """Return the version with its signature, metrics and lineage."""
        answer = self._transport.send(Call("GET", self._version_path()))
        return schemas.ModelVersion.model_validate_json(answer.content)

    def parameters(self, target: str | None = None) -> schemas.Parameters:
        """Return weights and bias of a linear model in the columns' own units.

        Where it has several targets or classes, `target` says whose. Raises DescentError where
        that is left out, and NotFound for one that the model does not have.
        """
        answer = self._transport.send(Call("GET", f"{self._version_path()}/parameters"))
        found = _PARAMETERS.validate_json(answer.content)
        if isinstance(found, schemas.Parameters):
            found = {target or "": found}
        name = next(iter(found)) if target is None and len(found) == 1 else target
        if name in found:
            return found[name]
        targets = f"the model {self.name!r} has parameters of {', '.join(map(repr, found))}"
        if name is None:
            raise DescentError("several_targets", f"{targets}: name one of them")
        raise NotFound("not_found", f"{targets}, none of {name!r}")

    def export(
        self, path: str | Path | None = None, *, kind: Literal["bundle", "onnx"] = "bundle"
    ) -> Path:
        """Download the version to take it elsewhere; returns where it lies.

        A bundle is a ZIP file that `Client.import_model` and another Descent read, and that holds
        a script which predicts without Descent. `path` is a file, or a folder for its usual name.
        """
        version_path = self._version_path()
        suffix = {"bundle": "zip", "onnx": "onnx"}[kind]
        name = f"{self.name}-{version_path.rpartition('/')[2]}.{suffix}"
        target = Path(path or ".")
        target = target / name if target.is_dir() else target
        call = Call("GET", f"{version_path}/artifact", params={"format": kind})
        target.write_bytes(self._transport.send(call).content)
        return target

    def _version_path(self) -> str:
        version = self._version
        if version is None:
            path = f"{API}/models/{part(self.name)}"
            answer = self._transport.send(Call("GET", path))
            model = schemas.Model.model_validate_json(answer.content)
            version = model.aliases.get(self._alias) if self._alias else model.latest_version
        if version is None:
            lacks = f"alias {self._alias!r}" if self._alias else "version"
            raise NotFound("not_found", f"the model {self.name!r} has no {lacks}")
        return f"{API}/models/{part(self.name)}/versions/{version}"

    def _path(self, rest: str) -> str:
        path = f"{API}/models/{part(self.name)}"
        if self._version is not None:
            path += f"/versions/{self._version}"
        elif self._alias is not None:
            path += f"/aliases/{part(self._alias)}"
        return path + rest


def predict(
    transport: Transport, path: str, table: Table, on_problem: str
) -> list[schemas.Prediction]:
    call = Call("POST", path, params={"on_problem": on_problem}, json=table_body(table))
    answer = schemas.Predictions.model_validate_json(transport.send(call).content)
    return answer.predictions


def table_body(table: Table) -> dict[str, Any]:
    """Return the table as the service reads it; NaN, as pandas marks it, is a missing value."""
    if not isinstance(table, Mapping):
        return {"rows": [_row(row) for row in table]}
    if table and all(isinstance(values, list | tuple) for values in table.values()):
        return {"columns": {name: list(map(_value, values)) for name, values in table.items()}}
    return {"rows": [_row(table)]}


def _row(row: Mapping[str, Any]) -> Any:  # noqa: ANN401  what is no row the service refuses
    return {k: _value(v) for k, v in row.items()} if isinstance(row, Mapping) else row


def _value(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value
