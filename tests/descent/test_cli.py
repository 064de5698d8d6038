"""The command line: what it reads, what it prints, how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from descent.cli import app
from descent.client import Client

ROOT = Path(__file__).parents[2]
SCORES = ROOT / "descent" / "data" / "scores.csv"


def descent(
    *words: str, url: str = "http://127.0.0.1:9", columns: str = "200"
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "descent", *words]
    environment = os.environ | {"DESCENT_URL": url, "COLUMNS": columns}
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_service_that_is_not_there_is_one_line_and_exit_code_3() -> None:
    result = descent("runs", "list")
    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr.startswith("descent: unreachable: no answer from http://127.0.0.1:9")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "start", "ds_1", "Final", "-s", "epochs"],
        ["runs", "start", "ds_1", "Final", "-s", "model=1", "-s", "model.type=linear"],
        ["datasets", "upload", "no-such-file.csv"],
        ["predict", "scores", "Quiz"],
        ["predict", "scores"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2


def test_every_command_explains_itself() -> None:
    result = CliRunner().invoke(app, ["--help"])
    for command in ("serve", "worker", "migrate", "keys", "demo", "datasets", "runs", "models"):
        assert command in result.stdout


def test_the_commands_lead_from_a_file_to_a_prediction(service_url: str) -> None:
    dataset = json.loads(
        descent("datasets", "upload", str(SCORES), "--json", url=service_url).stdout
    )
    assert dataset["rows"] == 13
    words = ["-s", "model.type=linear", "-s", "epochs=50", "-s", "register_as=from-a-shell"]
    run = descent("runs", "start", dataset["id"], "Final", *words, "--wait", url=service_url)
    assert run.returncode == 0, run.stderr
    assert "epoch     50" in run.stdout
    answer = descent("predict", "from-a-shell", "Quiz=10", "--json", url=service_url)
    assert isinstance(json.loads(answer.stdout)["value"], float)
    assert "from-a-shell" in descent("models", "list", url=service_url).stdout
    assert dataset["id"] in descent("datasets", "list", url=service_url).stdout


def test_tables_and_results_are_whole_and_for_people(service_url: str) -> None:
    upload = descent("datasets", "upload", str(SCORES), url=service_url, columns="60")
    assert "every value parses as a number" in upload.stdout
    dataset_id = upload.stdout.split()[1]
    assert dataset_id in descent("datasets", "list", url=service_url, columns="60").stdout
    words = ["-s", "model.type=linear", "-s", "epochs=5", "-s", "register_as=narrow", "--wait"]
    run = descent("runs", "start", dataset_id, "Final", *words, url=service_url)
    assert "validation: " in run.stdout
    assert "model narrow, version 1" in run.stdout
    assert (
        "config.epochs"
        in descent("runs", "show", run.stdout.split()[3][:-1], url=service_url).stdout
    )


def test_what_the_service_refuses_is_exit_code_1(service_url: str) -> None:
    result = descent("runs", "show", "run_unknown", url=service_url)
    assert result.returncode == 1
    assert result.stderr.startswith("descent: not_found")


def test_an_address_without_a_scheme_is_wrong_usage() -> None:
    result = descent("runs", "list", url="127.0.0.1:9")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_model_is_exported_and_imported(
    service_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Client(service_url) as client:
        config = {"model": {"type": "linear"}, "epochs": 5, "register_as": "by-shell"}
        client.submit(client.upload(SCORES), "Final", **config).wait(60)
    monkeypatch.setenv("DESCENT_URL", service_url)
    file = str(tmp_path / "model.zip")
    exported = CliRunner().invoke(app, ["models", "export", "by-shell", file])
    assert (exported.exit_code, exported.stdout.split()) == (0, [file])
    imported = CliRunner().invoke(app, ["models", "import", "came-back", file, "--json"])
    assert json.loads(imported.stdout)["imported"]["model"] == "by-shell"
    assert CliRunner().invoke(app, ["models", "import", "came-back", "no.zip"]).exit_code == 2


def test_rows_to_predict_may_come_from_standard_input(
    service_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(service_url) as client:
        dataset = client.upload(SCORES)
        config = {"model": {"type": "linear"}, "epochs": 5, "register_as": "from-stdin"}
        client.submit(dataset, "Final", **config).wait(60)
    monkeypatch.setenv("DESCENT_URL", service_url)
    result = CliRunner().invoke(app, ["predict", "from-stdin"], input='{"Quiz": [5, 10, null]}')
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4
    assert "warning" in result.stdout
    body = json.dumps({"rows": [{"Quiz": 5}, {"Quiz": 10}]})
    as_rows = CliRunner().invoke(app, ["predict", "from-stdin"], input=body)
    assert as_rows.stdout.splitlines() == result.stdout.splitlines()[:2]
    assert (
        CliRunner().invoke(app, ["predict", "from-stdin"], input='{"Quiz": 1e400}').exit_code == 2
    )
    unread = CliRunner().invoke(app, ["predict", "from-stdin", "Quiz=NaN"])
    assert "is taken as missing" in unread.stdout
