"""Line filters in the engine: who failed, who is not blamed, however the lines are cut and wherever it restarts.
Counterpart: `detections.linescan` and `detections.gate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from vedette.app.counters import Counters
from vedette.app.detection import CaseEngine, batch_of_lines, matcher_of
from vedette.detections.correlate import Correlator
from vedette.detections.engine import stretch_of
from vedette.model.findings import Finding
from vedette.model.rules import Rule
from vedette.rules.loading import load

FILTER = r"""[Definition]
prefregex = ^\s*\S+ <F-MLFID>demo\[\d+\]:</F-MLFID> <F-CONTENT>.+</F-CONTENT>$
failregex = ^denied <F-USER>.*?</F-USER> from <HOST>$
            ^wrong for <F-USER>.*</F-USER>$
            ^<F-NOFAIL>seen</F-NOFAIL> <ADDR>$
            ^<F-MLFFORGET><F-MLFGAINED>welcome</F-MLFGAINED></F-MLFFORGET> <ADDR>$
            ^loose .* (?:by|from) <ADDR>
ignoreregex = from 192\.0\.2\.99$
datepattern = {^LN-BEG}
"""


def rules(tmp_path: Path, text: str = FILTER) -> Sequence[Rule]:
    (tmp_path / "demo.conf").write_text(text)
    return load([tmp_path / "demo.conf"]).rules


def line(second: int, message: str, pid: int = 1) -> bytes:
    return f"Mar  1 10:{second // 60:02}:{second % 60:02} web1 demo[{pid}]: {message}".encode()


def run(made: Sequence[Rule], lines: Sequence[bytes], cut: int = 0, restart: bool = False) -> list[Finding]:
    matcher, correlator = matcher_of(made, counter=Counters()), Correlator(made, counter=Counters(), track=True)
    found: list[Finding] = []
    stored: dict[tuple[str, str], bytes] = {}
    for begin in range(0, len(lines), cut or len(lines)):
        batch = batch_of_lines(lines[begin : begin + (cut or len(lines))], year=2026)
        batch = replace(batch, positions=batch.positions + begin)
        found += correlator.process(stretch_of(batch, matcher.match(batch))).findings
        if restart:
            for key, data in correlator.changes().items():
                if data is None:
                    stored.pop(key, None)
                else:
                    stored[key] = data
            correlator = Correlator(made, counter=Counters(), track=True)
            correlator.restore((rule, name, data) for (rule, name), data in stored.items())
    return found


def addresses(found: Sequence[Finding]) -> list[object]:
    return [one.key["source.ip"] for one in found]


def test_five_failures_of_one_address(tmp_path: Path) -> None:
    made = rules(tmp_path)
    lines = [line(n, f"denied user{n} from 203.0.113.5", n) for n in range(5)]
    found = run(made, lines)
    assert addresses(found) == ["203.0.113.5"]
    assert (found[0].rule_id, found[0].count, found[0].source_ip) == ("fail2ban-demo", 5, "203.0.113.5")
    assert run(made, lines[:4]) == []
    assert len(run(made, [line(n, "denied x from 203.0.113.5", n) for n in range(11)])) == 2
    assert run(made, [line(n * 200, "denied x from 203.0.113.5", n) for n in range(9)]) == []
    assert run(made, [line(n, "denied x from 192.0.2.99", n) for n in range(9)]) == []
    assert run(made, [line(n, "denied x from host.example.net", n) for n in range(9)]) == []


def connections() -> list[bytes]:
    lines = []
    for n in range(6):
        lines += [line(10 * n, "wrong for root", n), line(10 * n + 1, "seen ::ffff:203.0.113.5", n)]
        lines += [line(10 * n + 2, "wrong for alice", 50 + n), line(10 * n + 3, "welcome 203.0.113.6", 50 + n)]
        lines += [line(10 * n + 4, "seen 203.0.113.7", 90)]
    return lines


def test_lines_of_a_connection_are_one_failure(tmp_path: Path) -> None:
    # 203.0.113.6 got in each time, 203.0.113.7 never failed.
    assert addresses(run(rules(tmp_path), connections())) == ["203.0.113.5"]


@pytest.mark.parametrize("cut", [1, 2, 3, 7])
@pytest.mark.parametrize("restart", [False, True])
def test_however_it_is_cut_and_wherever_it_restarts(tmp_path: Path, cut: int, restart: bool) -> None:
    made = rules(tmp_path)
    whole = run(made, connections())
    assert whole
    again = run(made, connections(), cut, restart)
    assert [(one.id, one.key, one.time) for one in again] == [(one.id, one.key, one.time) for one in whole]


def test_text_of_the_attacker_blames_nobody(tmp_path: Path) -> None:
    made = rules(tmp_path)
    # Held by the end of the line, the pattern has one reading: the last address.
    lines = [line(n, "denied x from 198.51.100.1 from 203.0.113.5", n) for n in range(5)]
    assert addresses(run(made, lines)) == ["203.0.113.5"]
    # Here any address on the line would do.
    assert run(made, [line(n, "loose x by 198.51.100.1 from 203.0.113.5", n) for n in range(5)]) == []
    assert addresses(run(made, [line(n, "loose x by 198.51.100.1", n) for n in range(5)])) == ["198.51.100.1"]


def test_a_message_that_was_cut_blames_nobody(tmp_path: Path) -> None:
    made = rules(tmp_path, FILTER.replace(r"demo\[\d+\]:", r"sshd\[\d+\]:"))
    head, tail = "denied ", " from 203.0.113.5"
    for length, blamed in ((499, ["203.0.113.5"]), (500, [])):
        name = "x" * (length - len(head) - len(tail))
        lines = [line(n, head + name + tail, n).replace(b"demo[", b"sshd[") for n in range(5)]
        assert addresses(run(made, lines)) == blamed


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    lines = [
        line(n, "denied \udcff\u212a from 203.0.113.5".encode("utf-8", "surrogateescape").decode("latin-1"), n)
        for n in range(5)
    ]
    assert addresses(run(rules(tmp_path), lines)) == ["203.0.113.5"]
    raw = [b"Mar  1 10:00:0%d web1 demo[1]: denied \xff\xfe from 203.0.113.5" % n for n in range(5)]
    assert addresses(run(rules(tmp_path), raw)) == ["203.0.113.5"]


def test_a_filter_over_several_lines(tmp_path: Path) -> None:
    made = rules(
        tmp_path,
        "[Definition]\nfailregex = begin (?P<n>\\d+)$<SKIPLINES>^.* end (?P=n) <ADDR>$\n[Init]\nmaxlines = 4\n",
    )
    lines = []
    for n in range(5):
        lines += [line(n, f"begin {n}"), line(n, "between"), line(n, f"end {n} 203.0.113.5")]
    for cut in (0, 1, 2, 4):
        assert addresses(run(made, lines, cut)) == ["203.0.113.5"]
    assert run(made, [one for n in range(5) for one in (line(n, f"begin {n}"), line(n, "end 9 203.0.113.5"))]) == []


def test_a_date_of_its_own_tells_the_time(tmp_path: Path) -> None:
    made = rules(tmp_path, "[Definition]\nfailregex = ^ denied <ADDR>$\ndatepattern = ^%%d/%%m/%%Y-%%H:%%M:%%S\n")
    engine = CaseEngine()
    lines = [f"01/03/2026-10:00:{n:02} denied 203.0.113.5".encode() for n in range(5)]
    found = engine(made, lines)
    assert addresses(found) == ["203.0.113.5"]
    assert found[0].time == 1_772_359_204_000_000
    assert engine(made, [f"01/03/2026-1{n}:00:00 denied 203.0.113.5".encode() for n in range(5)]) == []
