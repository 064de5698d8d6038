"""Where a process may be killed or stopped: the failpoints of the code, by what they need."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = ("started", "metrics", "checkpoint", "finished")

#: in the process that trains
TRAINER = (
    "train.step",
    "train.epoch",
    "train.evaluate",
    "checkpoint.begin",
    "checkpoint.written",
    "checkpoint.synced",
    "checkpoint.renamed",
    "trainer.begin",
    *(f"trainer.{kind}" for kind in KINDS),
    "trainer.end",
)
#: in the supervisor, where the store is a folder
LOCAL = ("blob.copied", "blob.published")
#: in the supervisor, outside of a transaction: it can be stopped there and taken over from
SITES = (
    "worker.claimed",
    "worker.launch",
    "worker.launched",
    "worker.beat",
    *(f"report.{kind}" for kind in KINDS),
    *(f"report.{kind}.begin" for kind in KINDS if kind != "checkpoint"),
    *(f"report.{kind}.committed" for kind in KINDS),
    "blob.pinned",
    "blob.stored",
    *LOCAL,
)
#: in the supervisor, inside of a transaction
TRANSACTIONS = (
    "claim.rewound",
    "report.checkpoint.begin",
    *(f"report.{kind}.written" for kind in KINDS),
    "collect.forgotten",
    "collect.deleted",
)
#: wherever something is written
ANYWHERE = ("database.commit", "database.committed")
API = ("idempotency.begun", "api.commit", "api.committed")
UPLOAD = (
    "ingest.received",
    "ingest.stored",
    "ingest.accepted",
    "ingest.parsed",
    "ingest.ready",
)
#: in the process that predicts a table, and in its supervisor; tests/service/batch kills at each
PREDICTOR = (
    "predictor.begin",
    "predictor.predicted",
    "predictor.chunk",
    "predictor.profile",
    "predictor.finished",
)
BATCH = tuple(
    f"batch.{kind}{rest}"
    for kind, rests in {
        "started": ("", ".written", ".committed"),
        "chunk": ("", ".begin", ".written", ".committed"),
        "finished": ("", ".begin", ".written", ".committed"),
        "succeed": (".made",),
    }.items()
    for rest in rests
)
#: in the process that proves a version, and in its supervisor; tests/service/proofs kills at each
PROVER = ("prover.begin", "prover.way", "prover.compared")
PROOF = ("proof.compared", "proof.compared.written", "proof.compared.committed")
#: what is reached while a run is being recovered
RECOVERY = (
    "worker.expired",
    "worker.rescue",
    "claim.rewound",
    "worker.claimed",
    "worker.launch",
    "worker.launched",
    "report.started.written",
    "report.started.committed",
    "trainer.begin",
    "trainer.started",
    "train.step",
    "database.commit",
)
#: passed again and again within a run, so that the second and the fifth time are of interest
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
#: where a full disk may show itself: every write of a file and of the database
WRITES = (
    "checkpoint.begin",
    "checkpoint.written",
    "checkpoint.synced",
    "blob.copied",
    "blob.published",
    "claim.rewound",
    *(f"report.{kind}.written" for kind in KINDS),
    "collect.forgotten",
    "database.commit",
    "api.commit",
)


def times_of(point: str) -> tuple[int, ...]:
    return (1, 2, 5) if point in REPEATED else (1,)


def in_code() -> set[str]:
    """Return the names that the code reaches; a part that varies is a `*`."""
    found = set()
    for package in ("models", "service"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "reach":
                    found.add(_name(node.args[0]))
    return found


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "*" for part in node.values)
        return "".join(str(part) for part in parts)
    assert isinstance(node, ast.Constant)
    return str(node.value)
