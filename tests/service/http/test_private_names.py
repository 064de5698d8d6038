"""Canaries: the undocumented names of uvicorn and FastAPI exist, and the libraries use them.

A newer minor version may rename them, so the requirements allow only the tested one.
"""

import ast
import inspect
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any

import anyio
import fastapi.dependencies.models
import fastapi.routing
import httpx
import pytest
import uvicorn
from fastapi import APIRouter, Depends, FastAPI
from fastapi.dependencies.utils import solve_dependencies
from fastapi.routing import iter_route_contexts
from packaging.requirements import Requirement
from packaging.version import Version
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http import server
from service.http.server import Compute, Whole
from service.http.strict_route import StrictRoute, query_names
from service.settings import Settings
from tests.serving import ROOT, connected, serving

#: methods of ours that asyncio and httptools call, which document them
CALLED_BY_OTHERS = frozenset(
    {
        "__init__",
        "connection_made",
        "connection_lost",
        "data_received",
        "on_body",
        "on_chunk_header",
        "on_message_complete",
    }
)
BODY = b'{"answer": 42}'


# ---- the requirements ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fastapi", "uvicorn"])
def test_the_requirement_is_bound_to_the_minor_version_that_is_tested(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = map(Requirement, project["optional-dependencies"]["server"])
    (specifier,) = (each.specifier for each in found if each.name == name)
    tested = Version(version(name))
    assert tested in specifier
    assert f"{tested.major}.{tested.minor}.999" in specifier
    assert f"{tested.major}.{tested.minor + 1}" not in specifier


# ---- uvicorn: each name that our server uses ----------------------------------------------------


OURS = ast.parse(inspect.getsource(server))


@cache
def source_of(found: type) -> ast.ClassDef:
    (tree,) = ast.parse(inspect.getsource(found)).body
    assert isinstance(tree, ast.ClassDef)
    return tree


def attributes_of(tree: ast.AST, *owners: str) -> Iterator[ast.Attribute]:
    """Yield the attributes of variables and of attributes with these names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = getattr(owner, "id", None) or getattr(owner, "attr", None)
            if name in owners:
                yield node


def names_used(ours: type, library: type) -> set[str]:
    """Return the attributes of `self` that a class of ours uses from its base."""
    attributes = list(attributes_of(source_of(ours), "self"))
    own = {each.attr for each in attributes if isinstance(each.ctx, ast.Store)} | set(vars(ours))
    theirs = set(dir(library)) | {each.attr for each in attributes_of(source_of(library), "self")}
    used = {each.attr for each in attributes}
    assert used <= own | theirs, f"{library.__name__} has no {used - own - theirs}"
    return used & theirs


def overridden(ours: type, library: type) -> set[str]:
    return {name for name in vars(ours) if callable(getattr(library, name, None))} - {
        "__doc__",
        "__init__",
    }


def is_used(library: type, name: str) -> bool:
    """Whether a method other than the constructor reads an attribute of `self`."""
    return any(
        isinstance(each.ctx, ast.Load) and each.attr == name
        for node in source_of(library).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__"
        for each in attributes_of(node, "self")
    )


@pytest.mark.parametrize(
    ("ours", "library"), [(server.Protocol, HttpToolsProtocol), (server.Server, uvicorn.Server)]
)
def test_uvicorn_itself_uses_each_name_that_a_class_of_ours_takes_from_it(
    ours: type, library: type
) -> None:
    names = names_used(ours, library)
    assert names
    unused = {name for name in names if not is_used(library, name)}
    assert unused <= CALLED_BY_OTHERS, unused


@pytest.mark.parametrize(
    ("ours", "library"), [(server.Protocol, HttpToolsProtocol), (server.Server, uvicorn.Server)]
)
def test_uvicorn_calls_each_method_that_a_class_of_ours_overrides(
    ours: type, library: type
) -> None:
    names = overridden(ours, library)
    assert {"_start_asgi_task", "send_400_response"} <= names or "main_loop" in names
    uncalled = {name for name in names - CALLED_BY_OTHERS if not is_used(library, name)}
    assert uncalled == set()


def test_uvicorn_uses_each_name_of_a_cycle_that_ours_reads_or_writes() -> None:
    names = {each.attr for each in attributes_of(OURS, "cycle")}
    assert {"response_started", "more_body", "scope", "transport", "keep_alive"} <= names
    unused = {name for name in names if not is_used(RequestResponseCycle, name)}
    assert unused == set()


def test_uvicorn_uses_each_name_of_the_flow_control_that_ours_reads() -> None:
    names = {each.attr for each in attributes_of(OURS, "flow")}
    assert names == {"read_paused", "write_paused"}
    assert {name for name in names if not is_used(FlowControl, name)} == set()


def test_uvicorn_sets_the_headers_that_ours_writes() -> None:
    tick = inspect.getsource(uvicorn.Server.on_tick)
    assert "self.server_state.default_headers =" in tick
    cycle = inspect.getsource(HttpToolsProtocol.on_headers_complete)
    assert "default_headers=self.server_state.default_headers" in cycle


def test_a_request_has_a_scope_of_its_own_which_its_cycle_keeps() -> None:
    assert "self.scope = {" in inspect.getsource(HttpToolsProtocol.on_message_begin)
    assert "scope=self.scope," in inspect.getsource(HttpToolsProtocol.on_headers_complete)


# ---- uvicorn: a request through our classes -----------------------------------------------------


class Recorder(FastAPI):
    """An app that answers POSTs at once, and reports the transport of every other answer."""

    def __init__(self) -> None:
        super().__init__()
        self.state.settings = Settings()
        self.state.end_streams = lambda: None
        self.transports: list[object] = []
        self.asked: list[Scope] = []

    def at_once(self, scope: Scope) -> Compute | None:
        self.asked.append(scope)
        head = b"HTTP/1.1 200 OK\r\nx-way: at once\r\ncontent-length: %d\r\n" % len(BODY)
        return (lambda _body: (head, BODY)) if scope["method"] == "POST" else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        cycle: Any = send.__self__  # type: ignore[attr-defined]
        assert isinstance(cycle, RequestResponseCycle)
        assert cycle.scope is scope
        self.transports.append(cycle.transport)
        head = [(b"content-length", b"%d" % len(BODY)), (b"x-way", b"task")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": BODY})


def test_requests_pass_through_our_overrides() -> None:
    app = Recorder()
    with serving(app) as url, httpx.Client(base_url=url) as client:
        for _ in range(2):
            quick, slow = client.post("/", content=b"{}"), client.get("/")
            assert (quick.headers["x-way"], slow.headers["x-way"]) == ("at once", "task")
            assert quick.headers["date"]
            assert quick.content == slow.content == BODY
    assert [scope["method"] for scope in app.asked] == ["POST", "GET"] * 2
    assert [type(each) for each in app.transports] == [Whole, Whole]


def test_a_malformed_request_reaches_our_override() -> None:
    with serving(Recorder()) as url, connected(httpx.URL(url)) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"application/problem+json" in answer


# ---- FastAPI ------------------------------------------------------------------------------------


def test_fastapi_calls_what_the_strict_route_overrides_in_included_routers() -> None:
    called: list[str] = []

    class Recording(StrictRoute):
        def get_route_handler(self) -> Any:
            called.append("get_route_handler")
            return fastapi.routing.APIRoute.get_route_handler(self)

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            called.append("handle")
            await super().handle(scope, receive, send)

    inner, outer, app = APIRouter(prefix="/b", route_class=Recording), APIRouter(), Recorder()

    @inner.get("/{name}")
    def endpoint(name: str) -> str:
        return name

    outer.include_router(inner, prefix="/a")
    app.include_router(outer)
    seen: list[Scope] = []

    async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await FastAPI.__call__(app, scope, receive, send)

    transport = httpx.ASGITransport(recorded)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/a/b/c")

    assert anyio.run(ask).json() == "c"
    assert called[-1] == "handle"
    assert "get_route_handler" in called
    # The middleware reads the template of a path here.
    (scope,) = seen
    templates = {each.endpoint: each.path for each in iter_route_contexts(app.routes)}
    assert templates[scope["endpoint"]] == "/a/b/{name}"


def test_a_dependant_lists_the_fields_of_a_query() -> None:
    app = FastAPI()

    def deeper(c: int = 0) -> int:
        return c

    @app.get("/")
    def endpoint(b: int, d: Annotated[int, Depends(deeper)]) -> int:
        return b + d

    (dependant,) = (
        each.original_route.dependant
        for each in iter_route_contexts(app.routes)
        if each.endpoint is endpoint and isinstance(each.original_route, fastapi.routing.APIRoute)
    )
    assert isinstance(dependant, fastapi.dependencies.models.Dependant)
    assert query_names(dependant) == ("b", "c")
    assert "dependant.query_params" in inspect.getsource(solve_dependencies)
