"""Rules for every module: restricted packages, short files, no unpickling."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.datasets import sandbox
from service.work import KINDS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("descent", "models", "service", "migrations")
MAX_FILE = 600  # lines
MAX_FUNCTION = 60  # lines
#: functions that may be longer, with the reason
LONG = {"models.training.loop.train": "the training loop is on one page"}
#: the modules that the warm parents have imported
PRELOADED = ", ".join((*(kind.module for kind in KINDS), *sandbox.WARM))
#: package → the modules that may import it
RESERVED = {
    "fastapi": (
        "service.app",
        "service.system",
        "service.http",
        "service.access.routes",
        "service.jobs.streams",
        "service.jobs.waiting",
        "service.datasets.routes",
        "service.registry.routes",
        "service.registry.serving",
        "service.runs.routes",
        "service.sweeps.routes",
        "service.predict.contracts",
        "service.predict.evaluations",
        "service.predict.routes",
        "service.protocols.oip",
        "service.protocols.invocations",
        "service.exports.routes",
        "service.batch.routes",
    ),
    # Tests below load modules to check which of these the API may load.
    "torch": ("models", "service.runs.train"),
    "sqlalchemy": ("service", "migrations"),
    "obstore": ("service.storage.s3",),
    "httpx": ("descent",),
    "typer": ("descent.cli", "descent.demo"),
}
#: the one module with imports inside its commands, so that each command loads only its own
LATE = "service.__main__"
#: the module that may fork: its process loads only the modules that attempts need
FORKS = "service.worker.launch"
#: This one forks the process of an attempt, which uses no storage either.
FORKS_ATTEMPTS = "service.datasets.sandbox"
#: Two modules fork processes and load the code of their children by name: it loads torch or Arrow,
#: which a supervisor and the API must not.
NAMING = {"service.worker.launch", "service.datasets.sandbox"}
NEVER = ("pickle", "shelve", "marshal", "dill", "cloudpickle")


def modules() -> dict[str, Path]:
    """Return every module of ours by its name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports_of(name: str) -> Iterator[str]:
    """Yield the full names of the imports of a module; for our names, the name of their module."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def is_in(name: str, listed: str) -> bool:
    return name == listed or name.startswith(listed + ".")


def test_the_face_the_learning_and_the_serving_know_only_what_is_below_them() -> None:
    for name in MODULES:
        tops = {imported.partition(".")[0] for imported in imports_of(name)}
        if is_in(name, "descent"):
            assert not tops & {"service", "torch", "sqlalchemy", "fastapi"}, name
            inner = {each for each in imports_of(name) if is_in(each, "models")}
            # A configuration names an architecture, which knows neither arrays nor tensors.
            assert all(is_in(each, "models.architectures") for each in inner), name
        if is_in(name, "models"):
            assert not tops & {"service", "sqlalchemy", "fastapi", "httpx"}, name


@pytest.mark.parametrize("package", RESERVED)
def test_a_package_appears_only_where_it_belongs(package: str) -> None:
    users = [
        name for name in MODULES if any(is_in(imported, package) for imported in imports_of(name))
    ]
    assert [user for user in users if not any(is_in(user, at) for at in RESERVED[package])] == []


def test_nothing_is_imported_inside_a_function() -> None:
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if name != LATE
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert wrong == []


def test_modules_are_named_as_text_only_where_a_process_must_not_load_them() -> None:
    """In other modules, a name passed to `import_module` would hide an import from these tests."""
    users = {name for name in MODULES if "importlib" in set(imports_of(name))}
    assert {name for name in users if is_in(name, "service") or is_in(name, "models")} == NAMING


def test_nothing_unpickles_or_evaluates() -> None:
    for name, tree in TREES.items():
        assert not {imported.partition(".")[0] for imported in imports_of(name)} & set(NEVER), name
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"eval", "exec", "compile", "__import__"}, name


def test_nothing_forks_a_process_that_may_have_used_the_storage() -> None:
    """Obstore's threads would be missing in the fork, which hangs: the warm parent has none."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute | ast.Name):
                used = node.attr if isinstance(node, ast.Attribute) else node.id
                may_fork = {"fork"} if name == FORKS else set()
                assert used not in {"fork", "forkpty", "set_start_method"} - may_fork, name
            if isinstance(node, ast.Call):
                assert "preexec_fn" not in {keyword.arg for keyword in node.keywords}, name
                asks_for = {getattr(argument, "value", None) for argument in node.args}
                assert "fork" not in asks_for or name == FORKS_ATTEMPTS, name
    assert "obstore" not in loaded_by(f"import {FORKS}, {PRELOADED}")


def test_the_processes_that_compute_load_no_database_and_no_web_framework() -> None:
    heavy = {"sqlalchemy", "alembic", "psycopg", "starlette", "fastapi", "httpx"}
    assert not loaded_by(f"import {PRELOADED}") & heavy


def test_files_are_short_enough_to_be_read_at_once() -> None:
    tests = {str(path.relative_to(ROOT)): path for path in (ROOT / "tests").rglob("*.py")}
    lengths = {
        name: len(path.read_text().splitlines())
        for name, path in (MODULES | tests).items()
        if not is_in(name, "migrations.versions")  # generated
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE} == {}


def test_functions_are_short() -> None:
    wrong = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, tree in TREES.items()
        if not is_in(name, "migrations.versions")  # generated
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION
    }
    assert {name: lines for name, lines in wrong.items() if name not in LONG} == {}


def test_every_module_says_what_it_knows() -> None:
    silent = [name for name, tree in TREES.items() if tree.body and ast.get_docstring(tree) is None]
    assert silent == []


@functools.cache
def loaded_by(statement: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after a statement."""
    script = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import service.serve, service.__main__",
        "import service.__main__, service.work",
    ],
)
def test_the_api_and_the_supervisor_never_load_torch(statement: str) -> None:
    assert not loaded_by(statement) & {"torch", "scipy", "sklearn", "pandas"}


def test_the_supervisor_loads_no_web_framework_and_nothing_that_predicts() -> None:
    heavy = {"fastapi", "starlette", "uvicorn", "pyarrow", "duckdb", "onnx", "onnxruntime"}
    assert not loaded_by("import service.__main__, service.work") & heavy


def test_the_client_is_light() -> None:
    heavy = {"torch", "numpy", "fastapi", "starlette", "sqlalchemy", "service", "pyarrow"}
    heavy |= {"pandas", "polars", "matplotlib", "IPython"}  # only on request
    assert not loaded_by("import descent") & (heavy | {"httpx", "pydantic"})
    assert not loaded_by("from descent import Client") & heavy
    assert not loaded_by("import descent.cli") & heavy


def test_importing_the_package_makes_no_app_and_reads_no_environment() -> None:
    assert loaded_by("import service") <= loaded_by("pass") | {"service"}
