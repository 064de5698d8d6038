"""The kinds of work that a supervisor does, in the order in which it looks for them.

Each has slots of its own, so that predictions do not wait for trainings of hours.
"""

from service.batch import handout as batch_handout
from service.batch import lifecycle as batch_lifecycle
from service.batch import reports as batch_reports
from service.jobs import handout, reports
from service.jobs.tables import BatchPrediction, Proof
from service.jobs.work import Work
from service.proofs import handout as proof_handout
from service.proofs import lifecycle as proof_lifecycle
from service.proofs import reports as proof_reports
from service.runs import lifecycle
from service.tables import Run

RUNS = Work(
    table=Run,
    slots=lambda settings: settings.workers,
    claim=lambda session, owner, lease_s: lifecycle.claim(session, owner, lease_s=lease_s),
    make_job=handout.make_job,
    write=reports.write,
    stored=frozenset({"checkpoint"}),
)
BATCHES = Work(
    table=BatchPrediction,
    slots=lambda _settings: 1,
    claim=batch_lifecycle.claim,
    make_job=batch_handout.make_job,
    write=batch_reports.write,
    stored=frozenset({"chunk", "finished"}),
)
PROOFS = Work(
    table=Proof,
    slots=lambda _settings: 1,
    claim=proof_lifecycle.claim,
    make_job=proof_handout.make_job,
    write=proof_reports.write,
    stored=frozenset(),
)
WORKS = (RUNS, BATCHES, PROOFS)
