"""The kinds of job that workers do, in the order in which a worker looks for them.

Each has slots of its own, so that predictions do not wait for trainings of hours.
"""

from typing import Any

from service.batch.kind import BATCHES
from service.datasets.kind import PARSES, SMALL_PARSES
from service.jobs.kind import Kind
from service.proofs.kind import PROOFS
from service.runs.kind import RUNS

KINDS: tuple[Kind[Any], ...] = (SMALL_PARSES, PARSES, RUNS, BATCHES, PROOFS)
