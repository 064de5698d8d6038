"""A client that openapi-python-client generates from the document works against the service."""

import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.nightly

SCORES = Path(__file__).parents[3] / "descent" / "data" / "scores.csv"
PACKAGE = "generated_descent"
RUN_S = 60.0  # seconds in which the run must succeed
#: the generator refuses unknown content types, unless the configuration declares them as bytes
FILES = (
    "text/csv",
    "text/tab-separated-values",
    "application/x-ndjson",
    "application/zip",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
)
ARROW = ("parquet", "arrow.file", "arrow.stream")


@pytest.fixture
def generated(service_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Generate the client from the document that the service serves, and return its API."""
    (tmp_path / "openapi.json").write_bytes(httpx.get(f"{service_url}/openapi.json").content)
    types = (*FILES, *(f"application/vnd.apache.{name}" for name in ARROW))
    overrides = "".join(f"  {name}: application/octet-stream\n" for name in types)
    (tmp_path / "config.yml").write_text(
        f"post_hooks: []\ncontent_type_overrides:\n{overrides}", encoding="utf-8"
    )
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta=none"]
    command += ["--path=openapi.json", "--config=config.yml", f"--output-path={PACKAGE}"]
    done = subprocess.run(
        [*command, "--fail-on-warning"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    return import_module(PACKAGE)


def call(client: Any, operation: str, *arguments: Any, **options: Any) -> Any:
    """Call an operation, such as `runs.submit_run`, and return the body of its success."""
    function = import_module(f"{PACKAGE}.api.{operation}").sync_detailed
    response = function(*arguments, client=client, **options)
    assert response.status_code < 300, response.content
    return response.parsed


def test_it_uploads_a_file_submits_a_run_reads_it_and_predicts(
    generated: Any, service_url: str
) -> None:
    models = import_module(f"{PACKAGE}.models")
    file_type = import_module(f"{PACKAGE}.types").File
    with generated.Client(base_url=service_url) as client, SCORES.open("rb") as content:
        file = file_type(payload=content, file_name="scores.csv", mime_type="text/csv")
        body = models.UploadDatasetFilesBody(file=file)
        dataset = call(client, "datasets.upload_dataset", body=body, name="scores", wait=60.0)
        assert (dataset.state, dataset.rows) == ("ready", 13)

        config = models.RunConfig(
            dataset=dataset.id,
            target="Final",
            model=models.Linear(type_="linear"),
            split=models.NoSplit(type_="none"),
            register_as="generated",
        )
        run = call(client, "runs.submit_run", body=config)
        assert run.config.epochs == 200
        assert isinstance(run.config.model, models.Linear)
        deadline = time.monotonic() + RUN_S
        while run.state not in {"succeeded", "failed", "cancelled"}:
            assert time.monotonic() < deadline, run.state
            run = call(client, "runs.get_run", run.id, wait=10.0)
        assert run.state == "succeeded", run.error
        assert isinstance(run.evaluation.train, models.RegressionMetrics)
        assert run.evaluation.train.r2 > 0.5
        assert run.id in [each.id for each in call(client, "runs.list_runs").data]

        row = models.PredictRequestRowsType0Item.from_dict({"Quiz": 10.0})
        rows = models.PredictRequest(rows=[row])
        answer = call(client, "models.predict_with_model", "generated", body=rows)
        (prediction,) = answer.predictions
        assert answer.model == "generated"
        assert 5 < prediction.value < 25
