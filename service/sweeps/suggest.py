"""The process that suggests trials: a sampler of Optuna, built again from the stored trials.

The same trials and the same seed give the same suggestions, so a repeated attempt changes nothing.
"""

import hashlib
import socket
from typing import Any

from models.errors import LearningError
from models.failpoints import reach
from service.errors import Invalid
from service.jobs.pipe import Began, Channel, last_message
from service.sweeps.messages import MISSING, Member, Misfit, Suggested, SuggestJob
from service.sweeps.plan import make_member
from service.sweeps.space import Parameters, rounded, values_of

try:
    import optuna
except ModuleNotFoundError:  # it is in the extra `sweeps`
    optuna = None  # type: ignore[assignment]


class SamplerUnavailable(LearningError):
    """This worker has no sampler."""

    code = "sampler_unavailable"


def suggest(job: SuggestJob) -> list[Parameters]:
    """Return the parameters of the next trials. Raises SamplerUnavailable without Optuna."""
    if optuna is None:
        raise SamplerUnavailable(MISSING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {path: _distribution(each) for path, each in job.space.items()}
    sampler = optuna.samplers.TPESampler(seed=_seed(job), n_startup_trials=min(len(job.trials), 10))
    study = optuna.create_study(
        sampler=sampler, direction="maximize" if job.direction == "max" else "minimize"
    )
    states = optuna.trial.TrialState
    for trial in job.trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=states.FAIL if trial.value is None else states.COMPLETE,
                value=trial.value,
                params=_encoded(job.space, trial.parameters),
                distributions=distributions,
            )
        )
    # Trials that are asked for but not yet told keep later ones of the same call away from them.
    asked = [study.ask(distributions).params for _ in range(job.count)]
    return [_decoded(job.space, params) for params in asked]


def _seed(job: SuggestJob) -> int:
    digest = hashlib.sha256(f"{job.seed}:{len(job.trials)}".encode()).digest()
    return int.from_bytes(digest[:4])


def _distribution(dimension: dict[str, Any]) -> "optuna.distributions.BaseDistribution":
    """Return the distribution of a dimension; listed values are numbered, since they may be lists.

    >>> _distribution({"int": [1, 5]})
    IntDistribution(high=5, log=False, low=1, step=1)
    """
    if (values := values_of(dimension)) is not None:
        return optuna.distributions.CategoricalDistribution(range(len(values)))
    kind, (low, high) = next(iter(dimension.items()))
    if kind == "int":
        return optuna.distributions.IntDistribution(low, high)
    return optuna.distributions.FloatDistribution(low, high, log=kind == "log_uniform")


def _encoded(space: dict[str, dict[str, Any]], parameters: Parameters) -> Parameters:
    return {
        path: parameters[path]
        if (values := values_of(each)) is None
        else _index(values, path, parameters)
        for path, each in space.items()
    }


def _index(values: list[Any], path: str, parameters: Parameters) -> int:
    # 1 and True are equal, but are different values of a configuration.
    value = parameters[path]
    return next(i for i, each in enumerate(values) if each == value and type(each) is type(value))


def _decoded(space: dict[str, dict[str, Any]], params: Parameters) -> Parameters:
    found = {}
    for path, dimension in space.items():
        value = params[path]
        if (values := values_of(dimension)) is not None:
            value = values[value]
        elif "int" not in dimension:
            value = rounded(value, *next(iter(dimension.values())))
        found[path] = value
    return found


def main(end: socket.socket, job: str) -> None:
    """Run one attempt to its end."""
    channel = Channel(end)
    reach("sampler.begin")
    with last_message(channel, "suggestion"):
        channel.send(Began())
        asked = SuggestJob.model_validate_json(job)
        trials = [_planned(asked, parameters) for parameters in suggest(asked)]
        channel.send(Suggested(trials=trials))


def _planned(job: SuggestJob, parameters: Parameters) -> Member | Misfit:
    try:
        return make_member(job.base, parameters, job.columns, job.rows)[0]
    except Invalid as error:
        return Misfit(parameters, error.problem())
