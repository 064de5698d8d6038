"""Suggestions as a kind of job: the input of the process, and the trials that it adds."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.datasets.versions import DatasetVersion
from service.jobs import life, queue
from service.jobs.kind import Kind, Site, Tenure
from service.jobs.pipe import Began, Failure, Heartbeat, Obeyed
from service.storage.database import reading
from service.storage.references import HeldBlob
from service.sweeps import members, steering
from service.sweeps.messages import EndedTrial, Misfit, Suggested, SuggestJob
from service.sweeps.tables import Suggestion, Sweep, Trial

Messages = Annotated[Began | Suggested | Heartbeat | Obeyed | Failure, Field(discriminator="type")]


def prepare(site: Site, job: Suggestion, _scratch: Path) -> SuggestJob:
    """Return the input of the process: the trials before the suggested ones."""
    with reading(site.engine) as session:
        sweep = life.get(session, Sweep, job.sweep_id)
        version = session.get_one(DatasetVersion, (sweep.dataset_id, sweep.dataset_version))
        trials = session.scalars(
            select(Trial)
            .where(Trial.sweep_id == sweep.id, Trial.number < job.first)
            .order_by(Trial.number)
        ).all()
    return SuggestJob(
        run_id=job.id,
        attempt=job.attempt,
        base=sweep.base,
        columns=version.columns,
        rows=version.rows,
        space=sweep.space,
        direction=sweep.metric["direction"],
        seed=sweep.seed,
        trials=[EndedTrial(parameters=each.parameters, value=each.value) for each in trials],
        count=job.count,
    )


def write(session: Session, tenure: Tenure, message: Suggested, _held: HeldBlob | None) -> None:
    """Add the suggested trials to the sweep, unless it has stopped meanwhile."""
    job = queue.hold(session, Suggestion, tenure.job_id, tenure.attempt)
    life.succeed(session, tenure.job_id, tenure.attempt, {})
    sweep = life.lock(session, Sweep, job.sweep_id)
    if sweep.state != "running":
        return
    for number, trial in enumerate(message.trials, start=job.first):
        if isinstance(trial, Misfit):
            _add_misfit(session, sweep, number, trial)
        else:
            members.submit(session, sweep, number, [trial])
    sweep.is_due = True


def _add_misfit(session: Session, sweep: Sweep, number: int, misfit: Misfit) -> None:
    trial = Trial(
        sweep_id=sweep.id,
        number=number,
        parameters=misfit.parameters,
        state="failed",
        state_reason=misfit.problem["code"],
        error=misfit.problem,
        epochs=0,
        rung=0,
    )
    session.add(trial)
    session.flush()
    steering.tell(session, sweep, [trial])


SUGGESTIONS = Kind(
    table=Suggestion,
    module="service.sweeps.suggest",
    slots=lambda _settings: 1,
    claim=lambda session, owner, lease_s: life.claim(session, Suggestion, owner, lease_s=lease_s),
    prepare=prepare,
    messages=TypeAdapter(Messages),
    write=write,
)
