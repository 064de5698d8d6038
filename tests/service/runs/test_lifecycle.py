from datetime import timedelta

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from service.errors import Conflict, NotFound
from service.jobs import events, life, queue
from service.runs import lifecycle, metrics
from service.runs.representation import run_body
from service.runs.tables import Checkpoint, Event, Run
from service.storage.columns import utc_now
from service.storage.database import reading, writing
from tests.service.rows import add_dataset, add_run, checkpoint_at, metric_rows

pytestmark = pytest.mark.both_databases

LEASE = 20.0


def start(session: Session, run_id: str, owner: str = "w1", now: float = 0.0) -> Run:
    run = lifecycle.claim(session, owner, lease_s=LEASE, now=now)
    assert run is not None
    assert run.id == run_id
    lifecycle.started(session, run.id, run.attempt, {"device": "cpu"})
    return lifecycle.get(session, run_id)


def test_terminal_states_lead_nowhere() -> None:
    assert {"succeeded", "failed", "cancelled"} == lifecycle.TERMINAL


def test_every_target_of_a_transition_is_a_state() -> None:
    targets = set().union(*lifecycle.TRANSITIONS.values())
    assert targets <= set(lifecycle.TRANSITIONS)


def test_a_submitted_run_is_queued_with_its_first_event(engine: Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        found = events.after(session, Event, run.id, 0, 10)
    assert run.state == "queued"
    assert [(event.seq, event.kind, event.data) for event in found] == [
        (1, "state", {"state": "queued"})
    ]


def test_a_claim_starts_a_new_attempt(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
    assert (run.state, run.attempt, run.owner) == ("running", 1, "w1")


def test_a_run_is_claimed_once(engine: Engine) -> None:
    with writing(engine) as session:
        add_run(session)
        assert lifecycle.claim(session, "w1", lease_s=LEASE, now=0.0) is not None
        assert lifecycle.claim(session, "w2", lease_s=LEASE, now=0.0) is None


def test_runs_start_in_the_order_of_their_submission(engine: Engine) -> None:
    with writing(engine) as session:
        dataset = add_dataset(session)
        submitted = [add_run(session, dataset).id for _ in range(3)]
        claimed = [lifecycle.claim(session, "w1", lease_s=LEASE, now=0.0) for _ in range(3)]
    assert [run.id for run in claimed if run] == submitted


def test_an_expired_lease_gives_the_run_back_to_the_queue(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=0.0)
        assert not lifecycle.rescue(session, run.id, 1, now=LEASE - 1)
        assert lifecycle.rescue(session, run.id, 1, now=LEASE + 1)
        rescued = lifecycle.get(session, run.id)
    assert (rescued.state, rescued.state_reason, rescued.owner) == ("queued", "worker_lost", None)


def test_a_lease_of_an_earlier_boot_is_void(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=0.0)
        run.boot_id = "the boot before"
        session.flush()
        assert lifecycle.rescue(session, run.id, 1, now=1.0)


def test_a_beat_keeps_the_lease(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=0.0)
        held = queue.beat(session, "w1", {run.id: 1}, lease_s=LEASE, now=15.0)
        assert held == {run.id: "running"}
        assert not lifecycle.rescue(session, run.id, 1, now=LEASE + 1)


def test_a_beat_of_a_stranger_renews_nothing(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=0.0)
        assert queue.beat(session, "w2", {run.id: 1}, lease_s=LEASE, now=15.0) == {}


def test_a_queued_run_is_cancelled_at_once(engine: Engine) -> None:
    with writing(engine) as session:
        run, changed = lifecycle.cancel(session, add_run(session).id)
        last = events.after(session, Event, run.id, 0, 10)[-1]
    assert (run.state, changed) == ("cancelled", True)
    assert run.finished_at is not None
    assert last.kind == "end"


def test_a_running_run_is_asked_to_cancel(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
        run, changed = lifecycle.cancel(session, run.id)
        assert (run.state, changed) == ("cancelling", True)
        lifecycle.stopped(session, run.id, run.attempt)
        assert lifecycle.get(session, run.id).state == "cancelled"


def test_cancelling_twice_changes_nothing(engine: Engine) -> None:
    with writing(engine) as session:
        run_id = start(session, add_run(session).id).id
        lifecycle.cancel(session, run_id)
        assert lifecycle.cancel(session, run_id)[1] is False


def test_a_finished_run_cannot_be_cancelled(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
        lifecycle.succeed(session, run.id, run.attempt, {})
        with pytest.raises(Conflict) as caught:
            lifecycle.cancel(session, run.id)
    assert caught.value.fields == {"state": "succeeded", "allowed": []}


def test_success_that_was_committed_beats_a_cancel(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
        lifecycle.cancel(session, run.id)
        lifecycle.succeed(session, run.id, run.attempt, {})
        assert lifecycle.get(session, run.id).state == "succeeded"


def test_a_cancelled_run_whose_worker_is_lost_ends(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=0.0)
        lifecycle.cancel(session, run.id)
        lifecycle.rescue(session, run.id, run.attempt, now=LEASE + 1)
        assert lifecycle.get(session, run.id).state == "cancelled"


def test_a_pause_parks_the_run_and_resume_queues_it(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
        assert lifecycle.pause(session, run.id)[0].state == "pausing"
        lifecycle.stopped(session, run.id, run.attempt)
        assert lifecycle.get(session, run.id).state == "paused"
        assert lifecycle.resume(session, run.id)[0].state == "queued"


def test_a_pausing_run_whose_worker_is_lost_is_parked(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=0.0)
        lifecycle.pause(session, run.id)
        lifecycle.rescue(session, run.id, run.attempt, now=LEASE + 1)
        assert lifecycle.get(session, run.id).state == "paused"


def test_a_run_that_was_paused_in_the_queue_starts_only_once_it_is_resumed(engine: Engine) -> None:
    with writing(engine) as session:
        run, _is_new = lifecycle.pause(session, add_run(session).id)
        assert run.state == "paused"
        assert lifecycle.claim(session, "w1", lease_s=LEASE) is None
        lifecycle.resume(session, run.id)
        claimed = lifecycle.claim(session, "w1", lease_s=LEASE)
    assert claimed is not None
    assert claimed.id == run.id


def test_a_retry_is_a_new_run_from_the_last_checkpoint(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        checkpoint = checkpoint_at(run, 3)
        lifecycle.add_checkpoint(session, run.id, 1, checkpoint, is_resumable=True)
        lifecycle.fail(session, run.id, 1, life.problem("out_of_memory", "x"))
        again = lifecycle.retry(session, run.id)
        claimed = lifecycle.claim(session, "w1", lease_s=LEASE)
    assert again.id != run.id
    assert again.retry_of == run.id
    assert again.resume_checkpoint_id == checkpoint.id
    assert claimed is not None
    assert claimed.metric_seq == 0


@pytest.mark.parametrize("saved", [None, 1, 2], ids=["never", "first", "second"])
def test_three_deaths_without_a_new_checkpoint_end_the_run(
    engine: Engine, saved: int | None
) -> None:
    """Deaths before the first checkpoint, after it and after the next one count equally."""
    with writing(engine) as session:
        run_id = add_run(session).id
        deaths_in_a_row = deaths = 0
        while lifecycle.get(session, run_id).state != "failed":
            run = start(session, run_id, now=1000.0 * deaths)
            deaths += 1
            if deaths <= (saved or 0):
                checkpoint = checkpoint_at(run, 0)
                lifecycle.add_checkpoint(session, run_id, deaths, checkpoint, is_resumable=True)
                deaths_in_a_row = 0
            deaths_in_a_row += 1
            lifecycle.crashed(session, run_id, deaths, "it said: no", now=1000.0 * deaths - 500)
        run = lifecycle.get(session, run_id)
    assert (deaths_in_a_row, deaths) == (3, 3 + max(0, (saved or 0) - 1))
    assert run.error is not None
    assert (run.error["code"], run.state_reason) == ("worker_lost", "worker_lost")
    assert "died 3 times without a new checkpoint (it said: no)" in run.error["detail"]


def test_the_loss_of_workers_never_ends_a_run(engine: Engine) -> None:
    """An expired lease, an owner known to be dead and a handback do not count as deaths."""
    with writing(engine) as session:
        run_id = add_run(session).id
        for loss in range(12):
            now = 1000.0 * (loss + 1)
            run = start(session, run_id, now=now)
            if loss % 3 == 0:
                queue.expire_now(session, [Run], "w1")
                assert lifecycle.rescue(session, run_id, run.attempt, now=now)
            elif loss % 3 == 1:
                assert lifecycle.rescue(session, run_id, run.attempt, now=now + LEASE + 1)
            else:
                lifecycle.stopped(session, run_id, run.attempt)
        run = lifecycle.get(session, run_id)
    assert (run.state, run.attempt, run.crash_streak) == ("queued", 12, 0)


def test_the_loss_of_a_worker_does_not_forgive_deaths(engine: Engine) -> None:
    with writing(engine) as session:
        run_id = add_run(session).id
        for attempt in (1, 2):
            start(session, run_id, now=1000.0 * attempt)
            lifecycle.crashed(session, run_id, attempt, "killed", now=1000.0 * attempt)
        start(session, run_id, now=3000.0)
        lifecycle.rescue(session, run_id, 3, now=3000.0 + LEASE + 1)
        start(session, run_id, now=4000.0)
        lifecycle.crashed(session, run_id, 4, "killed", now=4000.0)
        assert lifecycle.get(session, run_id).state == "failed"


def test_a_run_that_stalls_is_tried_once_more(engine: Engine) -> None:
    with writing(engine) as session:
        run_id = add_run(session).id
        start(session, run_id, now=0.0)
        lifecycle.crashed(session, run_id, 1, "no sign of progress", code="stalled", now=0.0)
        run = lifecycle.get(session, run_id)
        assert (run.state, run.state_reason) == ("queued", "stalled")
        start(session, run_id, now=1000.0)
        lifecycle.crashed(session, run_id, 2, "no sign of progress", code="stalled", now=1000.0)
        run = lifecycle.get(session, run_id)
    assert run.error is not None
    assert (run.state, run.error["code"]) == ("failed", "stalled")
    assert "(no sign of progress)" in run.error["detail"]


def test_a_run_that_the_kernel_kills_for_its_memory_says_so(engine: Engine) -> None:
    with writing(engine) as session:
        run_id = add_run(session).id
        for attempt in (1, 2, 3):
            start(session, run_id, now=1000.0 * attempt)
            lifecycle.crashed(
                session, run_id, attempt, "SIGKILL", code="out_of_memory", now=1000.0 * attempt
            )
        run = lifecycle.get(session, run_id)
    assert run.error is not None
    assert (run.error["code"], run.error["where"]) == ("out_of_memory", "host")


def test_a_crashed_run_waits_before_its_next_try(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=100.0)
        lifecycle.crashed(session, run.id, run.attempt, "killed", now=100.0)
        assert queue.waiting(session, [Run], now=100.5) == []
        assert lifecycle.claim(session, "w1", lease_s=LEASE, now=100.5) is None
        assert queue.waiting(session, [Run], now=102.0) == [Run]


def test_a_run_that_waits_for_its_next_try_says_until_when(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=100.0)
        assert run_body(session, run)["not_before"] is None
        lifecycle.crashed(session, run.id, run.attempt, "killed", now=100.0)
        until = run_body(session, lifecycle.get(session, run.id))["not_before"]
        assert timedelta(0) < until - utc_now() <= timedelta(seconds=1)


def test_a_checkpoint_forgives_earlier_deaths(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=0.0)
        lifecycle.crashed(session, run.id, 1, "killed", now=0.0)
        run = start(session, run.id, now=100.0)
        assert run.crash_streak == 1
        lifecycle.add_checkpoint(session, run.id, 2, checkpoint_at(run, 0), is_resumable=True)
        assert lifecycle.get(session, run.id).crash_streak == 0


def test_old_checkpoints_are_dropped_but_never_the_best(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
        metrics.append(session, run.id, 1, metric_rows(1, 5), {})
        made = [checkpoint_at(run, seq, is_best=seq == 1) for seq in range(1, 6)]
        for checkpoint in made:
            lifecycle.add_checkpoint(session, run.id, 1, checkpoint, is_resumable=True)
        left = session.query(Checkpoint).order_by(Checkpoint.step).all()
    assert [checkpoint.step for checkpoint in left] == [1, 4, 5]


def test_a_running_run_cannot_be_deleted(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
        with pytest.raises(Conflict):
            lifecycle.delete(session, run.id)


def test_a_run_whose_retry_needs_its_checkpoint_cannot_be_deleted(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
        lifecycle.add_checkpoint(session, run.id, 1, checkpoint_at(run, 0), is_resumable=True)
        lifecycle.fail(session, run.id, 1, {"code": "diverged"})
        retry = lifecycle.retry(session, run.id)
        with pytest.raises(Conflict, match=retry.id):
            lifecycle.delete(session, run.id)
        retry = start(session, retry.id)
        lifecycle.add_checkpoint(session, retry.id, 1, checkpoint_at(retry, 0), is_resumable=True)
        lifecycle.delete(session, run.id)


def test_a_deleted_run_leaves_no_rows(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        lifecycle.succeed(session, run.id, 1, {})
        lifecycle.delete(session, run.id)
    with reading(engine) as session:
        assert events.after(session, Event, run.id, 0, 10) == []
        with pytest.raises(NotFound):
            lifecycle.get(session, run.id)


def test_unfinished_runs_of_a_dataset_are_listed(engine: Engine) -> None:
    with writing(engine) as session:
        dataset = add_dataset(session)
        waiting, ended = add_run(session, dataset).id, add_run(session, dataset).id
        lifecycle.cancel(session, ended)
        assert life.users_of(session, dataset_id=dataset) == {Run: [waiting]}
