"""A workplace for batch predictions with a model that a worker has trained."""

from dataclasses import dataclass
from typing import Any

from descent.schemas import BatchPredictionRequest
from service.batch import lifecycle
from service.batch.lifecycle import BatchPrediction, make_order
from service.datasets.versions import Dataset
from service.jobs import life
from service.storage.database import reading, writing
from tests.service.worker.workplace import Workplace, until

ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Desk:
    """Batch predictions of a workplace."""

    workplace: Workplace

    def train(self) -> None:
        """Train the model `line`, which reads `x`."""
        run = self.workplace.submit(self.workplace.add_dataset(), epochs=5, register_as="line")
        assert self.workplace.wait_for(run, *ENDED).state == "succeeded"

    def submit(self, dataset: str, **asked: Any) -> str:
        request = BatchPredictionRequest(model="line", dataset=dataset, **asked)
        with writing(self.workplace.engine) as session:
            return lifecycle.submit(session, make_order(session, request, 10_000)).id

    def cancel(self, job_id: str) -> None:
        with writing(self.workplace.engine) as session:
            life.cancel(session, BatchPrediction, job_id)

    def job(self, job_id: str) -> BatchPrediction:
        with reading(self.workplace.engine) as session:
            return life.get(session, BatchPrediction, job_id)

    def chunks(self, job_id: str) -> int:
        with reading(self.workplace.engine) as session:
            return len(lifecycle.chunks_of(session, job_id))

    def wait_for(self, job_id: str, *states: str, timeout_s: float = 60.0) -> BatchPrediction:
        until(lambda: self.job(job_id).state in states, timeout_s)
        return self.job(job_id)

    def result(self, job_id: str) -> str:
        """Return the digest of the result of a job that succeeds."""
        job = self.wait_for(job_id, *ENDED)
        assert (job.state, job.error) == ("succeeded", None)
        with reading(self.workplace.engine) as session:
            digest = session.get_one(Dataset, job.result_id).sha256
        assert digest is not None
        return digest
