"""The rooms of the program, from the top down: each imports only rooms below it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Rooms on one line do not import each other. Modules directly in a package, such as `service.app`,
#: are the top of the package in the line that lists it without a star.
ROOMS = """
service
service.worker
service.batch service.proofs service.exports service.sweeps
service.protocols
service.predict
service.runs
service.registry
service.datasets
service.jobs
service.access
service.http
service.storage
service.settings service.errors service.storage.columns service.logs service.settings
models.training models.export
models.engine models.predict
models.model
models.nets
models.features
models.data models.checkpoint
models.errors models.failpoints models.reading
models
descent
models.architectures
models.nets.graph
descent.fields
"""
LEVELS = {
    room: level for level, line in enumerate(ROOMS.strip().splitlines()) for room in line.split()
}


def modules() -> dict[str, Path]:
    """Return every module of ours by its name."""
    found = {}
    for package in ("descent", "models", "service"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports_of(name: str) -> Iterator[str]:
    """Yield the full names of the modules that a module imports."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


IMPORTS = {name: {i for i in imports_of(name) if i in MODULES} - {name} for name in MODULES}


def room_of(name: str) -> str:
    """Return the innermost room that a module is in."""
    return max((r for r in LEVELS if name == r or name.startswith(f"{r}.")), key=len)


def test_each_room_imports_only_rooms_below_it() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name, imports in IMPORTS.items()
        for imported in imports
        if imported != "service"
        and room_of(name) != room_of(imported)
        and LEVELS[room_of(name)] >= LEVELS[room_of(imported)]
    ]
    assert wrong == []


def test_there_is_no_import_cycle() -> None:
    graph = dict(IMPORTS)
    while leaves := {name for name, needs in graph.items() if not needs}:
        graph = {name: needs - leaves for name, needs in graph.items() if name not in leaves}
    assert graph == {}


def test_each_room_says_what_it_knows() -> None:
    packages = [name for name, path in MODULES.items() if path.name == "__init__.py"]
    assert [
        name for name in packages if not ast.get_docstring(ast.parse(MODULES[name].read_text()))
    ] == []
