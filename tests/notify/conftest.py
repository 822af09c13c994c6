"""The real servers and the stand-ins that tests of this room share.
Counterpart: tests/scenarios/parts, where the servers are described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.notify.examples import Counts, State
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.pagerduty import PagerDuty
from tests.scenarios.parts.smtp import SmtpServer

from vedette.testing.clock import FakeClock

LOGIN = ("vedette", "correct horse")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def smtp(authority: Authority) -> Iterator[SmtpServer]:
    """STARTTLS and a login are required."""
    server = SmtpServer(authority.server_context(), login=LOGIN)
    yield server
    server.close()


@pytest.fixture
def pagerduty(authority: Authority) -> Iterator[PagerDuty]:
    server = PagerDuty(authority.server_context())
    yield server
    server.close()


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(LOGIN[1] + "\n")
    return path
