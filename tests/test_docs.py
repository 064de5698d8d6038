"""The documents say what the code does: settings, states, error codes, calls, pinned versions."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import pytest

from descent import exit_codes
from service import problems
from service.runs.lifecycle import TRANSITIONS
from service.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
#: Codes that the sources make from other words.
SPELLED_ELSEWHERE = {*problems.CODES.values(), problems.OTHER}
ADDRESS = "http://127.0.0.1:8000"


def settings_table() -> str:
    """Return the table that the README must hold."""
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "", ()) else f"`{field.default}`"
        lines.append(f"| `DESCENT_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    found = re.search(r"<!-- settings -->\n(.*)<!-- /settings -->", README, re.DOTALL)
    assert found
    assert found[1].strip() == settings_table()


def test_the_readme_draws_every_transition_of_a_run() -> None:
    drawn = set(re.findall(r"^ {4}(\w+) --> (\w+)", README, re.MULTILINE))
    allowed = {(old, new) for old, following in TRANSITIONS.items() for new in following}
    assert drawn == allowed


@pytest.mark.parametrize("name", ["README.md", "Makefile", "Dockerfile", "docker-compose.yml"])
def test_files_name_only_settings_that_exist(name: str) -> None:
    named = set(re.findall(r"DESCENT_[A-Z_]+[A-Z]", (ROOT / name).read_text()))
    settings = {f"DESCENT_{setting.upper()}" for setting in Settings.model_fields}
    assert named <= settings | {"DESCENT_URL"}


def test_the_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)(?=[` ])", README)) <= targets


def test_ci_runs_exactly_what_make_test_runs() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if "make" in line and line[0] != "#"] == ["exec make test"]


# ---- error codes ------------------------------------------------------------------------------


def places(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the functions and classes that take a `code`, and the position of it."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name, args=arguments):
                names = [argument.arg for argument in arguments.args]
                names = names[1:] if names[:1] == ["self"] else names
            case ast.ClassDef(name=name, body=body):
                init = [f for f in body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
                names = [argument.arg for f in init for argument in f.args.args[1:]] or [
                    field.target.id
                    for field in body
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                ]
            case _:
                continue
        if "code" in names and name != "__init__":
            yield name, names.index("code")


def codes_in(tree: ast.AST, positions: dict[str, int]) -> Iterator[str]:
    """Yield the constants that a module gives as `code`, in whatever way."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="code", value=value):
                yield from constants(value)
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                yield from constants(value)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "code":
                        yield from constants(value)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments):
                for value in arguments[positions.get(name, 99) :][:1]:
                    yield from constants(value)


def constants(node: ast.expr) -> Iterator[str]:
    branches = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    for branch in branches:
        if isinstance(branch, ast.Constant) and isinstance(branch.value, str):
            yield branch.value


def test_the_page_of_errors_lists_every_code() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    paths = [*ROOT.glob("service/**/*.py"), *ROOT.glob("models/**/*.py")]
    trees = [ast.parse(path.read_text()) for path in paths]
    public = {name: n for tree in trees for name, n in places(tree) if not name.startswith("_")}
    used = {code for tree in trees for code in codes_in(tree, public | dict(places(tree)))}
    assert sorted((used | SPELLED_ELSEWHERE) - listed) == []
    assert sorted(listed - used - SPELLED_ELSEWHERE) == []


# ---- the faults -------------------------------------------------------------------------------


def test_each_fault_of_the_readme_names_a_test() -> None:
    table = README.partition("<!-- faults -->")[2].partition("<!-- /faults -->")[0]
    named = re.findall(r"\| `(test_\w+)` \|$", table, re.MULTILINE)
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) == len(table.strip().splitlines()) - 2
    assert [name for name in named if f"def {name}(" not in sources] == []


# ---- the calls of the README ------------------------------------------------------------------


def blocks(kind: str) -> list[str]:
    return re.findall(rf"<!-- tested: {kind} -->\n```\w+\n(.*?)```", README, re.DOTALL)


def block(kind: str) -> str:
    (found,) = blocks(kind)
    return found


def curl(line: str, client: httpx.Client, folder: Path) -> httpx.Response:
    """Do what curl would do with the options that the README uses."""
    words = iter(shlex.split(line)[1:])
    method, content, url = "GET", None, ""
    headers: dict[str, str] = {}
    for word in words:
        if word == "-H":
            name, value = next(words).split(": ")
            headers[name] = value
        elif word == "--json":
            method, content = "POST", next(words).encode()
            headers["Content-Type"] = "application/json"
        elif word == "--data-binary":
            method, content = "POST", (folder / next(words).removeprefix("@")).read_bytes()
        elif word != "-N":
            url = word
    path = url.removeprefix(ADDRESS)
    return client.request(method, path, content=content, headers=headers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "descent" / "data", tmp_path / "descent" / "data")
    return tmp_path


def test_the_five_calls_of_the_readme_lead_to_a_prediction(
    service: httpx.Client, folder: Path
) -> None:
    lines = re.split(r"^#.*\n", block("curl").replace("\\\n", ""), flags=re.MULTILINE)
    answers: list[Any] = []
    ids: dict[str, str] = {}
    for line in lines:
        if not line.startswith("curl"):
            continue
        for prefix, known in ids.items():
            line = line.replace(f"{prefix}_…", known)  # noqa: PLW2901  the placeholder's value
        response = curl(line, service, folder)
        assert response.is_success, response.text
        if response.headers["Content-Type"].startswith("application/json"):
            answers.append(response.json())
            if "id" in answers[-1]:
                ids[answers[-1]["id"].split("_")[0]] = answers[-1]["id"]
        else:
            assert "event: end" in response.text
    assert len(answers) == 4
    assert [round(row["value"]) for row in answers[-1]["predictions"]] == [14, 15]


def test_the_python_of_the_readme_runs(
    service: httpx.Client, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(folder)
    mpl.use("agg")
    first, second = blocks("python")
    for source in (first, second):
        names: dict[str, Any] = {}
        address = str(service.base_url).rstrip("/")
        exec(compile(source.replace(ADDRESS, address), "README.md", "exec"), names)  # noqa: S102  our own document
        names["client"].close()
    output = capsys.readouterr().out
    assert "Quiz" in output
    assert "metrics" in output
    assert "invalid" in output
    assert (folder / "loss.png").exists()


def test_no_python_of_the_readme_is_left_untested() -> None:
    tested = [*blocks("python"), *blocks("clients")]
    assert re.findall(r"```python\n(.*?)```", README, re.DOTALL) == tested


def test_the_shell_of_the_readme_leads_to_a_prediction(service: httpx.Client, folder: Path) -> None:
    found: dict[str, str] = {}
    output = ""
    for line in block("shell").splitlines():
        words = [found.get(word, word) for word in shlex.split(line, comments=True)]
        done = subprocess.run(
            [sys.executable, "-m", *words],
            env=os.environ | {"DESCENT_URL": str(service.base_url), "PYTHONPATH": str(ROOT)},
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        output = done.stdout
        found |= {f"{made.partition('_')[0]}_…": made for made in re.findall(r"ds_\w{26}", output)}
    assert 10 < float(output) < 20


def test_the_readme_tells_what_every_exit_code_means() -> None:
    for code, meaning in exit_codes.MEANINGS.items():
        assert f"| {code} | {meaning} |" in README


# ---- versions ---------------------------------------------------------------------------------


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(name: str, extras: frozenset[str], found: set[str]) -> set[str]:
    """Add to `found` what an installed distribution needs; what is not installed is left out."""
    for text in metadata.requires(name) or []:
        requirement = re.match(r"([\w.-]+)(?:\[([\w,.-]+)\])?", text)
        extra = re.search(r"extra == ['\"]([\w.-]+)['\"]", text)
        assert requirement
        dependency = normal(requirement[1])
        if (extra and extra[1] not in extras) or dependency in found:
            continue
        try:
            metadata.version(dependency)
        except metadata.PackageNotFoundError:
            continue  # for another system, as its marker says
        found.add(dependency)
        if dependency != "torch":  # its builds need different packages
            needed(dependency, frozenset((requirement[2] or "").split(",")), found)
    return found


def test_every_package_that_the_tests_run_with_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    found = needed("descent", frozenset({"dev", "server"}), set()) - {"descent"}
    installed = {name: metadata.version(name).split("+")[0] for name in found}
    assert installed == {name: pinned.get(name, "no pin") for name in installed}
