"""Proves the real sshd and its real client: what is tried is what is logged, and the machine is left alone.
Counterpart: parts/sshd.py and parts/attacker.py."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenarios.conftest import ALICE, StartSshd
from tests.scenarios.parts import netns
from tests.scenarios.parts.attacker import Attacker, password_packet
from tests.scenarios.parts.netns import Wire
from tests.scenarios.parts.processes import PartError, wait_until
from tests.scenarios.parts.sshd import User
from tests.scenarios.parts.sshd_sessions import certify, new_key
from tests.scenarios.parts.syslogs import SyslogSocket

pytestmark = pytest.mark.root


def _lines(path: Path, pattern: str) -> list[str]:
    return [line for line in path.read_text().splitlines() if re.search(pattern, line)]


def test_guesses_are_reported_with_their_times_and_logged(start_sshd: StartSshd, attacker: Attacker, scratch: Path):
    log = scratch / "sshd.log"
    start_sshd(error_log=log)
    before = time.time_ns() // 1000
    attempts = attacker.guess("alice", ["one", "two", "correct horse"], command="id -un")
    after = time.time_ns() // 1000

    assert [(one.secret, one.outcome) for one in attempts] == [
        ("one", "failed"),
        ("two", "failed"),
        ("correct horse", "accepted"),
        (None, "exit 0"),
    ]
    assert attempts[-1].detail == "alice\n"
    times = [time for one in attempts for time in (one.sent, one.answered)]
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= after
    assert len(_lines(log, rf"^Failed password for alice from {netns.ATTACKER} port \d+ ssh2$")) == 2
    assert len(_lines(log, rf"^Accepted password for alice from {netns.ATTACKER} port \d+ ssh2$")) == 1


def test_a_connection_that_sshd_ends_is_followed_by_another(start_sshd: StartSshd, attacker: Attacker, scratch: Path):
    log = scratch / "sshd.log"
    start_sshd(error_log=log, options={"MaxAuthTries": "3"})
    attempts = attacker.guess("root", [f"guess {number}" for number in range(7)])
    assert [one.secret for one in attempts] == [f"guess {number}" for number in range(7)]
    assert {one.outcome for one in attempts} <= {"failed", "lost"}
    assert len(_lines(log, "^Failed password for root from")) == 7


def test_a_blocked_client_has_sent_nothing(wire: Wire, start_sshd: StartSshd, attacker: Attacker, scratch: Path):
    start_sshd(error_log=scratch / "sshd.log")
    wire.server.ip("route", "add", "blackhole", f"{netns.ATTACKER}/32")
    (attempt,) = attacker.guess("alice", ["one", "two"], timeout=0.5)
    assert (attempt.outcome, attempt.secret) == ("unreachable", None)


def test_a_client_that_is_dropped_midway_says_what_it_had_sent(
    wire: Wire, start_sshd: StartSshd, attacker: Attacker, scratch: Path
):
    start_sshd(error_log=scratch / "sshd.log")
    guesses = [f"guess {number}" for number in range(1000)]
    assault = attacker.start([attacker.password_job("alice", guesses, timeout=1.0)])
    wait_until("some answers", lambda: len(assault.attempts()) >= 5)
    wire.server.ip("route", "add", "blackhole", f"{netns.ATTACKER}/32")
    attempts = assault.wait()
    sent = [one.secret for one in attempts if one.secret is not None]
    assert sent == guesses[: len(sent)]
    assert 5 <= len(sent) < 1000
    assert attempts[-1].outcome == "unreachable"
    assert not assault.running()


def test_an_established_stream_stalls_when_dropped_and_ends_when_reset(
    wire: Wire, start_sshd: StartSshd, attacker: Attacker, legitimate: Attacker, scratch: Path
):
    start_sshd(error_log=scratch / "sshd.log")
    here, there = (
        client.start([client.stream_job("alice", password="correct horse")]) for client in (legitimate, attacker)
    )
    wait_until("both streams", lambda: min(len(here.attempts()), len(there.attempts())) > 3)
    wire.server.run(["ss", "-K", "-tn", "dst", netns.ATTACKER])
    attempts = there.wait()
    assert attempts[0].outcome == "accepted"
    assert [one.detail for one in attempts if one.outcome == "line"][:2] == ["0", "1"]
    assert attempts[-1].outcome == "lost"
    heard = len(here.attempts())
    wait_until("more lines for the other", lambda: len(here.attempts()) > heard + 2)
    assert here.stop()[-1].outcome == "line"


def test_keys_certificates_and_legitimate_logins(
    start_sshd: StartSshd, attacker: Attacker, legitimate: Attacker, scratch: Path
):
    log = scratch / "sshd.log"
    private, public = new_key()
    authority, authority_public = new_key()
    (scratch / "ca.pub").write_text(authority_public + "\n")
    start_sshd(
        [User("alice", "correct horse", keys=(public,))],
        error_log=log,
        options={"TrustedUserCAKeys": str(scratch / "ca.pub")},
    )
    assert legitimate.login("alice", key=private)
    assert legitimate.login("alice", password="correct horse")
    assert not legitimate.login("alice", password="wrong")
    certificate = certify(authority, new_key()[0], "alice@laptop", ["alice"])
    offers = [attacker.key_job("alice", [new_key()[0] for _ in range(4)]), attacker.key_job("alice", [certificate])]
    assert [one.outcome for one in attacker.run(offers)] == ["failed", "accepted"]
    assert len(_lines(log, f"^Failed publickey for alice from {netns.ATTACKER} ")) == 4
    assert len(_lines(log, f"^Accepted publickey for alice from {netns.ATTACKER} .* ID alice@laptop ")) == 1
    assert len(_lines(log, f"^Accepted publickey for alice from {netns.LEGITIMATE} ")) == 1


def test_hand_made_texts_arrive_as_they_are(start_sshd: StartSshd, attacker: Attacker, scratch: Path):
    log = scratch / "sshd.log"
    start_sshd(error_log=log)
    attacker.run(
        [
            attacker.raw_job(
                [password_packet(b"x from 203.0.113.9 port 22 ssh2\xff", "y")] * 2, disconnect="so long 203.0.113.9"
            ),
            attacker.scan_job(),
            attacker.scan_job(["SSH-2.0-Probe-x from 203.0.113.9\r\n"], wait=0.5),
            attacker.scan_job([b"\x16\x03\x01 203.0.113.9\r\n"], wait=0.5),
            attacker.scan_job(["SSH-2.0-x\r\n", {"kexinit": ["a b 203.0.113.9", *["x"] * 9]}], wait=0.5),
            attacker.scan_job(["SSH-2.0-x\r\n", {"disconnect": "early 203.0.113.9", "code": 11}], wait=0.5),
        ]
    )
    here = rf"{netns.ATTACKER} port \d+"
    for pattern, count in (
        (rf"^Failed password for invalid user x from 203\.0\.113\.9 port 22 ssh2\\377 from {here} ssh2$", 2),
        (rf"^Received disconnect from {here}:11: so long 203\.0\.113\.9 \[preauth\]$", 1),
        (rf"^Connection closed by {here}$", 1),
        (rf"^probed from {here} with SSH-2\.0-Probe-x from 203\.0\.113\.9\.", 1),
        (rf"^banner exchange: Connection from {here}: invalid format$", 1),
        (rf"^Unable to negotiate with {here}: .* Their offer: a b 203\.0\.113\.9 \[preauth\]$", 1),
        (rf"^Received disconnect from {here}:11: early 203\.0\.113\.9 \[preauth\]$", 1),
    ):
        wait_until(pattern, lambda pattern=pattern, count=count: len(_lines(log, pattern)) >= count)  # type: ignore[misc]


def test_it_logs_to_a_socket_of_ours_with_either_header(
    start_sshd: StartSshd, attacker: Attacker, scratch: Path, syslog_socket: Callable[..., SyslogSocket]
):
    log = syslog_socket(scratch / "auth.log", "rfc3339")
    start_sshd(devlog=log.devlog)
    (attempt,) = attacker.guess("nobody-here", ["x"])
    wait_until("the line", lambda: any(b"Failed password" in line for line in log.lines()))
    ((arrival, line),) = [one for one in log.arrivals if b"Failed password" in one[1]]
    assert attempt.sent <= arrival <= attempt.answered
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{6}}[+-]\d\d:\d\d bastion sshd\[\d+\]: "
        rf"Failed password for invalid user nobody-here from {netns.ATTACKER} port \d+ ssh2",
        line.decode(),
    )
    assert line in (scratch / "auth.log").read_bytes().splitlines()


def test_options_decide_who_may_log_in(start_sshd: StartSshd, legitimate: Attacker, scratch: Path):
    log = scratch / "sshd.log"
    users = [ALICE, User("bob", "b"), User("locked", "l", locked=True)]
    start_sshd(users, error_log=log, options={"AllowUsers": "alice locked root"}, root_password="toor")
    assert legitimate.login("alice", password="correct horse")
    assert legitimate.login("root", password="toor")
    assert not legitimate.login("bob", password="b")
    assert not legitimate.login("locked", password="l")
    assert len(_lines(log, f"^User bob from {netns.LEGITIMATE} not allowed because not listed in AllowUsers$")) == 1


def test_the_machine_keeps_its_users_and_login_records(start_sshd: StartSshd, legitimate: Attacker, scratch: Path):
    watched = [Path(name) for name in ("/etc/passwd", "/etc/shadow", "/etc/group", "/var/log/wtmp", "/var/log/btmp")]
    before = {path: path.read_bytes() for path in watched if path.exists()}
    laid_over = {*map(str, watched), "/dev", "/run", "/var/log", "/etc/hosts"}

    def mounts() -> list[str]:
        # Other runs' namespaces come and go beside this one.
        return [line for line in Path("/proc/self/mounts").read_text().splitlines() if line.split()[1] in laid_over]

    mounted = mounts()
    start_sshd(error_log=scratch / "sshd.log")
    assert legitimate.login("alice", password="correct horse")
    assert not legitimate.login("alice", password="wrong")
    assert {path: path.read_bytes() for path in before} == before
    assert mounts() == mounted


def test_a_server_that_cannot_start_says_why(start_sshd: StartSshd, scratch: Path):
    with pytest.raises(PartError, match="Bad configuration option: Nonsense"):
        start_sshd(error_log=scratch / "sshd.log", options={"Nonsense": "yes"})
