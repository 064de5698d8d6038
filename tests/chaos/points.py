"""The failpoints of the code, at which processes are killed or stopped, by their requirements."""

import ast
from pathlib import Path

from service.jobs.pipe import Heartbeat
from service.work import KINDS

ROOT = Path(__file__).resolve().parent.parent.parent
#: the messages of an undisturbed run that succeeds
MESSAGES = ("started", "metrics", "checkpoint", "finished")
#: the points that the supervisor passes with each message
RESTS = ("", ".written", ".committed")

#: in the process that trains
TRAINER = (
    "train.step",
    "train.epoch",
    "train.evaluate",
    "checkpoint.begin",
    "checkpoint.written",
    "checkpoint.renamed",
    "trainer.begin",
    *(f"trainer.{kind}" for kind in MESSAGES),
    "trainer.end",
)
#: in the supervisor, if the store is a folder
LOCAL = ("blob.copied", "blob.published")
#: in the supervisor, outside a transaction: after a stop there, another one can take over
SITES = (
    "worker.claimed",
    "worker.launch",
    "worker.launched",
    "worker.beat",
    *(f"run.{kind}" for kind in MESSAGES),
    *(f"run.{kind}.committed" for kind in MESSAGES),
    "blob.pinned",
    "blob.stored",
    *LOCAL,
)
#: in the supervisor, inside a transaction
TRANSACTIONS = (
    "claim.rewound",
    *(f"run.{kind}.written" for kind in MESSAGES),
    "collect.forgotten",
    "collect.deleted",
)
#: in every process that writes
ANYWHERE = ("database.commit", "database.committed")
API = ("idempotency.begun", "api.commit", "api.committed")
#: in the process that parses an upload, and in its supervisor; tests/service/datasets kills at each
PARSE = ("parser.begin", *(f"parse.parsed{rest}" for rest in RESTS))
#: on the way of an upload, from the API to the worker
UPLOAD = ("ingest.received", "ingest.stored", "ingest.accepted", *PARSE)
#: in the process that predicts a table, and in its supervisor; tests/service/batch kills at each
PREDICTOR = (
    "predictor.begin",
    "predictor.predicted",
    "predictor.chunk",
    "predictor.profile",
    "predictor.finished",
)
BATCH = (
    *(f"batch.{kind}{rest}" for kind in ("started", "chunk", "finished") for rest in RESTS),
    "batch.succeed.made",
)
#: in an export verification, and in its supervisor; tests/service/proofs kills at each
PROVER = ("prover.begin", "prover.way", "prover.compared")
PROOF = tuple(f"proof.compared{rest}" for rest in RESTS)
#: in the steering of a sweep, and on the way of a suggestion; tests/service/sweeps kills at each
SWEEP = (
    "sweep.steer",
    "sweep.steered",
    *(f"run.rung{rest}" for rest in RESTS),
    "sampler.begin",
    *(f"suggest.{kind}{rest}" for kind in ("started", "suggested") for rest in RESTS),
)
#: in the supervisor, for messages of jobs that are slow, fail or are stopped: no list above kills
#: there, and tests name these points where they need one
SELDOM = tuple(
    f"{prefix}.{message}{rest}"
    for prefix, messages in {
        "run": ("alive", "log", "stopped", "failed"),
        "batch": ("stopped", "failed"),
        "proof": ("stopped", "failed"),
        "suggest": ("stopped", "failed"),
        "parse": ("refused", "took_long", "stopped", "failed"),
    }.items()
    for message in messages
    for rest in RESTS
)
#: points on the way of a recovery
RECOVERY = (
    "worker.expired",
    "worker.rescue",
    "claim.rewound",
    "worker.claimed",
    "worker.launch",
    "worker.launched",
    "run.started.written",
    "run.started.committed",
    "trainer.begin",
    "trainer.started",
    "train.step",
    "database.commit",
)
#: passed repeatedly in a run, so the histories use the second and the fifth time too
REPEATED = frozenset(
    {
        "train.step",
        "train.epoch",
        "worker.beat",
        *ANYWHERE,
        *(name for name in (*TRAINER, *SITES, *TRANSACTIONS) if "metrics" in name),
        *(name for name in (*TRAINER, *SITES, *TRANSACTIONS) if "checkpoint" in name),
        "blob.pinned",
        "blob.stored",
        *LOCAL,
        "collect.forgotten",
        "collect.deleted",
    }
)
#: points at which a full disk may cause an error: every write of a file and of the database
WRITES = (
    "checkpoint.begin",
    "checkpoint.written",
    "blob.copied",
    "blob.published",
    "claim.rewound",
    *(f"run.{kind}.written" for kind in MESSAGES),
    "collect.forgotten",
    "database.commit",
    "api.commit",
)


def times_of(point: str) -> tuple[int, ...]:
    return (1, 2, 5) if point in REPEATED else (1,)


def in_code() -> set[str]:
    """Return the names of all points in the code; a part that varies is a `*`."""
    found = set()
    for package in ("models", "service"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "reach":
                    found |= _names(node.args[0])
    return found


def _names(node: ast.expr) -> set[str]:
    """Return the names that an argument of `reach` may have."""
    if ast.unparse(node) == "point":
        return _of_messages()
    if isinstance(node, ast.JoinedStr):
        first, *rest = (
            part.value if isinstance(part, ast.Constant) else ast.unparse(part)
            for part in node.values
        )
        if first == "{point}":
            return {point + "".join(map(str, rest)) for point in _of_messages()}
        return {"".join("*" if str(part).startswith("{") else str(part) for part in (first, *rest))}
    assert isinstance(node, ast.Constant)
    return {str(node.value)}


def _of_messages() -> set[str]:
    """Return the names of the points in `worker.reports` for each message of each kind of job.

    It does not write bare heartbeats, so they have no point.
    """
    return {
        f"{kind.table.prefix}.{message}"
        for kind in KINDS
        for message, schema in kind.messages.json_schema()["discriminator"]["mapping"].items()
        if not schema.endswith(f"/{Heartbeat.__name__}")
    }
