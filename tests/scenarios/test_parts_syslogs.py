"""Proves the real log daemons: what sshd says arrives in rsyslog's file and in journald's folder.
Counterpart: parts/syslogs.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenarios.conftest import StartSshd
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Attacker
from tests.scenarios.parts.processes import wait_until
from tests.scenarios.parts.syslogs import Journald, Rsyslog, SyslogSocket, log_as

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("header", "stamp"),
    [
        ("rfc3164", r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"),
        ("rfc3339", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d"),
    ],
)
def test_rsyslog_writes_what_sshd_says(
    header: str,
    stamp: str,
    start_sshd: StartSshd,
    attacker: Attacker,
    scratch: Path,
    start_rsyslog: Callable[..., Rsyslog],
):
    output = scratch / "auth.log"
    log = start_rsyslog(output, header=header)
    start_sshd(devlog=log.devlog)
    attacker.guess("alice", ["x"])
    line = re.compile(rf"(?m)^{stamp} \S+ sshd\[\d+\]: Failed password for alice from {netns.ATTACKER} port \d+ ssh2$")
    wait_until("the line", lambda: output.exists() and line.search(output.read_text()) is not None)


def test_rsyslog_can_reduce_repeats(scratch: Path, start_rsyslog: Callable[..., Rsyslog]):
    output = scratch / "auth.log"
    log = start_rsyslog(output, header="rfc3164", reduce_repeats=True)
    for message in ("same", "same", "same", "other"):
        log_as(log.devlog, message)
    wait_until("the last line", lambda: output.exists() and "other" in output.read_text())
    lines = output.read_text().splitlines()
    assert [re.sub(r"^.{15} \S+ ", "", line) for line in lines] == [
        "sshd: same",
        "sshd: message repeated 2 times: [ same]",
        "sshd: other",
    ]


def test_journald_keeps_trusted_fields_and_rotates(
    start_sshd: StartSshd, attacker: Attacker, scratch: Path, start_journald: Callable[..., Journald]
):
    journal = start_journald(scratch / "journal")
    start_sshd(devlog=journal.devlog)
    attacker.guess("alice", ["x"])

    def failed() -> list[dict[str, object]]:
        return [one for one in journal.entries() if str(one["MESSAGE"]).startswith("Failed password for alice from ")]

    wait_until("the entry", lambda: len(failed()) == 1)
    (entry,) = failed()
    assert entry["_UID"] == "0"
    assert entry["_EXE"] == "/usr/sbin/sshd"
    assert entry["SYSLOG_IDENTIFIER"] == "sshd"
    assert entry["_MACHINE_ID"] == journal.machine_id

    journal.rotate()
    log_as(journal.devlog, "after")
    wait_until("the forged entry", lambda: any(one["MESSAGE"] == "after" for one in journal.entries()))
    (forged,) = [one for one in journal.entries() if one["MESSAGE"] == "after"]
    assert forged["SYSLOG_IDENTIFIER"] == "sshd"
    assert forged.get("_EXE") != "/usr/sbin/sshd"
    assert len(list((scratch / "journal").glob("*/*.journal"))) == 2


def test_journald_can_be_killed_and_started_again(scratch: Path, start_journald: Callable[..., Journald]):
    first = start_journald(scratch / "journal")
    log_as(first.devlog, "one")
    wait_until("the entry", lambda: any(one["MESSAGE"] == "one" for one in first.entries()))
    first.process.kill()
    second = start_journald(scratch / "journal")
    assert second.devlog == first.devlog
    log_as(second.devlog, "two")
    wait_until("the entry", lambda: any(one["MESSAGE"] == "two" for one in second.entries()))
    ours = [one["MESSAGE"] for one in second.entries() if one["MESSAGE"] in ("one", "two")]
    assert ours == ["one", "two"]


def test_our_socket_goes_on_in_a_new_file_after_rotation(scratch: Path, syslog_socket: Callable[..., SyslogSocket]):
    output = scratch / "auth.log"
    log = syslog_socket(output)
    for number, message in enumerate(("before", "between", "after")):
        if message == "between":
            output.rename(scratch / "auth.log.1")
        if message == "after":
            log.reopen()
        log_as(log.devlog, message)
        wait_until(message, lambda number=number: len(log.lines()) == number + 1)  # type: ignore[misc]
    assert [line.split()[-1] for line in (scratch / "auth.log.1").read_text().splitlines()] == ["before", "between"]
    assert [line.split()[-1] for line in output.read_text().splitlines()] == ["after"]


def test_our_socket_writes_control_characters_as_rsyslog_does(
    scratch: Path, syslog_socket: Callable[..., SyslogSocket]
):
    log = syslog_socket(scratch / "auth.log")
    log_as(log.devlog, "a\nb\x1b[0m\xff")
    wait_until("the line", lambda: len(log.lines()) == 1)
    (line,) = log.lines()
    assert re.fullmatch(rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d bastion sshd: a#012b#033\[0m\xc3\xbf", line)
    assert (scratch / "auth.log").read_bytes() == line + b"\n"
