"""A trained model on the client's side: predictions, versions, aliases and export."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from descent import schemas
from descent.errors import DescentError, NotFound
from descent.predictions import Predictions, Table, predict
from descent.transport import API, ApiCall, Connection, part

_PARAMETERS: TypeAdapter[schemas.Parameters | dict[str, schemas.Parameters]] = TypeAdapter(
    schemas.Parameters | dict[str, schemas.Parameters]
)


class Model:
    """A trained model by its name: its newest version, or a given version or alias.

    >>> model = client.model("scores")
    >>> model.predict({"Quiz": 10.0})[0].value > 13
    True
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        *,
        version: int | None = None,
        alias: str | None = None,
    ) -> None:
        self._connection = connection
        self.name = name
        self._version = version
        self._alias = alias

    def __repr__(self) -> str:
        chosen = self._version or self._alias
        return f"<Model {self.name}@{chosen}>" if chosen else f"<Model {self.name}>"

    # ---- predictions -----------------------------------------------------------------------------

    def predict(
        self, table: Table, *, on_problem: str = "warn", interval: float | None = None
    ) -> Predictions:
        """Return one prediction for each row, in order.

        `table` is one row, a list of rows, columns, or a pandas or polars DataFrame of any size;
        one version answers all of it. It may also be the path of a file, which is sent in one
        request; for larger files there is `Client.predict_dataset`.

        A missing column, an unknown category or a value of the wrong type gives a warning, or
        with `on_problem="error"` an error in place of the row's prediction.

        `interval`, from 0.5 to 0.99, adds to each prediction an interval, or a set of classes,
        that holds the true value in at least that share of the rows. Raises Conflict if the model
        was made without rows that tell, and InvalidRequest if these rows are too few.

        >>> model.predict([{"Quiz": 10.0}, {"Quiz": None}])[1].warnings[0].code
        'missing'
        >>> len(model.predict("scores.csv"))
        13
        >>> import pandas
        >>> frame = pandas.DataFrame({"Quiz": [10.0, 20.0]})
        >>> frame["Final"] = model.predict(frame).values
        >>> frame["Final"].round(1).tolist()
        [13.8, 26.9]
        """
        transport = self._connection.transport
        return predict(transport, self._path(), "/predict", table, on_problem, interval)

    def parameters(self, target: str | None = None) -> schemas.Parameters:
        """Return the weights and the bias of a linear model in the columns' own units.

        For a model with several targets or classes, `target` selects one. Raises DescentError if
        it is missing then, and NotFound if the model has no such target.

        >>> round(model.parameters().weights["Quiz"], 2)
        1.31
        """
        content = self._connection.get(f"{self._version_path()}/parameters")
        found = _PARAMETERS.validate_json(content)
        if isinstance(found, schemas.Parameters):
            found = {target or "": found}
        name = next(iter(found)) if target is None and len(found) == 1 else target
        if name in found:
            return found[name]
        targets = f"the model {self.name!r} has parameters of {', '.join(map(repr, found))}"
        if name is None:
            raise DescentError("several_targets", f"{targets}: name one of them")
        raise NotFound("not_found", f"{targets}, none of {name!r}")

    # ---- versions --------------------------------------------------------------------------------

    def info(self) -> schemas.ModelVersion:
        """Return the version with its signature, metrics and lineage.

        >>> [column.name for column in model.info().signature.inputs]
        ['Quiz']
        """
        return schemas.ModelVersion.model_validate_json(self._connection.get(self._version_path()))

    def versions(self) -> Iterator[schemas.ModelVersion]:
        """Yield all versions of the model, newest first.

        >>> [version.version for version in model.versions()]
        [2, 1]
        """
        return self._connection.pages(
            f"{self._name_path()}/versions", {}, schemas.ModelVersion.model_validate
        )

    def delete(self) -> None:
        """Delete the chosen version, or the whole model if no version or alias was given.

        Raises Conflict if an alias points to the version. Deleting a model deletes its aliases.

        >>> client.model("outdated", version=1).delete()
        """
        chosen = self._version is not None or self._alias is not None
        path = self._version_path() if chosen else self._name_path()
        self._connection.transport.send(ApiCall("DELETE", path))

    def export(
        self, path: str | Path | None = None, *, kind: Literal["bundle", "onnx"] = "bundle"
    ) -> Path:
        """Download the version as a file for use elsewhere, and return its path.

        A bundle is a ZIP file for `Client.import_model`. It also holds a script that predicts
        without Descent. `path` is a file, or a folder in which the file is NAME-VERSION.zip.

        >>> client.model("scores", version=1).export("exported.onnx", kind="onnx").name
        'exported.onnx'
        """
        version_path = self._version_path()
        suffix = {"bundle": "zip", "onnx": "onnx"}[kind]
        name = f"{self.name}-{version_path.rpartition('/')[2]}.{suffix}"
        call = ApiCall("GET", f"{version_path}/artifact", params={"format": kind})
        return self._connection.download(call, path, name)

    # ---- aliases ---------------------------------------------------------------------------------

    def aliases(self) -> Iterator[schemas.Alias]:
        """Yield the aliases of the model, each with its version, canary and shadow.

        >>> [(alias.alias, alias.version) for alias in model.aliases()]
        [('champion', 1)]
        """
        return self._connection.pages(
            f"{self._name_path()}/aliases", {}, schemas.Alias.model_validate
        )

    def set_alias(
        self,
        alias: str,
        version: int,
        *,
        canary: int | None = None,
        percent: float = 5.0,
        shadow: int | None = None,
    ) -> schemas.Alias:
        """Point an alias of this model to a version; a new alias is created.

        The version `canary` answers `percent` of the requests. The version `shadow` gets copies of
        the requests, and its answers are only compared. Raises Conflict if another client moves
        the alias at the same time, or if the stored bytes of a version are damaged.

        >>> model.set_alias("champion", 1, canary=2, percent=10).canary.percent
        10.0
        >>> client.model("scores", alias="champion").predict({"Quiz": 10.0}).version in {1, 2}
        True
        """
        path = self._alias_path(alias)
        try:
            answer = self._connection.transport.send(ApiCall("GET", path))
            headers = {"If-Match": answer.headers["etag"]}
        except NotFound:
            headers = {}
        body: dict[str, Any] = {"version": version}
        if canary is not None:
            body["canary"] = {"version": canary, "percent": percent}
        if shadow is not None:
            body["shadow"] = {"version": shadow}
        answer = self._connection.transport.send(ApiCall("PUT", path, json=body, headers=headers))
        return schemas.Alias.model_validate_json(answer.content)

    def rollback(self, alias: str) -> schemas.Alias:
        """Undo the latest move of an alias; each further call undoes one more.

        The alias then has no canary and no shadow. Raises Conflict if no earlier move is left.

        >>> model.set_alias("champion", 2).version
        2
        >>> model.rollback("champion").version
        1
        """
        answer = self._connection.transport.send(
            ApiCall("POST", self._alias_path(alias, "/rollback"))
        )
        return schemas.Alias.model_validate_json(answer.content)

    def history(self, alias: str) -> Iterator[schemas.AliasMove]:
        """Yield the moves of an alias, newest first.

        >>> [(move.how, move.version) for move in model.history("champion")][:2]
        [('rollback', 1), ('put', 2)]
        """
        path = self._alias_path(alias, "/history")
        return self._connection.pages(path, {}, schemas.AliasMove.model_validate)

    def delete_alias(self, alias: str) -> None:
        """Delete an alias; its versions stay.

        >>> model.set_alias("challenger", 2).alias
        'challenger'
        >>> model.delete_alias("challenger")
        """
        self._connection.transport.send(ApiCall("DELETE", self._alias_path(alias)))

    # ---- paths -----------------------------------------------------------------------------------

    def reference(self) -> dict[str, Any]:
        """Return the reference to this model for the body of a request.

        >>> client.model("scores", version=1).reference()
        {'name': 'scores', 'version': 1}
        """
        chosen = {"version": self._version, "alias": self._alias}
        return {"name": self.name} | {key: value for key, value in chosen.items() if value}

    def _name_path(self) -> str:
        return f"{API}/models/{part(self.name)}"

    def _alias_path(self, alias: str, rest: str = "") -> str:
        return f"{self._name_path()}/aliases/{part(alias)}{rest}"

    def _version_path(self) -> str:
        version = self._version
        if version is None:
            content = self._connection.get(self._name_path())
            model = schemas.Model.model_validate_json(content)
            version = model.aliases.get(self._alias) if self._alias else model.latest_version
        if version is None:
            lacks = f"alias {self._alias!r}" if self._alias else "version"
            raise NotFound("not_found", f"the model {self.name!r} has no {lacks}")
        return f"{self._name_path()}/versions/{version}"

    def _path(self) -> str:
        if self._version is not None:
            return f"{self._name_path()}/versions/{self._version}"
        return self._alias_path(self._alias) if self._alias is not None else self._name_path()
