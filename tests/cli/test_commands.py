"""Every command is there, in its words, quickly, and without what only the extra `hub` brings.
Counterpart: vedette.cli.commands."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from tests.cli.parts import Place, program, vedette
from typer.core import TyperGroup

from vedette import __version__
from vedette.cli.commands import COMMANDS, load_command

PROJECT = Path(__file__).resolve().parents[2]
LINE = "Nov 24 04:00:00 web01 sshd[1]: Failed password for root from 203.0.113.7 port 5 ssh2"

# A module that is None in sys.modules is one that cannot be imported, nor found.
WITHOUT_HUB = """
import sys
for name in ('sqlalchemy', 'alembic', 'aiosmtplib', 'httpx', 'apprise', 'jinja2', 'prometheus_client'):
    sys.modules[name] = None
"""


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []

    def walk(path: tuple[str, ...], command: object) -> None:
        if isinstance(command, TyperGroup):
            for name, below in command.commands.items():
                walk((*path, name), below)
        else:
            found.append(path)

    for name in COMMANDS:
        walk((name,), load_command(name))
    return found


def test_help_names_every_command_and_is_not_coloured():
    ran = vedette("--help")
    assert ran.code == 0
    for name, entry in COMMANDS.items():
        assert f"  {name}" in ran.out
        assert entry.words[:40] in ran.out
    assert "\x1b" not in ran.out


@pytest.mark.parametrize("name", COMMANDS)
def test_what_help_says_without_importing_is_what_the_command_says(name: str):
    words = COMMANDS[name].words
    said = load_command(name).help or ""
    assert " ".join(said.split()).startswith(words.rstrip(".")), "the first words of its docstring"


def test_help_imports_no_command_and_no_engine():
    before = "import atexit, sys\natexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))"
    ran = program("--help", before=before)
    assert ran.code == 0
    loaded = set(ran.err.split())
    assert "vedette.cli.commands" in loaded
    assert not loaded & {"numpy", "hyperscan", "pydantic", "rich", "vedette.cli.replay", "vedette.app.detection"}


def test_no_word_at_all_shows_the_help():
    ran = vedette()
    assert ran.code == 2
    assert "Commands:" in ran.out + ran.err


def test_version():
    assert vedette("--version").out == f"vedette {__version__}\n"


@pytest.mark.parametrize(
    "words", [("nonsense",), ("rules", "nonsense"), ("replay",), ("alerts", "ack"), ("block", "add")]
)
def test_a_command_nobody_knows_or_that_lacks_a_word_is_exit_2(words: tuple[str, ...]):
    ran = vedette(*words)
    assert ran.code == 2
    assert ran.err


def test_every_command_has_help_and_stands_in_the_documents():
    document = (PROJECT / "docs" / "cli.md").read_text("utf-8")
    for path in every_command():
        assert vedette(*path, "--help").code == 0
        assert f"vedette {' '.join(path)}" in document, f"docs/cli.md does not name {' '.join(path)}"


def test_the_document_names_no_command_that_is_not_there():
    document = (PROJECT / "docs" / "cli.md").read_text("utf-8")
    known = {" ".join(path) for path in every_command()}
    named = set(re.findall(r"^## `vedette ([a-z ]+?)`", document, re.MULTILINE))
    assert named
    assert named <= {words for path in known for words in (path, path.split()[0])}


# ---------------------------------------------------------------------------------------------------- base install
@pytest.mark.parametrize("words", [("alerts", "list"), ("block", "list"), ("up",)])
def test_without_the_extra_hub_commands_that_need_it_say_how_to_get_it(
    words: tuple[str, ...], place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    ran = place.run(*words)
    assert ran.code == 2
    assert "sqlalchemy not installed" in ran.err
    assert "pip install 'vedette[hub]'" in ran.err


@pytest.mark.slow
def test_without_the_extra_hub_the_base_commands_run(tmp_path: Path, place: Place):
    log = tmp_path / "auth.log"
    log.write_text("".join(LINE.replace("04:00:00", f"04:00:0{n}") + "\n" for n in range(6)))
    replayed = program("replay", log, "--output", "json", "--year", 2026, "--workers", 1, before=WITHOUT_HUB)
    assert replayed.code == 0, replayed.err
    assert "ssh-brute-force-address" in [json.loads(line)["rule.id"] for line in replayed.out.splitlines()]
    for words in (("explain", LINE), ("rules", "list"), ("config", "check", place.config)):
        ran = program(*words, before=WITHOUT_HUB)
        assert ran.code == 0, ran.err
    sick = program("doctor", "--config", place.config, "--output", "json", before=WITHOUT_HUB)
    assert sick.code == 2
    install = next(one for one in map(json.loads, sick.out.splitlines()) if one["check"] == "install")
    assert install["verdict"] == "problem"
    assert "vedette[hub]" in install["hint"]
