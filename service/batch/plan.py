"""What a batch prediction will do: its model and dataset found, and its columns named."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from descent.schemas import BatchPredictionRequest, ModelRef
from descent.spec import DatasetRef
from service.batch.lifecycle import Body, Order
from service.datasets.names import free_name, listed
from service.datasets.tables import Dataset, DatasetVersion
from service.datasets.versions import ready_version
from service.errors import Invalid, invalid_at
from service.registry import versions
from service.registry.tables import ModelVersion


def make_order(session: Session, asked: BatchPredictionRequest, most_columns: int) -> Order:
    """Return what is asked for; raise NotFound, Conflict or Invalid where it cannot be done.

    Model and dataset are locked until the transaction ends: they stay until the job is there.
    """
    model = asked.model if isinstance(asked.model, ModelRef) else ModelRef(name=asked.model)
    versions.find_model(session, model.name, lock=True)
    version = versions.find_version(session, model.name, _number(session, model))
    wanted = asked.dataset
    wanted = wanted if isinstance(wanted, DatasetRef) else DatasetRef(id=wanted)
    dataset = ready_version(session, wanted.id, wanted.version)
    name = session.get_one(Dataset, wanted.id).name
    return Order(
        name=asked.name or f"{name} predicted by {model.name} {version.version}",
        on_problem=asked.on_problem,
        dataset=dataset,
        model=model.name,
        version=version.version,
        alias=model.alias,
        ignored=ignored(version, dataset),
        added=added(version, dataset, most_columns),
    )


def _number(session: Session, model: ModelRef) -> int:
    if model.version is not None:
        return model.version
    if model.alias is not None:
        return versions.find_alias(session, model.name, model.alias).version
    number: int = versions.target_of_model(session, model.name).named["version"]
    return number


def added(model: ModelVersion, dataset: DatasetVersion, most: int) -> list[Body]:
    """Return the new columns under names that no column of the dataset has."""
    taken = {column["name"] for column in dataset.columns}
    found = []
    for column in _wanted(model):
        column["name"] = free_name(column["name"], taken)
        taken.add(column["name"])
        found.append(column)
    if len(taken) > most:
        detail = (
            f"The result would have {len(taken)} columns, more than {most}: raise"
            " DESCENT_MAX_COLUMNS, or predict for a table with fewer."
        )
        raise Invalid(detail, code="too_many_columns")
    return found


def ignored(model: ModelVersion, dataset: DatasetVersion) -> list[str]:
    """Return the columns that the model does not read; raise Invalid where it reads none."""
    inputs = {column["name"] for column in model.signature["inputs"]}
    names = [column["name"] for column in dataset.columns]
    rest = [name for name in names if name not in inputs]
    if len(rest) == len(names):
        detail = (
            f"The dataset has no column that the model reads, which are {listed(sorted(inputs))}."
        )
        raise invalid_at("/dataset", "no_inputs", detail)
    return rest


def _wanted(model: ModelVersion) -> Iterator[Body]:
    why = f"predicted by version {model.version} of {model.model_name}"
    outputs = model.signature["outputs"]
    for output in outputs:
        name = "prediction" if len(outputs) == 1 else f"prediction.{output['name']}"
        yield {
            "name": name,
            "holds": "prediction",
            "target": output["name"],
            "type": output["type"],
            "why": why,
        }
        for label in output.get("classes") or []:
            text = ("false", "true")[label] if isinstance(label, bool) else str(label)
            yield {
                "name": f"probability.{text}",
                "holds": "probability",
                "target": output["name"],
                "class": label,
                "type": "number",
                "why": why,
            }
    yield {"name": "warnings", "holds": "warnings", "type": "text", "why": why}
    yield {"name": "error", "holds": "error", "type": "text", "why": why}
