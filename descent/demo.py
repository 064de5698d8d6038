"""`descent demo`: upload, train and predict on two small tables, with a temporary service.

The service is a child process on a free port. Its data folder is deleted at the end.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from descent.client import Client
from descent.errors import DescentError
from descent.output import FAILED, INTERRUPTED, OK
from descent.progress import watch
from descent.run import Run
from descent.schemas import Parameters

DATA = Path(__file__).parent / "data"
START_S = 60.0  # seconds until the service must listen, enough for a slow disk
STOP_S = 15.0  # seconds until the service must have stopped
POLL_S = 0.05  # seconds between two reads of the log
LOG_LINES = 30  # of the service's log, printed after a failure

EPOCHS = 5000
QUIZ = 10.0
FLOWER = {"column_1": 5.9, "column_2": 3.0, "column_3": 5.1, "column_4": 1.8}
#: Plain gradient descent, as courses teach it: full batches, unscaled columns.
LINE = {
    "model": {"type": "linear"},
    "loss": "mse",
    "optimizer": {"type": "sgd", "learning_rate": 0.006},
    "epochs": EPOCHS,
    "batch_size": "full",
    "split": {"type": "none"},
    "early_stopping": None,
    "standardize": False,
    "register_as": "scores",
}
FLOWERS = {
    "model": {"type": "mlp", "hidden": [16], "activation": "relu"},
    "split": {"type": "random", "validation": 0.2, "test": 0.2},
    "register_as": "iris",
}


class ServiceFailed(Exception):
    """The service did not start; the message says why, as far as known."""


def demo(*, as_json: bool = False) -> int:
    """Run the demo; return the exit code. With JSON, stdout gets nothing but the results."""
    console = Console(highlight=False, soft_wrap=True, stderr=as_json)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with tempfile.TemporaryDirectory(prefix="descent-demo-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "service.log"
        try:
            console.print("Starting the service …")
            with running_service(Path(folder), log) as url, Client(url, key="") as client:
                console.print(f"It listens on {url}, with a database of its own.\n")
                results = {
                    "scores": _fit_a_line(client, console),
                    "iris": _tell_flowers_apart(client, console),
                }
        except (DescentError, ServiceFailed) as error:
            _explain(error, log)
            return FAILED
        except KeyboardInterrupt:
            return INTERRUPTED
    if as_json:
        sys.stdout.write(json.dumps(results) + "\n")
    console.print("That was all: the service is stopped and its data removed.")
    console.print(
        "`make serve` (or `descent serve`) keeps one running; the README shows the calls."
    )
    return OK


def _fit_a_line(client: Client, console: Console) -> dict[str, Any]:
    """Fit Final = w · Quiz + b by gradient descent and compare it with least squares."""
    dataset = client.upload(DATA / "scores.csv", "scores")
    console.print(f"Uploaded scores.csv: {dataset.rows} students, a quiz and a final score.")
    console.print("Training, as soon as the worker has loaded PyTorch …\n")
    run = client.submit(dataset, "Final", **LINE)
    watch(run.follow(), console, "Gradient descent on Final = w · Quiz + b, mean squared error:")
    model = run.wait().model
    console.print()
    found = model.parameters()
    console.print(_solutions(found, console))
    value = model.predict({"Quiz": QUIZ})[0].value
    console.print(f"A student with {QUIZ:g} points in the quiz: the model predicts {value:.2f}.\n")
    return {"parameters": found.model_dump(mode="json"), "prediction": value}


def _solutions(trained: Parameters, console: Console) -> Table:
    frame = SIMPLE_HEAD if console.is_terminal else None
    table = Table("", "w", "b", "sum of squared errors", box=frame)
    exact = trained.closed_form
    for name, found in ((f"{EPOCHS} steps down the gradient", trained), ("least squares", exact)):
        if found is not None:
            numbers = (f"{found.weights['Quiz']:.5f}", f"{found.bias:.5f}", f"{found.sse:.4f}")
            table.add_row(name, *numbers)
    return table


def _tell_flowers_apart(client: Client, console: Console) -> dict[str, Any]:
    """Train a network with a hidden layer and test it on held-out rows."""
    dataset = client.upload(DATA / "iris.csv", "iris")
    console.print(f"Uploaded iris.csv: {dataset.rows} flowers of three kinds, no header line.")
    run = client.submit(dataset, "column_5", **FLOWERS)
    watch(run.follow(), console, "A network with a hidden layer of 16 units, cross-entropy:")
    model = run.wait().model
    console.print(f"\n{_accuracy(run)}")
    answer = model.predict(FLOWER)[0]
    measures = ", ".join(f"{value:g}" for value in FLOWER.values())
    console.print(f"A flower that measures {measures} cm is {answer.value}:")
    for kind, probability in (answer.probabilities or {}).items():
        console.print(f"  {kind:<16} {probability:.3f}")
    console.print()
    return {"accuracy": run.evaluation["test"]["accuracy"], "prediction": answer.value}


def _accuracy(run: Run) -> str:
    test = run.evaluation["test"]
    rows = sum(map(sum, test["confusion"]["matrix"]))
    return f"Accuracy on {rows} flowers that were held out: {test['accuracy']:.1%}"


@contextmanager
def running_service(folder: Path, log: Path) -> Iterator[str]:
    """Run the service with default settings, ignoring DESCENT_* variables; yield its URL."""
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("DESCENT_")}
    own = {
        "DESCENT_PORT": "0",
        "DESCENT_DATA_DIR": str(folder / "data"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch"),  # instead of /tmp, where it would stay
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-P", "-m", "service", "serve"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  this interpreter, fixed arguments
            command, env=inherited | own, cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait for the log line that holds the service's URL; return the URL."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if '"listening"' in line and line.endswith("}"):
                return str(json.loads(line)["url"])
        if process.poll() is not None:
            raise ServiceFailed(f"the service ended with exit code {process.returncode}")
        time.sleep(POLL_S)
    raise ServiceFailed(f"the service did not listen within {START_S:g} s")


def _explain(error: Exception, log: Path) -> None:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    tail = "\n".join(lines[-LOG_LINES:])
    sys.stderr.write(f"\nThe demo failed: {error}\n\nThe end of the service's log:\n{tail}\n")


def _leave(number: int, _frame: object) -> NoReturn:
    """Raise SystemExit, so that the service stops and its folder is deleted."""
    sys.exit(128 + number)
