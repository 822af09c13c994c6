"""What loggers say of themselves is counted per stream, and a logger that ended stays so until it says otherwise.
Counterpart: src/vedette/app/upstream.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.app.parts import Rig

from vedette.app import upstream
from vedette.app.counters import Counters
from vedette.app.detection import batch_of_lines, load_rules, matcher_of
from vedette.app.pipeline import COMMIT_AFTER
from vedette.app.upstream import Upstream
from vedette.detections.correlate import Correlator
from vedette.detections.engine import Engine
from vedette.detections.match import Matcher
from vedette.model.batch import Origin, Trust
from vedette.model.clock import HOUR
from vedette.model.errors import StateError
from vedette.model.findings import key_text
from vedette.model.shipping import SourceState
from vedette.testing.clock import START

FILE = "file:/var/log/syslog"
STOP = 'rsyslogd: [origin software="rsyslogd" swVersion="8.2302.0" x-pid="612" x-info="x"] exiting on signal 15.'
START_AGAIN = 'rsyslogd: [origin software="rsyslogd" swVersion="8.2302.0" x-pid="612" x-info="x"] start'


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return matcher_of(upstream.RULES, counter=Counters())


def said(
    matcher: Matcher,
    watched: Upstream,
    *messages: str,
    source: str = FILE,
    trust: Trust = Trust.FORGEABLE,
    host: str = "web1",
) -> None:
    batch = batch_of_lines([f"Nov 23 10:00:00 {host} {message}".encode() for message in messages], year=2026)
    batch = replace(batch, origin=Origin("h", source), trust=trust, read_at=START)
    watched.see(batch, matcher.match(batch))


def test_what_is_lost_is_counted_by_logger_and_stream(matcher: Matcher) -> None:
    watched = Upstream(matcher.rules)
    said(
        matcher,
        watched,
        "systemd-journald[312]: Suppressed 2013 messages from web.service",
        "systemd-journald[312]: Missed 7 kernel messages",
        "rsyslogd: imuxsock begins to drop messages from pid 17840 due to rate-limiting",
        "rsyslogd: imuxsock lost 391 messages from pid 17840 due to rate-limiting",
        "kernel: [   12.345678] audit: backlog limit exceeded",
        "web[9]: Suppressed 2013 messages from web.service",
    )
    said(matcher, watched, "auditd[1]: queue is full - dropping event", source="journal")
    assert watched.lost(FILE) == {"systemd-journald": 2020, "rsyslogd": 392, "kernel": 1}
    told = watched.told({"journal": SourceState(number=4), "audit": SourceState()})
    assert told == {"journal": SourceState(number=4, upstream={"auditd": 1}), "audit": SourceState()}


def test_the_kernels_total_is_not_counted_again(matcher: Matcher) -> None:
    watched = Upstream(matcher.rules)
    for total, lost in ((12, 12), (12, 12), (20, 20), (5, 25)):
        said(matcher, watched, f"kernel: audit: audit_lost={total} audit_rate_limit=0 audit_backlog_limit=64")
        assert watched.lost(FILE) == {"kernel": lost}


def test_a_logger_that_ended_stays_so_until_it_says_that_it_runs(matcher: Matcher) -> None:
    watched = Upstream(matcher.rules)
    said(matcher, watched, STOP)
    assert watched.stopped(FILE) == {"rsyslogd": START - 14 * HOUR}
    said(matcher, watched, "systemd-journald[312]: Journal started")
    said(matcher, watched, START_AGAIN, source="journal")
    assert list(watched.stopped(FILE)) == ["rsyslogd"]
    said(matcher, watched, START_AGAIN)
    assert watched.stopped(FILE) == {}
    said(matcher, watched, START_AGAIN, STOP, START_AGAIN, STOP)
    assert list(watched.stopped(FILE)) == ["rsyslogd"]


def test_who_is_less_sure_cannot_say_that_it_runs(matcher: Matcher) -> None:
    watched = Upstream(matcher.rules)
    said(matcher, watched, STOP, trust=Trust.ATTESTED)
    said(matcher, watched, START_AGAIN, trust=Trust.FORGEABLE)
    assert list(watched.stopped(FILE)) == ["rsyslogd"]
    said(matcher, watched, START_AGAIN, trust=Trust.ATTESTED)
    assert watched.stopped(FILE) == {}


def test_hosts_that_send_in_one_stream_are_told_apart(matcher: Matcher) -> None:
    watched = Upstream(matcher.rules)
    said(matcher, watched, STOP, trust=Trust.NETWORK)
    said(matcher, watched, START_AGAIN, trust=Trust.NETWORK, host="web2")
    assert list(watched.stopped(FILE)) == ["web1 rsyslogd"]


def test_what_anybody_writes_stays_bounded(matcher: Matcher) -> None:
    watched = Upstream(matcher.rules)
    for number in range(300):
        said(matcher, watched, STOP, trust=Trust.NETWORK, host=f"web{number}")
    said(matcher, watched, "kernel: x: 99999999999999 callbacks suppressed")
    assert len(watched.stopped(FILE)) == 100
    assert watched.lost(FILE)["kernel"] == 1 << 31


def test_a_logger_that_ended_does_not_look_well_after_a_restart(matcher: Matcher) -> None:
    rig = Rig()

    def restart(*messages: str) -> None:
        said(matcher, rig.loggers, *messages)
        rig.take(rig.line("accepted"))
        rig.wait(COMMIT_AFTER)
        rig.start()

    restart(STOP, "kernel: audit: audit_lost=12 audit_rate_limit=0 audit_backlog_limit=64")
    assert rig.loggers.stopped(FILE) == {"rsyslogd": START - 14 * HOUR}
    # Of a session, but the kernel's total was told before.
    assert rig.loggers.lost(FILE) == {}
    restart("kernel: audit: audit_lost=15 audit_rate_limit=0 audit_backlog_limit=64")
    said(matcher, rig.loggers, "kernel: audit: audit_lost=19 audit_rate_limit=0 audit_backlog_limit=64")
    assert rig.loggers.lost(FILE) == {"kernel": 4}
    said(matcher, rig.loggers, START_AGAIN, trust=Trust.NETWORK)
    assert list(rig.loggers.stopped(FILE)) == ["rsyslogd"]
    restart(START_AGAIN)
    assert rig.loggers.stopped(FILE) == {}


def test_what_is_damaged_or_of_a_newer_version_is_refused(matcher: Matcher) -> None:
    key = key_text({"source": FILE})
    newer = b'{"name": "vedette-upstream", "version": 9, "stopped": {}, "total": {}}'
    for data in (b"{}", b"\xff", newer):
        with pytest.raises(StateError, match="loggers"):
            Upstream(matcher.rules).restore([("other", "x", b"x"), (upstream.OWNER, key, data)])


def test_beside_our_packs_it_sees_the_same_and_says_nothing() -> None:
    counter = Counters()
    matcher = matcher_of([*load_rules([], packs=True), *upstream.RULES], counter=counter)
    watched = Upstream(matcher.rules)
    engine = Engine(matcher, Correlator(matcher.rules, counter=counter), counter, watch=watched.see)
    line = b"Nov 23 10:00:00 web1 systemd-journald[312]: Suppressed 2013 messages from web.service"
    batch = replace(batch_of_lines([line], year=2026), origin=Origin("h", FILE), read_at=START)
    assert [one.rule_id for one in engine.process(batch).findings] == ["logging-suppressed"]
    assert watched.lost(FILE) == {"systemd-journald": 2013}
