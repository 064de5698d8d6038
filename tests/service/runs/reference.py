"""A reference model of the life of a run, written from api.md, independent of the service."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

LEASE = 20.0  # seconds
MAX_CRASHES = 3
OWNED = frozenset({"starting", "running", "pausing", "cancelling"})
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})

#: the table of api.md
EDGES: dict[str, frozenset[str]] = {
    "queued": frozenset({"starting", "paused", "cancelled"}),
    "starting": frozenset({"running", "interrupted", "failed", "cancelling"}),
    "running": frozenset({"pausing", "cancelling", "interrupted", "succeeded", "failed"}),
    "pausing": frozenset({"paused", "cancelling", "interrupted", "succeeded", "failed"}),
    "paused": frozenset({"queued", "cancelled"}),
    "cancelling": frozenset({"cancelled", "succeeded"}),
    "interrupted": frozenset({"queued", "failed", "cancelled"}),
}
#: verb → state → the next state, answered with 202
CHANGES: dict[str, dict[str, str]] = {
    "cancel": {
        "queued": "cancelled",
        "paused": "cancelled",
        "starting": "cancelling",
        "running": "cancelling",
        "pausing": "cancelling",
    },
    "pause": {"queued": "paused", "running": "pausing"},
    "resume": {"paused": "queued"},
}
#: verb → states in which its goal is already requested or reached, answered with 200
REACHED: dict[str, frozenset[str]] = {
    "cancel": frozenset({"cancelling", "cancelled"}),
    "pause": frozenset({"pausing", "paused"}),
    "resume": frozenset({"queued", "starting", "running"}),
}


def allowed(state: str) -> set[str]:
    """Return the verbs that change a run in this state."""
    found = {verb for verb, changes in CHANGES.items() if state in changes}
    return found | ({"retry"} if state in {"failed", "cancelled"} else set())


def status_of(verb: str, state: str) -> int:
    if state in CHANGES[verb]:
        return 202
    return 200 if state in REACHED[verb] else 409


@dataclass
class Reference:
    """The expected state of one run."""

    id: str
    #: its place in the queue
    place: int
    state: str = "queued"
    attempt: int = 0
    owner: str = ""
    #: live rows, as JSON shows their values
    rows: list[Any] = field(default_factory=list)
    #: the number of them that the last checkpoint covers
    covered: int = 0
    crashes: int = 0
    not_before: float = 0.0
    lease_until: float = 0.0
    name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    retry_of: str | None = None
    #: the run whose checkpoint the next attempt starts from
    checkpoint_of: str | None = None

    @property
    def is_owned(self) -> bool:
        return self.state in OWNED

    def claimed_by(self, owner: str, now: float) -> None:
        self.state, self.owner = "starting", owner
        self.attempt += 1
        self.lease_until = now + LEASE
        self.not_before = 0.0
        del self.rows[self.covered :]

    def goes_on_from(self, old: "Reference") -> None:
        self.retry_of, self.checkpoint_of = old.id, old.checkpoint_of

    def started(self) -> None:
        if self.state == "starting":
            self.state = "running"

    def ended(self, state: str) -> None:
        self.state = "cancelled" if (self.state, state) == ("cancelling", "failed") else state

    def given_back(self) -> None:
        """Leave its worker: without a pending request, back to the queue."""
        after = {"cancelling": "cancelled", "pausing": "paused"}
        self.state = after.get(self.state, "queued")

    def crashed(self, now: float) -> None:
        crashes = self.crashes + 1
        if self.state != "cancelling" and crashes >= MAX_CRASHES:
            self.state = "failed"
            return
        if self.state != "cancelling":
            self.crashes, self.not_before = crashes, now + 2.0**crashes - 1
        self.given_back()


def heirs(run: Reference, runs: Iterable[Reference]) -> list[Reference]:
    """Return the unfinished runs that would start over without a checkpoint of this one."""
    unfinished = [other for other in runs if other is not run and other.state not in TERMINAL]
    return [other for other in unfinished if other.checkpoint_of == run.id]


def replay(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the curve of a reader that follows the events from the first one on."""
    rows: list[dict[str, Any]] = []
    for event in events:
        if event["event"] == "metrics":
            rows += event["data"]["rows"]
        elif event["event"] == "rewind":
            rows = [row for row in rows if row["seq"] <= event["data"]["after_seq"]]
    return rows


def steps(events: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield each transition in the events."""
    states = [event["data"]["state"] for event in events if event["event"] == "state"]
    yield from pairwise(states)


def check_body(run: Reference, body: dict[str, Any], position: int | None) -> None:
    """Compare the answer of `GET /runs/{id}` with the reference."""
    shown = (body["state"], body["attempt"], body["name"], body["tags"], body["retry_of"])
    assert shown == (run.state, run.attempt, run.name, run.tags, run.retry_of)
    assert body["queue_position"] == position
    assert (body["error"] is not None) == (run.state == "failed")
    if run.state in {"failed", "cancelled"}:
        assert body["error"] or body["state_reason"]


def check_curve(run: Reference, page: dict[str, Any]) -> None:
    assert [row["seq"] for row in page["data"]] == list(range(1, len(run.rows) + 1))
    assert [row["value"] for row in page["data"]] == run.rows
    assert page["is_final"] == (run.state in TERMINAL)


def check_events(run: Reference, events: list[dict[str, Any]], live: list[dict[str, Any]]) -> None:
    """Check that the events give the live rows and the state, and end with the end."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert replay(events) == live
    assert all(to in EDGES.get(at, ()) for at, to in steps(events))
    states = [event["data"]["state"] for event in events if event["event"] == "state"]
    assert states[-1] == run.state
    ends = [event["seq"] for event in events if event["event"] == "end"]
    assert ends == ([len(events)] if run.state in TERMINAL else [])
