"""Any order of requests, workers, crashes and late writes keeps the promises of api.md.

Each rule does one thing to the service, over HTTP or as a worker would, and to a small reference
model; after each one both must agree. `LIVES=500 SEED=7` runs more and different sequences.
"""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from service.errors import Fenced
from service.jobs import life, queue
from service.runs import lifecycle, metrics
from service.runs.tables import Checkpoint, Run
from service.storage.blobs import LocalBlobs
from service.storage.columns import new_id
from service.storage.database import reading, writing
from tests.service.rows import add_dataset, all_writes, checkpoint_row, everything_of, metric_rows
from tests.service.runs import reference
from tests.service.runs.reference import CHANGES, LEASE, TERMINAL, Reference

pytestmark = pytest.mark.slow

LIVES = int(os.environ.get("LIVES", "10"))
STEPS = 25
SEED = int(os.environ.get("SEED", "1"))
RUNS = "/api/v1/runs"
KEYS = st.sampled_from([None, "first", "second"])
WORKERS = st.sampled_from(["w1", "w2"])
VALUES = st.lists(st.sampled_from([0.5, 2.0, float("nan"), float("-inf")]), min_size=1, max_size=4)
NAMED = {"nan": "NaN", "-inf": "-Infinity"}
PICK = st.integers(0, 99)
DIVERGED = life.problem("diverged", "It diverged.")


def an_attempt(life: Any) -> bool:
    return any(run.is_owned for run in life.runs.values())


class Life(RuleBasedStateMachine):
    """Runs, clients and workers, whose clock the test advances."""

    client: ClassVar[httpx.Client]
    engine: ClassVar[Engine]
    blobs: ClassVar[LocalBlobs]
    dataset: ClassVar[str]
    scratch: ClassVar[Path]

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        self.runs: dict[str, Reference] = {}
        self.past: list[tuple[str, int]] = []
        self.keys: dict[str, tuple[int, str]] = {}
        self.prefix = new_id("key")
        self.places = count(1)
        self.seen: dict[str, tuple[str, Any]] = {}
        self.touched: Reference | None = None
        for _ in range(2):
            self.submit(None, 5)
        self.claim("w1", starts=True)
        self.append(0, [0.5, 2.0], 0)

    @rule(key=KEYS, epochs=st.sampled_from([5, 6]))
    def submit(self, key: str | None, epochs: int) -> None:
        headers = {"Idempotency-Key": f"{self.prefix}-{key}"} if key else {}
        config = {"dataset": self.dataset, "target": "Final", "epochs": epochs}
        answer = self.client.post(RUNS, json=config, headers=headers)
        if key in self.keys:
            first_epochs, text = self.keys[key]
            if epochs != first_epochs:
                assert answer.status_code == 422
                assert answer.json()["code"] == "idempotency_key_reused"
            else:
                assert (answer.status_code, answer.text) == (202, text)
                assert answer.headers["idempotency-replayed"] == "true"
            return
        assert answer.status_code == 202, answer.text
        self.add(answer.json())
        if key:
            self.keys[key] = (epochs, answer.text)

    @precondition(lambda life: life.runs)
    @rule(pick=PICK, verb=st.sampled_from(sorted(CHANGES)))
    def ask(self, pick: int, verb: str) -> None:
        self.ask_for(self.any_run(pick), verb)

    def ask_for(self, run: Reference, verb: str) -> None:
        expected = reference.status_of(verb, run.state)
        answer = self.client.post(f"{RUNS}/{run.id}/{verb}")
        assert answer.status_code == expected, answer.text
        if expected == 409:
            assert set(answer.json()["allowed"]) == reference.allowed(run.state)
        elif expected == 202:
            run.state = CHANGES[verb][run.state]
            run.place = next(self.places) if verb == "resume" else run.place

    @precondition(lambda life: any(run.state == "running" for run in life.runs.values()))
    @rule(pick=PICK, asks_again=st.booleans())
    def park(self, pick: int, asks_again: bool) -> None:  # noqa: FBT001  drawn by name
        running = [run for run in self.runs.values() if run.state == "running"]
        run = self.one_of(running, pick)
        self.ask_for(run, "pause")
        if asks_again:
            self.ask_for(run, "cancel")
        self.stop_run(run)
        self.ask_for(run, "resume")

    @precondition(lambda life: life.runs)
    @rule(pick=PICK)
    def retry(self, pick: int) -> None:
        old = self.any_run(pick)
        answer = self.client.post(f"{RUNS}/{old.id}/retry")
        if old.state in {"failed", "cancelled"}:
            assert answer.status_code == 202
            self.add(answer.json()).goes_on_from(old)
        else:
            assert answer.status_code == 409
            assert set(answer.json()["allowed"]) == reference.allowed(old.state)

    @precondition(lambda life: life.runs)
    @rule(pick=PICK)
    def remove(self, pick: int) -> None:
        run = self.any_run(pick)
        answer = self.client.delete(f"{RUNS}/{run.id}")
        if run.state not in TERMINAL or reference.heirs(run, self.runs.values()):
            assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
            assert ("allowed" in answer.json()) == (run.state not in TERMINAL)
            return
        assert answer.status_code == 204
        del self.runs[run.id]
        for path in ("", "/metrics", "/events", "/log", "/checkpoints"):
            assert self.client.get(f"{RUNS}/{run.id}{path}").status_code == 404
        self.touched = None

    @precondition(lambda life: life.runs)
    @rule(pick=PICK, name=st.sampled_from([None, "a", "b"]), tag=st.sampled_from(["x", "y"]))
    def rename(self, pick: int, name: str | None, tag: str) -> None:
        run = self.any_run(pick)
        run.name, run.tags = name, {"kind": tag}
        answer = self.client.patch(f"{RUNS}/{run.id}", json={"name": name, "tags": run.tags})
        assert answer.status_code == 200

    @rule(states=st.sets(st.sampled_from(sorted(reference.EDGES)), max_size=2), tag=KEYS)
    def look_at_lists(self, states: set[str], tag: str | None) -> None:
        wanted = [
            run.id
            for run in self.runs.values()
            if (not states or run.state in states) and (not tag or run.tags.get("kind") == "x")
        ]
        query: dict[str, Any] = {"limit": 2, "state": sorted(states), "dataset": self.dataset}
        query |= {"tag": "kind:x"} if tag else {}
        found: list[str] = []
        while "after" not in query or query["after"]:
            page = self.client.get(RUNS, params=query)
            assert page.status_code == 200, page.text
            found += [run["id"] for run in page.json()["data"]]
            query["after"] = page.json()["next_cursor"]
        assert found == wanted[::-1]

    @precondition(lambda life: life.runs)
    @rule(pick=PICK)
    def look_again(self, pick: int) -> None:
        run = self.any_run(pick)
        tag, body = self.seen.get(run.id, ('"none"', None))
        answer = self.client.get(f"{RUNS}/{run.id}", headers={"If-None-Match": tag})
        fresh = self.client.get(f"{RUNS}/{run.id}")
        assert answer.status_code == (304 if fresh.json() == body else 200)
        self.seen[run.id] = (fresh.headers["etag"], fresh.json())

    @rule(owner=WORKERS, starts=st.booleans())
    def claim(self, owner: str, starts: bool) -> None:  # noqa: FBT001  drawn by name
        waiting = [r for r in self.in_queue() if r.not_before <= self.now]
        with writing(self.engine) as session:
            assert (Run in queue.waiting(session, [Run], now=self.now)) == bool(waiting)
            got = lifecycle.claim(session, owner, lease_s=LEASE, now=self.now)
        assert (got.id if got else None) == (waiting[0].id if waiting else None)
        if waiting:
            self.touched = run = waiting[0]
            run.claimed_by(owner, self.now)
            if starts:
                self.start(run)

    @precondition(an_attempt)
    @rule(pick=PICK)
    def start_late(self, pick: int) -> None:
        self.start(self.an_owned(pick))

    def start(self, run: Reference) -> None:
        self.write(lambda s: lifecycle.started(s, run.id, run.attempt, {"device": "cpu"}))
        run.started()

    @precondition(an_attempt)
    @rule(pick=PICK, values=VALUES, repeated=st.integers(-1, 2))
    def append(self, pick: int, values: list[float], repeated: int) -> None:
        """Append rows, some of which were sent before; a negative number is a gap."""
        run = self.an_owned(pick)
        last = len(run.rows)
        first = last + 1 - min(repeated, last)
        rows = metric_rows(first, max(first, last + len(values)))
        if repeated < 0:
            self.refused(lambda s: metrics.append(s, run.id, run.attempt, rows, {}))
            return
        for row, value in zip(rows[last + 1 - first :], values, strict=True):
            row["value"] = value
        self.write(lambda s: metrics.append(s, run.id, run.attempt, rows, {}))
        run.rows += [NAMED.get(str(value), value) for value in values]

    @precondition(an_attempt)
    @rule(pick=PICK, is_best=st.booleans())
    def checkpoint(self, pick: int, is_best: bool) -> None:  # noqa: FBT001  drawn by name
        run = self.an_owned(pick)
        row = self.saved(run.id, run.attempt, len(run.rows), is_best=is_best)
        self.write(
            lambda s: lifecycle.add_checkpoint(s, run.id, run.attempt, row, is_resumable=True)
        )
        run.covered, run.crashes, run.checkpoint_of = len(run.rows), 0, run.id

    @precondition(an_attempt)
    @rule(pick=PICK)
    def stop(self, pick: int) -> None:
        self.stop_run(self.an_owned(pick))

    def stop_run(self, run: Reference) -> None:
        self.write(lambda s: lifecycle.stopped(s, run.id, run.attempt))
        self.leave(run)
        run.given_back()

    @precondition(an_attempt)
    @rule(pick=PICK)
    def crash(self, pick: int) -> None:
        run = self.an_owned(pick)
        self.write(lambda s: lifecycle.crashed(s, run.id, run.attempt, "gone", now=self.now))
        self.leave(run)
        run.crashed(self.now)

    @precondition(an_attempt)
    @rule(pick=PICK, state=st.sampled_from(["succeeded", "failed"]))
    def end(self, pick: int, state: str) -> None:
        run = self.an_owned(pick)
        if state == "succeeded":
            self.write(lambda s: lifecycle.succeed(s, run.id, run.attempt, {}))
        else:
            self.write(lambda s: lifecycle.fail(s, run.id, run.attempt, DIVERGED))
        self.leave(run)
        run.ended(state)

    @rule(owner=WORKERS)
    def beat(self, owner: str) -> None:
        mine = {r.id: r.attempt for r in self.runs.values() if r.is_owned and r.owner == owner}
        with writing(self.engine) as session:
            asked = dict(self.past) | mine
            held = queue.beat(session, owner, asked, lease_s=LEASE, now=self.now)
        assert held == {run_id: self.runs[run_id].state for run_id in mine}
        for run_id in mine:
            self.runs[run_id].lease_until = self.now + LEASE

    @rule(seconds=st.sampled_from([1.0, 4.0, LEASE / 2, LEASE + 1]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(an_attempt)
    @rule(owner=WORKERS, starts=st.booleans())
    def take_over(self, owner: str, starts: bool) -> None:  # noqa: FBT001  drawn by name
        self.wait(LEASE + 1)
        self.sweep(None)
        self.claim(owner, starts)

    @rule(dead=st.sampled_from([None, "w1"]))
    def sweep(self, dead: str | None) -> None:
        """Take the runs of workers without heartbeats, and of one that is known to be dead."""
        lost = {
            run.id: run.attempt
            for run in self.runs.values()
            if run.is_owned and (run.lease_until < self.now or run.owner == dead)
        }
        with writing(self.engine) as session:
            if dead:
                queue.expire_now(session, [Run], dead)
            assert dict(queue.expired(session, [Run], now=self.now)) == lost
            for run_id, attempt in lost.items():
                assert lifecycle.rescue(session, run_id, attempt, now=self.now)
        for run_id in lost:
            self.leave(self.runs[run_id])
            self.runs[run_id].given_back()

    @invariant()
    def agree(self) -> None:
        with reading(self.engine) as session:
            found = session.execute(select(Run.id, Run.state, Run.attempt, Run.metric_seq)).all()
        expected = [(r.id, r.state, r.attempt, len(r.rows)) for r in self.runs.values()]
        assert sorted(map(tuple, found)) == sorted(expected)
        if self.touched is not None:
            self.check(self.touched)

    def check(self, run: Reference) -> None:
        places = {r.id: place for place, r in enumerate(self.in_queue(), 1)}
        body = self.client.get(f"{RUNS}/{run.id}").json()
        reference.check_body(run, body, places.get(run.id))
        curve = self.client.get(f"{RUNS}/{run.id}/metrics").json()
        reference.check_curve(run, curve)
        events = self.client.get(f"{RUNS}/{run.id}/events", params={"limit": 200}).json()
        assert not events["has_more"]
        reference.check_events(run, events["data"], curve["data"])

    def teardown(self) -> None:
        try:
            for run_id, attempt in getattr(self, "past", []):
                self.write_late(run_id, attempt)
            for run in getattr(self, "runs", {}).values():
                self.check(run)
        finally:
            with writing(self.engine) as session:
                session.execute(delete(Run))

    def write_late(self, run_id: str, attempt: int) -> None:
        """Every write of an attempt that has lost its run is refused and changes nothing."""
        run = self.runs.get(run_id)
        seq = len(run.rows) + 1 if run else 1
        late = self.saved(run_id, attempt, 0, is_best=True)
        before = everything_of(self.engine, run_id)
        for write in all_writes(run_id, attempt, seq, late):
            self.refused(write)
        assert everything_of(self.engine, run_id) == before

    def add(self, body: dict[str, Any]) -> Reference:
        run = self.runs[body["id"]] = self.touched = Reference(body["id"], next(self.places))
        return run

    def in_queue(self) -> list[Reference]:
        waiting = (run for run in self.runs.values() if run.state == "queued")
        return sorted(waiting, key=lambda run: run.place)

    def any_run(self, pick: int) -> Reference:
        return self.one_of(list(self.runs.values()), pick)

    def an_owned(self, pick: int) -> Reference:
        return self.one_of([run for run in self.runs.values() if run.is_owned], pick)

    def one_of(self, runs: list[Reference], pick: int) -> Reference:
        self.touched = runs[pick % len(runs)]
        return self.touched

    def leave(self, run: Reference) -> None:
        self.touched = run
        self.past.append((run.id, run.attempt))

    def write(self, write: Callable[[Session], object]) -> None:
        with writing(self.engine) as session:
            write(session)

    def refused(self, write: Callable[[Session], object]) -> None:
        with pytest.raises(Fenced):
            self.write(write)

    def saved(self, run_id: str, attempt: int, seq: int, *, is_best: bool) -> Checkpoint:
        file = self.scratch / "checkpoint"
        file.write_bytes(f"{run_id} {attempt} {seq}".encode())
        digest, size = self.blobs.put(file)
        stored = {"sha256": digest, "bytes": size, "is_best": is_best}
        return checkpoint_row(run_id, attempt, seq, **stored)


def test_a_run_lives_as_api_md_says(
    client: httpx.Client, engine: Engine, blobs: LocalBlobs, tmp_path: Path
) -> None:
    with writing(engine) as session:
        dataset = add_dataset(session)
    parts = {"client": client, "engine": engine, "blobs": blobs}
    bound = type("BoundLife", (Life,), parts | {"dataset": dataset, "scratch": tmp_path})
    limits = settings(
        max_examples=LIVES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(SEED)(bound), settings=limits)
