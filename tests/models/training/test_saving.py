from pathlib import Path

from descent.spec import RunConfig
from models.training.dataset import TrainingInput
from models.training.interface import Finished, Noted, Saved, StopReason, TrainingEvent
from models.training.loop import train
from tests.disk import fill, small_disk
from tests.models.samples import LINE, scores


def job_on(disk: Path) -> TrainingInput:
    config = RunConfig.model_validate(LINE | {"epochs": 400})
    scratch = disk / "scratch"
    scratch.mkdir()
    return TrainingInput(
        config=config, table=scores(), scratch=scratch, poll_s=0, checkpoint_s=0.001
    )


def test_a_training_puts_checkpoints_off_on_a_full_disk_and_waits_for_the_last(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        job = job_on(disk)
        ballast = fill(disk)
        codes, told = [], []
        for event in train(job, lambda: None):
            told.append(event)
            if isinstance(event, Noted):
                codes.append(event.code)
                if event.code == "checkpoint_waits":
                    ballast.unlink()
        assert set(codes) == {"checkpoint_skipped", "checkpoint_waits"}
        assert codes.count("checkpoint_waits") == 1
        saved = [event for event in told if isinstance(event, Saved)]
        assert [event.is_best for event in saved] == [True]
        assert isinstance(told[-1], Finished)
        assert [path.name for path in job.scratch.iterdir()] == [saved[0].path.name]


def test_a_cancel_ends_a_training_that_waits_for_space(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        job = job_on(disk)
        fill(disk)
        told: list[TrainingEvent] = []

        def should_stop() -> StopReason | None:
            waits = any(isinstance(e, Noted) and e.code == "checkpoint_waits" for e in told)
            return "cancel" if waits else None

        for event in train(job, should_stop):
            told.append(event)  # noqa: PERF402  `should_stop` looks at it meanwhile
        assert told[-1] == Finished("cancel", None)
