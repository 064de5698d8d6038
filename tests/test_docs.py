"""The documents agree with the code: settings, states, error codes, calls, pinned versions."""

import configparser
import contextlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text as sql

from descent import output
from descent.codes import ERROR_CODES, FINDING_CODES, WARNING_CODES
from descent.spec import RunConfig
from models.architectures import ARCHITECTURES
from models.nets.graph import KINDS
from service.runs.lifecycle import TRANSITIONS
from service.settings import Settings
from service.storage.database import create_database
from tests import curl
from tests.conftest import MakeDatabase
from tests.documents import ADDRESS, PAGES, RUN, SERVER, Block, Reader, blocks
from tests.serving import RunService

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SETTINGS = {f"DESCENT_{name.upper()}" for name in Settings.model_fields}
PRODUCTION = "docs/production.md"


def settings_table() -> str:
    """Return the table that the README must contain."""
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


def allowed(name: str) -> str:
    """Return the allowed values of a setting in words."""
    limits = {type(limit).__name__: limit for limit in Settings.model_fields[name].metadata}
    low, high = getattr(limits.get("Ge"), "ge", None), getattr(limits.get("Le"), "le", None)
    pattern = getattr(limits.get("_PydanticGeneralMetadata"), "pattern", "")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if words := re.fullmatch(r"\^\(([a-z|]+)\)\$", pattern):
        return ", ".join(f"`{word}`" for word in words[1].split("|"))
    return f"at least {low}" if low is not None else "above 0" if "Gt" in limits else ""


def setting_row(name: str) -> str:
    """Return the line that the page of settings must contain for one of them."""
    field = Settings.model_fields[name]
    default = "" if field.default in (None, "", ()) else f"`{field.default}`"
    return f"| `DESCENT_{name.upper()}` | {default} | {allowed(name)} | {field.description} |"


def test_the_page_of_concepts_shows_a_configuration_of_every_architecture() -> None:
    page = (ROOT / "docs" / "concepts.md").read_text()
    shown = re.findall(r'^\{"model": (\{.*\})\}$', page, re.MULTILINE)
    models = [RunConfig(dataset="ds_1", target="y", model=json.loads(each)).model for each in shown]
    assert {each.type for each in models} == ARCHITECTURES.keys()
    operations = page[page.index("The operations are") :].partition(";")[0]
    assert set(re.findall(r"`(\w+)`", operations)) == KINDS.keys()


def test_the_page_of_settings_lists_each_one_once_with_what_it_may_be() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    listed = [line for line in page.splitlines() if line.startswith("| `DESCENT_")]
    assert sorted(listed) == sorted(map(setting_row, Settings.model_fields))


@pytest.mark.parametrize("name", [*PAGES, "Makefile", "Dockerfile", "docker-compose.yml"])
def test_files_name_only_settings_that_exist(name: str) -> None:
    named = set(re.findall(r"DESCENT_[A-Z_]+[A-Z]", (ROOT / name).read_text()))
    families = {"DESCENT_MAX", "DESCENT_PARSE", "DESCENT_PREDICT"}  # as in `DESCENT_MAX_…`
    assert named <= SETTINGS | families | {"DESCENT_URL"}


def test_the_targets_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"\bmake (\w+)(?=[` ])", README)
    named += [
        name for page in PAGES for name in re.findall(r"`make ([\w-]+)", (ROOT / page).read_text())
    ]
    assert set(named) <= targets


def test_ci_runs_exactly_what_make_test_runs() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if "make" in line and line[0] != "#"] == ["exec make test"]


# ---- error codes ------------------------------------------------------------------------------


CODES = ERROR_CODES | WARNING_CODES | FINDING_CODES


def test_the_page_of_errors_lists_every_code() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert sorted(CODES - listed) == []
    assert sorted(listed - CODES) == []


def test_every_code_is_used() -> None:
    paths = [*ROOT.glob("service/**/*.py"), *ROOT.glob("models/**/*.py")]
    words = {word for path in paths for word in re.findall(r'"(\w+)"', path.read_text())}
    assert sorted(CODES - words) == []


# ---- the faults -------------------------------------------------------------------------------


def test_each_fault_of_the_readme_names_a_test() -> None:
    table = README.partition("<!-- faults -->")[2].partition("<!-- /faults -->")[0]
    named = re.findall(r"\| `(test_\w+)` \|$", table, re.MULTILINE)
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) == len(table.strip().splitlines()) - 2
    assert [name for name in named if f"def {name}(" not in sources] == []


# ---- the blocks of the pages ------------------------------------------------------------------


def check_ini(text: str) -> None:
    """Check that systemd can read it and that it starts the service with existing settings."""
    unit = configparser.ConfigParser(strict=False)
    unit.read_string(text)
    assert unit["Service"]["ExecStart"].endswith("/descent serve")
    assert unit["Service"]["Environment"].partition("=")[0] in SETTINGS


def check_yaml(text: str) -> None:
    """Check that Prometheus can read it and that its metrics exist."""
    yaml.safe_load(text)
    sources = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    metrics = set(re.findall(r"\bdescent_[a-z_]+", text))
    families = {re.sub(r"_(total|bucket|sum|count)$", "", metric) for metric in metrics}
    assert [name for name in families if f'"{name}"' not in sources] == []


def check_nginx(text: str) -> None:
    """Check that every line ends as nginx requires, and that the braces match."""
    assert text.count("{") == text.count("}")
    assert [line for line in text.splitlines() if not line.endswith(("{", "}", ";"))] == []


def check_mermaid(text: str) -> None:
    """Check that the arrows of a diagram connect only names that it declares.

    The lines of the state diagram are compared with the table of transitions above.
    """
    kind, _, lines = text.partition("\n")
    if kind == "stateDiagram-v2":
        return
    if kind == "sequenceDiagram":
        declared = re.findall(r"^ +participant (\w+) as ", lines, re.MULTILINE)
        arrow = r"^ +(\w+)--?>>(\w+): "
    else:
        assert kind == "flowchart LR"
        declared = re.findall(r"^ +(\w+)\[", lines, re.MULTILINE)
        arrow = r'^ +(\w+) <?-[-.] ".*" [-.]-> (\w+)$'
    arrows = re.findall(arrow, lines, re.MULTILINE)
    assert len(arrows) == lines.count(">>" if kind == "sequenceDiagram" else "->")
    assert {name for pair in arrows for name in pair} == set(declared)


def check_config(text: str) -> None:
    """Check that it is a valid part of a run's configuration."""
    RunConfig.model_validate({"dataset": "ds_1", "target": "a target"} | json.loads(text))


#: the checks of blocks that are neither run nor the output of another block
CHECKS: dict[str, Callable[[str], None]] = {
    "ini": check_ini,
    "json": check_config,
    "mermaid": check_mermaid,
    "nginx": check_nginx,
    "yaml": check_yaml,
}
#: Blocks that are not run here, by a piece of their text, with the reason.
ELSEWHERE = {
    "make demo     #": "test_story runs the demo, and `make test` is what runs this",
    "DESCENT_API_KEY=<a secret> docker compose": "needs Docker",
    "docker compose up --scale worker=3": "needs Docker",
    "/v2/models/scores/infer": "tests/service/protocols/test_other_clients.py runs it",
    "from tritonclient": "tests/service/protocols/test_other_clients.py runs it",
}


def is_elsewhere(block: Block) -> bool:
    return any(text in block.text for text in ELSEWHERE)


ALL = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("text", ELSEWHERE)
def test_what_is_not_run_here_is_one_block(text: str) -> None:
    (block,) = [block for block in ALL if text in block.text]
    if "docker" in text:
        for line in block.text.splitlines():
            assert "docker compose" in line


@pytest.mark.parametrize("block", ALL, ids=str)
def test_no_block_is_left_untested(block: Block) -> None:
    if block.language in RUN or block.is_output:
        return  # run below, or elsewhere
    assert block.language in CHECKS, f"{block}: nobody runs or checks {block.language!r}"
    CHECKS[block.language](block.text)


@pytest.fixture
def several_machines(
    s3_url: str, make_database: MakeDatabase, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """Return replacements for the database and the storage of the page about production."""
    with make_database("postgresql", tmp_path) as url:
        engine = create_database(url)
        with engine.begin() as connection:  # as it is before `descent migrate`
            connection.execute(sql("DROP SCHEMA public CASCADE"))
            connection.execute(sql("CREATE SCHEMA public"))
        engine.dispose()
        yield {
            "postgresql://descent:a-password@db.internal/descent": shlex.quote(url),
            "s3://our-bucket/descent": f"{s3_url}/production",
        }


@pytest.mark.parametrize("page", [page for page in PAGES if page != PRODUCTION])
def test_what_a_page_says_is_so(page: str, run_service: RunService, tmp_path: Path) -> None:
    found = [block for block in blocks(page) if not is_elsewhere(block)]
    commands_of = [block.text for block in found if block.language in RUN]
    with contextlib.ExitStack() as stack:
        texts = {}
        if commands_of and not any(SERVER.search(text) for text in commands_of):
            (tmp_path / "service").mkdir()
            texts[ADDRESS] = stack.enter_context(run_service(tmp_path / "service"))
        stack.enter_context(Reader(tmp_path, texts)).read(found)


def test_what_is_said_of_production_is_so(several_machines: dict[str, str], tmp_path: Path) -> None:
    found = [block for block in blocks(PRODUCTION) if not is_elsewhere(block)]
    with Reader(tmp_path, several_machines) as reader:
        reader.read(found)


def test_make_serve_is_descent_serve() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nserve:")[2].partition("\n\n")[0]
    assert recipe.splitlines()[-1] == "\t@exec $(BIN)/descent serve"


@pytest.mark.skipif(not curl.is_here(), reason="then every page is read with the stand-in")
def test_the_first_calls_can_be_made_with_the_stand_in_for_curl(
    run_service: RunService, tmp_path: Path
) -> None:
    (tmp_path / "service").mkdir()
    before = [block for block in blocks("docs/http.md") if "/api/v1/runs" not in block.text]
    with (
        run_service(tmp_path / "service") as url,
        Reader(tmp_path, {ADDRESS: url}, with_curl=False) as reader,
    ):
        reader.read(before[:6])


def test_the_story_of_a_run_touches_few_files_and_all_are_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    story = text.partition("<!-- story -->")[2].partition("<!-- /story -->")[0]
    files = re.findall(r"^\d+\. `([^`]+)`", story, re.MULTILINE)
    assert 0 < len(files) <= 25
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text()
        for link in re.findall(r"\]\(([^)]+)\)", text):
            name, _, heading = link.partition("#")
            target = (ROOT / page).parent / name if name else ROOT / page
            assert target.exists(), f"{page}: {link}"
            if heading:
                assert heading in anchors(target.read_text()), f"{page}: {link}"


def anchors(text: str) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    files = {path.name for path in (ROOT / "docs").iterdir() if path.is_file()}
    assert set(re.findall(r"\]\(([\w.]+)\)", index)) == files - {"README.md"}


def test_the_page_of_clients_tells_what_every_exit_code_means() -> None:
    page = (ROOT / "docs" / "clients.md").read_text()
    for code, meaning in output.MEANINGS.items():
        assert f"| {code} | {meaning} |" in page


# ---- versions ---------------------------------------------------------------------------------


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(name: str, extras: frozenset[str], found: set[str]) -> set[str]:
    """Add to `found` the requirements of an installed distribution; skip uninstalled ones."""
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
