"""Hands the real parts out as fixtures and takes them down again, failed tests included.
Counterpart: tests/scenarios/parts, where each part is described."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Attacker
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.faults import PROPERTY, Faults, table
from tests.scenarios.parts.netns import NetLab, Wire
from tests.scenarios.parts.nft import PublishedPort
from tests.scenarios.parts.pagerduty import PagerDuty
from tests.scenarios.parts.processes import Processes, short_folder
from tests.scenarios.parts.smtp import SmtpServer
from tests.scenarios.parts.sshd import Sshd, User
from tests.scenarios.parts.syslogs import Header, Journald, Rsyslog, SyslogSocket
from tests.scenarios.parts.vedette import Vedette

StartSshd = Callable[..., Sshd]
StartVedette = Callable[..., Vedette]

ALICE = User("alice", "correct horse")


@pytest.fixture
def faults(record_property: Callable[[str, object], None]) -> Faults:
    """`faults.record("agent killed", sent, arrived, "what was said")`: a row of the table at the end of the run."""
    return Faults(record_property)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = terminalreporter.stats.get("passed", ())
    found = [one for report in passed for one in getattr(report, "user_properties", ())]
    # The same test is reported at its call and at its end.
    rows = {tuple(value): None for name, value in found if name == PROPERTY}
    if rows:
        terminalreporter.write_sep("=", "faults")
        terminalreporter.write_line(table(list(row) for row in rows))


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a short path, readable by every user: sockets, logs, keys."""
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Namespaces can be made here, and none of a killed run is left. Needs root and iproute2."""
    if (why := netns.available()) is not None:
        pytest.fail(f"tests marked `root` need network namespaces: {why}")
    netns.sweep()


@pytest.fixture
def processes(scratch: Path) -> Iterator[Processes]:
    """Starts programs outside of any namespace; all are ended after the test."""
    started = Processes(scratch / "programs")
    yield started
    started.close()


@pytest.fixture
def lab(namespaces: None, scratch: Path) -> Iterator[NetLab]:
    """Makes namespaces and links of this test; everything inside is ended and deleted after it."""
    made = NetLab(scratch)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def wire(lab: NetLab) -> Wire:
    """The usual pair: `server` and `world`, see `parts.netns.Wire` and the addresses beside it."""
    return lab.wire()


@pytest.fixture
def attacker(wire: Wire) -> Attacker:
    """A client at ATTACKER against port 22 of SERVER."""
    return Attacker(wire.world, netns.ATTACKER)


@pytest.fixture
def legitimate(wire: Wire) -> Attacker:
    """The same client at LEGITIMATE: a user who must come to no harm."""
    return Attacker(wire.world, netns.LEGITIMATE)


@pytest.fixture
def start_sshd(wire: Wire, scratch: Path) -> Iterator[StartSshd]:
    """`start_sshd([User...], error_log=|devlog=, options={...})`: a server in `wire.server`, see `parts.sshd.Sshd`.

    Without users there is ALICE. Several may run side by side on different ports.
    """
    with ExitStack() as stack:
        count = 0

        def start(
            users: Sequence[User] = (ALICE,),
            *,
            options: Mapping[str, str | Sequence[str]] | None = None,
            **more: object,
        ) -> Sshd:
            nonlocal count
            count += 1
            server = Sshd(wire.server, scratch / f"sshd{count}", users, options=options, **more)  # type: ignore[arg-type]
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def syslog_socket(scratch: Path) -> Iterator[Callable[..., SyslogSocket]]:
    """`syslog_socket(output, header="rfc3164"|"rfc3339")`: a socket of ours that writes an auth.log at once."""
    with ExitStack() as stack:

        def start(output: Path, header: Header = "rfc3164") -> SyslogSocket:
            made = SyslogSocket(scratch / "devlog", output, header=header)
            stack.callback(made.close)
            return made

        yield start


@pytest.fixture
def start_rsyslog(scratch: Path, processes: Processes) -> Callable[..., Rsyslog]:
    """`start_rsyslog(output, header=..., reduce_repeats=...)`: a real rsyslogd, see `parts.syslogs.Rsyslog`."""

    def start(output: Path, *, header: Header = "rfc3339", reduce_repeats: bool = False) -> Rsyslog:
        folder, devlog = scratch / "rsyslog", scratch / "rsyslog.sock"
        return Rsyslog(processes, folder, devlog, output, header=header, reduce_repeats=reduce_repeats)

    return start


@pytest.fixture
def start_journald(scratch: Path, processes: Processes) -> Callable[..., Journald]:
    """`start_journald(journal_folder, options=[...])`: a real systemd-journald, see `parts.syslogs.Journald`."""

    def start(journal_folder: Path, *, options: Sequence[str] = ()) -> Journald:
        return Journald(processes, scratch / "journald", journal_folder, options=options)

    return start


@pytest.fixture
def published(lab: NetLab, wire: Wire) -> PublishedPort:
    """A container's port, published on `wire.server` by DNAT; see `parts.nft.PublishedPort`."""
    return PublishedPort(lab, wire.server)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificate authority of the mail and pager servers."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def smtp(authority: Authority) -> Iterator[SmtpServer]:
    """A mail server with STARTTLS and login ("vedette", "mail secret") required."""
    server = SmtpServer(authority.server_context(), login=("vedette", "mail secret"))
    yield server
    server.close()


@pytest.fixture
def pagerduty(authority: Authority) -> Iterator[PagerDuty]:
    """A pager service; see `parts.pagerduty.PagerDuty`."""
    server = PagerDuty(authority.server_context())
    yield server
    server.close()


@pytest.fixture
def start_vedette(wire: Wire, scratch: Path) -> Iterator[StartVedette]:
    """`start_vedette({settings}, data=, env=)`: the program in `wire.server`, see `parts.vedette.Vedette`."""
    with ExitStack() as stack:
        count = 0

        def start(settings: Mapping[str, Any], **more: Any) -> Vedette:
            nonlocal count
            count += 1
            program = Vedette(wire.server, scratch / f"vedette{count}", settings, **more)
            stack.callback(program.close)
            return program

        yield start


@pytest.fixture
def smtp_inside(wire: Wire, authority: Authority) -> Iterator[SmtpServer]:
    """As `smtp`, on the loopback of `wire.server`, where only what runs there reaches it."""
    server = wire.server.inside(
        lambda: SmtpServer(authority.server_context(), login=("vedette", "mail secret")),
    )
    yield server
    server.close()


@pytest.fixture
def pagerduty_inside(wire: Wire, authority: Authority) -> Iterator[PagerDuty]:
    """As `pagerduty`, on the loopback of `wire.server`."""
    server = wire.server.inside(lambda: PagerDuty(authority.server_context()))
    yield server
    server.close()
