"""An agent of the base install: it starts without what only a hub needs, and says what it cannot do.
Counterpart: src/vedette/app/agent.py."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vedette.app import own
from vedette.app.agent import AgentKeeping
from vedette.app.counters import Counters
from vedette.config.settings import Settings
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError

PROJECT = Path(__file__).resolve().parents[2]
MODULES = {"aiosmtplib", "apprise", "duckdb", "jinja2", "prometheus_client", "pyarrow", "pyotp", "starlette", "uvicorn"}
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import vedette.app.agent, vedette.app.up
from vedette.app.counters import Counters
from vedette.config.settings import Settings
from vedette.model.clock import SystemClock
from vedette.notify.receivers import build
settings = Settings.model_validate({{"notify": {{"receivers": {receivers}}}}})
print(sorted(build(settings.notify, SystemClock(), Counters())))
"""


def without_hub(receivers: dict[str, object]) -> subprocess.CompletedProcess[str]:
    script = WITHOUT.format(names=sorted(MODULES), receivers=receivers)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_these_are_libraries_of_the_hub():
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["hub"]
    assert {name.replace("_", "-") for name in MODULES} <= {line.split(">")[0] for line in extras}


def test_an_agent_needs_nothing_of_the_hub():
    done = without_hub({"pager": {"type": "webhook", "url": "http://127.0.0.1/"}})
    assert (done.returncode, done.stdout) == (0, "['pager']\n"), done.stderr


def test_a_receiver_that_needs_it_is_named():
    done = without_hub({"desk": {"type": "email", "host": "127.0.0.1", "from": "a@b.test", "to": ["c@b.test"]}})
    assert done.returncode == 1
    assert "receiver desk: email needs aiosmtplib, which is not installed" in done.stderr


def test_a_host_that_joined_nothing_says_how_to(tmp_path: Path):
    settings = Settings.model_validate({"data": tmp_path})
    with pytest.raises(VedetteError) as caught:
        AgentKeeping(settings, own.Self("h", "web1"), clock=SystemClock(), counter=Counters())
    assert "vedette enrol" in str(caught.value)
    assert not (tmp_path / "spool").exists()
