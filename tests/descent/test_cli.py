"""The command line: its input, its output, its exit status."""

import csv
import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from descent.cli import app
from descent.client import Client
from descent.output import FAILED, MEANINGS, OK, REFUSED, UNREACHABLE, USAGE
from tests.serving import RunService
from tests.warm import Parent

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCORES = ROOT / "descent" / "data" / "scores.csv"


class Command(Protocol):
    """Runs the command line in a separate process."""

    def __call__(
        self,
        *words: str,
        url: str = "http://127.0.0.1:9",
        columns: str = "200",
        **variables: str,
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def descent(warm: Parent) -> Command:
    def run(
        *words: str, url: str = "http://127.0.0.1:9", columns: str = "200", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"DESCENT_URL": url, "COLUMNS": columns} | variables
        return warm.run(*words, environment=environment, folder=ROOT)

    return run


def test_a_service_that_is_not_there_is_one_line_and_exit_code_4(descent: Command) -> None:
    result = descent("runs", "list")
    assert result.returncode == UNREACHABLE
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
        ["predict", "scores", "Quiz=1", "--dataset", "ds_1"],
        ["datasets", "retype", "ds_1", "Quiz"],
        ["doctor", "--url", "localhost"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == USAGE


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *words, name)
        else:
            yield (*words, name), command


def test_every_command_has_help_and_speaks_json() -> None:
    found = dict(commands(get_command(app)))
    assert {words[0] for words in found} == {
        *("serve", "worker", "migrate", "keys", "datasets", "runs", "models", "predict"),
        *("demo", "doctor", "sweep", "sweeps"),
    }
    for words, command in found.items():
        options = {option for parameter in command.params for option in parameter.opts}
        # `service.__main__` describes the server's commands; `serve` always prints JSON.
        assert "--json" in options or words[0] in {"serve", "worker", "migrate"}, words
        assert command.help, words


def test_the_help_tells_what_every_exit_code_means() -> None:
    text = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    for code, meaning in MEANINGS.items():
        assert f"{code} {meaning}" in text


@pytest.mark.parametrize(
    ("words", "place", "completion"),
    [
        ("descent ru", 1, "runs"),
        ("descent runs wat", 2, "watch"),
        ("descent runs watch --js", 3, "--json"),
        ("descent doc", 1, "doctor"),
    ],
)
def test_a_shell_completes_commands_and_options(
    descent: Command, words: str, place: int, completion: str
) -> None:
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(place), "_DESCENT_COMPLETE": "complete_bash"}
    assert descent(**asked).stdout.split() == [completion]


def test_a_shell_completes_what_the_service_has_and_nothing_where_it_is_away(
    descent: Command,
    service_url: str,
) -> None:
    with Client(service_url) as client:
        dataset = client.upload(SCORES)
    words = f"descent datasets show {dataset.id[:-1]}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": "3", "_DESCENT_COMPLETE": "complete_bash"}
    assert dataset.id in descent(url=service_url, **asked).stdout.split()
    away = descent(**asked)
    assert (away.returncode, away.stdout.split(), away.stderr) == (0, [], "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_and_installed(descent: Command, shell: str, tmp_path: Path) -> None:
    # Otherwise it would be the folder of the shell that runs the tests.
    variables = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = descent("--show-completion", shell, **variables)
    assert (shown.returncode, f"_DESCENT_COMPLETE=complete_{shell}" in shown.stdout) == (0, True)
    installed = descent("--install-completion", shell, **variables)
    assert installed.returncode == 0, installed.stderr
    assert any("descent" in path.name for path in tmp_path.rglob("*"))


def test_the_commands_lead_from_a_file_to_a_prediction(descent: Command, service_url: str) -> None:
    dataset = json.loads(
        descent("datasets", "upload", str(SCORES), "--json", url=service_url).stdout
    )
    assert dataset["rows"] == 13
    words = ["-s", "model.type=linear", "-s", "epochs=50", "-s", "register_as=from-a-shell"]
    run = descent("runs", "start", dataset["id"], "Final", *words, "--wait", url=service_url)
    assert run.returncode == OK, run.stderr
    assert "epoch     50" in run.stdout
    answer = descent("predict", "from-a-shell", "Quiz=10", "--json", url=service_url)
    assert isinstance(json.loads(answer.stdout)["value"], float)
    assert "from-a-shell" in descent("models", "list", url=service_url).stdout
    assert dataset["id"] in descent("datasets", "list", url=service_url).stdout
    words = ["runs", "check", dataset["id"], "Final", "--preset", "fast", "--json"]
    config = json.loads(descent(*words, url=service_url).stdout)["config"]
    assert (config["preset"], config["model"]["hidden"]) == ("fast", [128, 128])


def test_a_learning_rate_is_suggested(descent: Command, service_url: str) -> None:
    with Client(service_url) as client:
        dataset = client.upload(SCORES)
    asked = ["runs", "lr-range", dataset.id, "Final", "-s", "model.type=linear"]
    words = descent(*asked, url=service_url)
    assert words.returncode == OK, words.stderr
    found = json.loads(descent(*asked, "--json", url=service_url).stdout)
    assert found["detail"] in words.stdout
    assert 1e-7 < found["suggested"] < 10


def test_tables_and_results_are_whole_and_for_people(descent: Command, service_url: str) -> None:
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


def test_what_the_service_refuses_is_exit_code_1(descent: Command, service_url: str) -> None:
    result = descent("runs", "show", "run_unknown", url=service_url)
    assert result.returncode == REFUSED
    assert result.stderr.startswith("descent: not_found")


def test_with_json_errors_are_json_too(descent: Command, service_url: str) -> None:
    refused = descent("runs", "show", "run_unknown", "--json", url=service_url)
    assert json.loads(refused.stderr)["error"]["code"] == "not_found"
    assert json.loads(refused.stderr)["error"]["status"] == 404
    away = descent("runs", "list", "--json")
    assert json.loads(away.stderr)["error"]["code"] == "unreachable"


def test_a_run_that_fails_is_exit_code_3(descent: Command, service_url: str) -> None:
    with Client(service_url) as client:
        dataset = client.upload(SCORES)
    words = ["-s", "model.type=linear", "-s", "standardize=false", "-s", "batch_size=full"]
    words += ["-s", 'optimizer={"type": "sgd", "learning_rate": 5.0}', "--wait"]
    failed = descent("runs", "start", dataset.id, "Final", *words, url=service_url)
    assert failed.returncode == FAILED
    assert failed.stderr.startswith("descent: diverged")


def test_a_row_without_a_prediction_is_exit_code_3(descent: Command, service_url: str) -> None:
    with Client(service_url) as client:
        config = {"model": {"type": "linear"}, "epochs": 5, "register_as": "strict"}
        client.submit(client.upload(SCORES), "Final", **config).wait(60)
    result = descent("predict", "strict", "Quiz=10", "--on-problem", "error", url=service_url)
    assert (result.returncode, result.stderr) == (OK, "")
    result = descent("predict", "strict", "Quiz=x", "--on-problem", "error", url=service_url)
    assert result.returncode == FAILED
    assert result.stdout.startswith("error ")


def test_aliases_are_moved_and_rolled_back(
    service_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESCENT_URL", service_url)
    with Client(service_url) as client:
        config = {"model": {"type": "linear"}, "epochs": 5, "register_as": "by-alias"}
        for _ in range(2):
            client.submit(client.upload(SCORES), "Final", **config).wait(60)

    def models(*words: str) -> Any:
        asked = ["models", words[0], "by-alias", *words[1:], "--json"]
        result = CliRunner().invoke(app, asked)
        assert result.exit_code == OK, result.stderr
        return json.loads(result.stdout)

    moved = models("alias", "champion", "1", "--canary", "2", "--percent", "10")
    assert moved["canary"] == {"version": 2, "percent": 10.0}
    assert models("alias", "champion", "2")["version"] == 2
    assert models("rollback", "champion")["version"] == 1
    assert [move["how"] for move in models("history", "champion")] == ["rollback", "put", "put"]
    assert [alias["alias"] for alias in models("aliases")] == ["champion"]
    assert models("unalias", "champion") == {"deleted": "champion"}
    assert [version["version"] for version in models("versions")] == [2, 1]
    assert models("delete", "--version", "1") == {"deleted": "by-alias", "version": 1}


def test_whole_tables_are_predicted_from_a_file_and_from_a_dataset(
    descent: Command, service_url: str
) -> None:
    with Client(service_url) as client:
        dataset = client.upload(SCORES)
        config = {"model": {"type": "linear"}, "epochs": 5, "register_as": "of-tables"}
        client.submit(dataset, "Final", **config).wait(60)
    file = descent("predict", "of-tables", "--file", str(SCORES), url=service_url)
    assert len(list(csv.DictReader(io.StringIO(file.stdout)))) == 13
    whole = descent("predict", "of-tables", "--dataset", dataset.id, "--json", url=service_url)
    assert json.loads(whole.stdout)["progress"]["done"] == 13
    result = json.loads(whole.stdout)["result"]["id"]
    rows = descent("datasets", "rows", result, "--json", url=service_url)
    assert "prediction" in json.loads(rows.stdout)[0]


def test_keys_are_made_in_the_database_and_through_the_service(
    descent: Command, run_service: RunService, tmp_path: Path
) -> None:
    own = {"DESCENT_DATA_DIR": str(tmp_path / "data")}
    made = json.loads(descent("keys", "create", "first", "--json", **own).stdout)
    assert made["secret"]
    assert [key["name"] for key in json.loads(descent("keys", "list", "--json", **own).stdout)] == [
        "first"
    ]
    (tmp_path / "service").mkdir()
    with run_service(tmp_path / "service", "--no-worker", **own) as url:
        remote = {"url": url, "DESCENT_API_KEY": made["secret"]}
        second = descent("keys", "create", "second", "--remote", "--json", **remote)
        listed = descent("keys", "list", "--remote", **remote)
        assert "second" in listed.stdout
        key_id = json.loads(second.stdout)["id"]
        assert descent("keys", "delete", key_id, "--remote", **remote).returncode == OK
        assert descent("keys", "list", "--remote", url=url).returncode == REFUSED
    gone = json.loads(descent("keys", "delete", made["id"], "--json", **own).stdout)
    assert gone == {"deleted": made["id"]}


def test_a_migration_tells_what_it_did_as_json(descent: Command, tmp_path: Path) -> None:
    own = {"DESCENT_DATA_DIR": str(tmp_path)}
    first, second = (json.loads(descent("migrate", "--json", **own).stdout) for _ in range(2))
    assert (first["before"], second["before"]) == (None, first["after"])


def test_an_address_without_a_scheme_is_wrong_usage(descent: Command) -> None:
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
    unread = CliRunner().invoke(app, ["predict", "from-stdin", "Quiz=ten"])
    assert "is taken as missing" in unread.stdout


def test_a_prediction_says_how_sure_it_is(descent: Command, service_url: str) -> None:
    with Client(service_url) as client:
        config: Any = {"model": {"type": "linear"}, "split": {"type": "none"}}
        config |= {"optimizer": {"type": "lbfgs"}, "batch_size": "full", "register_as": "sure"}
        client.submit(client.upload(SCORES), "Final", **config).wait(60)
        (found,) = client.model("sure").predict({"Quiz": 10.0}, interval=0.9)
        assert found.interval == pytest.approx([5.02, 22.51], abs=0.1)
        names = list(client.model("sure").predict({"Quiz": 10.0}, interval=0.9).columns)
        assert names[:3] == ["prediction", "prediction_low", "prediction_high"]
    words = descent("predict", "sure", "Quiz=10", "--interval", "0.9", url=service_url)
    assert words.returncode == OK, words.stderr
    assert re.search(r"\[5\.0.*22\.5", words.stdout)
    refused = descent("predict", "sure", "Quiz=10", "--interval", "0.3", url=service_url)
    assert refused.returncode == REFUSED


def test_the_report_of_a_run_compares_it_with_simple_models(
    descent: Command, service_url: str
) -> None:
    with Client(service_url) as client:
        config: Any = {"model": {"type": "linear"}, "epochs": 5}
        run = client.submit(client.upload(SCORES), "Final", **config).wait(60)
    words = descent("runs", "report", run.id, url=service_url)
    assert words.returncode == OK, words.stderr
    assert "rmse of 3 validation rows" in words.stdout
    assert "few_held_out_rows: Only 3 rows" in words.stdout
    found = json.loads(descent("runs", "report", run.id, "--json", url=service_url).stdout)
    assert [each["name"] for each in found["baselines"]] == ["constant", "linear"]
