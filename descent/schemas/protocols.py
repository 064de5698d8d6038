"""Bodies of other projects' protocols: MLflow's scoring and the Open Inference Protocol.

The client does not load this module.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from descent.fields import WHOLE, Strict
from descent.schemas.common import Notice, Scalar, Wire

MAX_TENSORS = 10_000  # of one request; this also limits the length of the error response

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]
#: accepted wherever the protocol has them; the service reads those of the binary data extension
TensorParameters = dict[str, bool | int | float | str]


# ---- MLflow, at `/invocations` and the predict routes -------------------------------------------


class SplitTable(Strict):
    """A table in pandas' `split` layout. Without `columns`, the model's columns in order."""

    data: list[list[Scalar]]
    columns: list[str] | None = None
    #: ignored
    index: list[Any] | None = None


class ScoringRequest(Strict):
    """A table in one of MLflow's four layouts. NaN is a missing value."""

    dataframe_split: SplitTable | None = None
    dataframe_records: list[dict[str, Scalar]] | None = None
    #: rows: objects, lists in the order of the model's columns, or values of a single column
    instances: list[Any] | None = None
    #: lists by column, or rows as in `instances`
    inputs: dict[str, Any] | list[Any] | None = None
    #: ignored, with a warning
    params: dict[str, Any] | None = None


class RowsNotice(Notice):
    """A warning or an error of some rows, which are counted from 0."""

    rows: list[int] | None = None


class Scores(Wire):
    """The response to an MLflow body: plain values, in order."""

    model: str | None = None
    version: int | None = None
    #: an object by target for several targets; null for a row in `errors`
    predictions: list[Scalar | dict[str, Scalar]]
    warnings: list[RowsNotice] | None = None
    errors: list[RowsNotice] | None = None


# ---- the Open Inference Protocol: tensors, one per column ---------------------------------------


class InputTensor(Strict):
    """The values of one column."""

    name: str
    #: `[rows]` or `[rows, 1]`
    shape: Annotated[list[Annotated[int, Field(ge=0), WHOLE]], Field(min_length=1, max_length=2)]
    datatype: Datatype
    #: null and NaN are missing values; absent if the values follow the JSON document as
    #: `parameters.binary_data_size` raw bytes
    data: list[Any] | None = None
    parameters: TensorParameters | None = None


class WantedTensor(Strict):
    """A tensor that the client requests."""

    name: str
    #: `binary_data` asks for raw bytes
    parameters: TensorParameters | None = None


class InferRequest(Strict):
    """The input columns, and optionally the outputs that the client wants."""

    id: str | None = None
    inputs: Annotated[list[InputTensor], Field(max_length=MAX_TENSORS)]
    #: all outputs if absent
    outputs: Annotated[list[WantedTensor], Field(max_length=MAX_TENSORS)] | None = None
    #: `binary_data_output` asks for raw bytes in all outputs
    parameters: TensorParameters | None = None


class OutputTensor(Wire):
    """The predictions of all rows: the values of one target, or its classes' probabilities."""

    name: str
    datatype: Datatype
    shape: list[int]
    #: absent if the values are `parameters.binary_data_size` raw bytes
    data: list[Any] | None = None
    parameters: TensorParameters | None = None


class InferAnswer(Wire):
    """The predictions, with one value per row in each tensor."""

    model_name: str
    model_version: str
    id: str | None = None
    #: `warnings` and `errors` of rows: JSON text, a list of objects with code, column and rows
    parameters: TensorParameters | None = None
    outputs: list[OutputTensor]
