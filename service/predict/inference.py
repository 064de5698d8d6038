"""The parts that predict in this process, together."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from service.predict.cache import Predictors
from service.predict.directory import Directory
from service.predict.executor import PredictionExecutor
from service.predict.files import Files
from service.predict.texts import ForeignBodies
from service.predict.traffic import Traffic
from service.settings import Settings


@dataclass(frozen=True)
class Inference:
    """What answers predictions. One per process."""

    settings: Settings
    engine: Engine
    predictors: Predictors
    directory: Directory
    traffic: Traffic
    files: Files
    executor: PredictionExecutor
    #: how the clients of another server write their rows
    foreign: ForeignBodies


def inference(request: Request) -> Inference:
    found: Inference = request.app.state.inference
    return found


InferenceDep = Annotated[Inference, Depends(inference)]
