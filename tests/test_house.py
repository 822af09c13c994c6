"""The laws of the house that neither ruff, mypy nor the import contracts can express; see CONTRIBUTING.md.
Counterpart: pyproject.toml, which holds the others."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "src" / "vedette"
LOCKS = sorted((PROJECT / "requirements").glob("*.txt"))
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))

# Rooms that the base install runs; what only the extra `hub` brings must not be imported there.
BASE_ROOMS = {"model", "text", "system", "sources", "parsers", "rules", "detections", "inventory"}
# What is imported where a Chef server, the lake or HTTP is asked for, and nowhere else.
ONLY_WITH_HUB = {
    "inventory/chef_client.py",
    "inventory/chef_signing.py",
    "rules/query.py",
    "sources/http_server.py",
    "sources/otlp_records.py",
}
EMPTY_NAMES = {"utils", "util", "core", "common", "helpers", "helper", "misc"}

# Split, so that this file does not contain what it forbids.
_REGISTRIES = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "deb" + ".debian.org",
    "security" + ".debian.org",
    "npm" + "js.org",
]
_MACHINE = ["/wo" + "rk/", "/opt/" + "wheels", "/opt/" + "pypi", ".py" + "env/", "/tmp/" + "brief"]
FORBIDDEN = re.compile("|".join(re.escape(text) for text in _REGISTRIES + _MACHINE))


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def tracked_files() -> Iterator[Path]:
    """Files git knows or would add; outside a checkout (an unpacked archive) every file but what tools made."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=PROJECT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        hidden_or_made = re.compile(r"(^|/)(\.venv|\.git|__pycache__|\.[a-z_]*cache|\.hypothesis)(/|$)")
        paths = (path for path in PROJECT.rglob("*") if not hidden_or_made.search(str(path.relative_to(PROJECT))))
    else:
        paths = (PROJECT / name.decode() for name in listed.split(b"\0") if name)
    return (path for path in paths if path.is_file())


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def test_there_are_modules_and_locks_to_judge():
    assert PACKAGE / "__init__.py" in modules()
    assert {lock.name for lock in LOCKS} == {"base.txt", "build.txt", "dev.txt", "fuzz.txt", "hub.txt"}


def test_every_module_says_its_role_and_its_counterpart_in_two_lines():
    wrong = []
    for path in modules():
        docstring = ast.get_docstring(ast.parse(path.read_bytes()))
        if docstring is None or len(docstring.splitlines()) != 2:
            wrong.append(str(path.relative_to(PROJECT)))
    assert not wrong, "the module docstring is two lines, role and counterpart"


def test_no_room_or_module_has_an_empty_name():
    names = {part.removesuffix(".py") for path in modules() for part in path.relative_to(PACKAGE).parts}
    assert not names & EMPTY_NAMES


def test_the_base_install_imports_nothing_that_only_the_hub_has():
    libraries = {
        re.split(r"[<>=\[ ]", line)[0].replace("-", "_")
        for line in PYPROJECT["project"]["optional-dependencies"]["hub"]
    }
    assert "duckdb" in libraries
    wrong = [
        f"{path.relative_to(PROJECT)} imports {name}"
        for room in sorted(BASE_ROOMS)
        for path in sorted((PACKAGE / room).rglob("*.py")) + sorted(PACKAGE.glob(f"{room}.py"))
        if str(path.relative_to(PACKAGE)) not in ONLY_WITH_HUB
        for name in imported(ast.parse(path.read_bytes()))
        if name.split(".")[0] in libraries
    ]
    assert not wrong


def test_what_only_works_with_the_hub_is_imported_when_it_is_asked_for():
    names = {"vedette." + name.removesuffix(".py").replace("/", ".") for name in ONLY_WITH_HUB}
    importers = set()
    for path in modules():
        if str(path.relative_to(PACKAGE)) in ONLY_WITH_HUB:
            continue
        tree = ast.parse(path.read_bytes())
        importers |= {str(path.relative_to(PACKAGE)) for name in imported(tree) if name in names}
        at_once = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
        for node in at_once:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                assert not names & set(imported(node)), path
    assert "inventory/chef.py" in importers


def test_no_tracked_file_names_a_registry_or_a_path_of_one_machine():
    wrong = []
    for path in tracked_files():
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), 1):
            if FORBIDDEN.search(line):
                wrong.append(f"{path.relative_to(PROJECT)}:{number}: {line.strip()[:80]}")
    assert not wrong


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_every_library_with_a_hash_and_names_no_index(lock: Path):
    text = lock.read_text("utf-8")
    assert "://" not in text
    entries = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", entry), entry


def test_locks_agree_with_each_other_and_with_pyproject():
    def pins(name: str) -> dict[str, str]:
        text = (PROJECT / "requirements" / f"{name}.txt").read_text("utf-8")
        return dict(re.findall(r"(?m)^([a-z0-9.-]+)==([^ ;]+)", text))

    def declared(lines: list[str]) -> set[str]:
        return {re.sub(r"[._]", "-", re.split(r"[<>=\[ ]", line)[0]).lower() for line in lines}

    everything = pins("dev")
    for smaller in ("base", "hub", "build"):
        assert pins(smaller).items() <= everything.items(), smaller
    project = PYPROJECT["project"]
    assert declared(project["dependencies"]) <= pins("base").keys() <= pins("hub").keys()
    assert declared(project["optional-dependencies"]["hub"]) <= pins("hub").keys()
    assert declared(project["optional-dependencies"]["dev"]) <= everything.keys()
    assert declared(PYPROJECT["build-system"]["requires"]) <= pins("build").keys()


def test_ci_runs_what_a_person_runs():
    lines = [
        line for line in (PROJECT / ".ci" / "run").read_text("utf-8").splitlines() if line and not line.startswith("#")
    ]
    assert lines[-1] == "exec make test"
    assert len(lines) == 3


def test_links_between_documents_lead_somewhere():
    broken = []
    for path in [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(PROJECT)}: {target}")
    assert not broken


def test_commands_named_in_documents_are_targets():
    targets = set(re.findall(r"(?m)^([a-z-]+):", (PROJECT / "Makefile").read_text("utf-8")))
    assert "test" in targets
    documents = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
    named = {name for path in documents for name in re.findall(r"(?m)(?:^|`)make ([a-z-]+)", path.read_text("utf-8"))}
    assert "up" in named
    assert named <= targets


def test_the_architecture_names_every_room_of_the_import_contract():
    (contract,) = PYPROJECT["tool"]["importlinter"]["contracts"]
    assert contract["exhaustive"]
    rooms = {room for layer in contract["layers"] for room in re.findall(r"\w+", layer)}
    table = (PROJECT / "docs" / "architecture.md").read_text("utf-8").partition("## The rooms")[2]
    rows = re.findall(r"(?m)^\| (`\w+`(?:, `\w+`)*) \|", table)
    assert rooms == {room for row in rows for room in re.findall(r"\w+", row)}


def test_nobody_waits_in_a_way_that_loses_cancellations():
    """`asyncio.wait_for` of Python 3.11 returns the answer that meets a cancellation, and the task goes on for ever."""
    waits = [path for path in sorted(PACKAGE.rglob("*.py")) if "asyncio.wait_for(" in path.read_text("utf-8")]
    assert waits == []
