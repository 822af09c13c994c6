from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.app.counters import Counters
from vedette.app.detection import load_matcher
from vedette.app.replay import LONGEST, Replay, evidence, open_files
from vedette.app.workers import ForkedPool
from vedette.detections.correlate import Correlator
from vedette.detections.match import Matcher
from vedette.model.errors import VedetteError
from vedette.model.findings import Finding


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return load_matcher([], counter=Counters())


def attack(seed: int, lines: int, *, start: int = 0) -> list[str]:
    """Lines of some attackers and customers, a few seconds apart, sometimes out of order."""
    choose = random.Random(seed)
    out, time = [], start
    for _ in range(lines):
        time += choose.choice([0, 0, 1, 3, 20, 90])
        at = max(time - choose.choice([0, 0, 0, 0, 2]), 0)
        stamp = f"Mar  {1 + at // 86400} {at // 3600 % 24:02}:{at // 60 % 60:02}:{at % 60:02}"
        address = f"192.0.2.{choose.randrange(6)}"
        user = choose.choice(["root", "invalid user bob", "invalid user x from 203.0.113.9", "alice"])
        word = choose.choice(["Failed", "Failed", "Failed", "Failed", "Accepted"])
        line = f"{word} password for {user} from {address} port {choose.randrange(1024, 1030)} ssh2"
        if choose.random() < 0.1:
            line = f"message repeated {choose.randrange(2, 4)} times: [ {line}]"
        out.append(f"{stamp} web1 sshd[{choose.randrange(100)}]: {line}")
    return out


def replay(paths: list[Path], matcher: Matcher, *, workers: int = 1, chunk: int = 1 << 20) -> list[Finding]:
    counters = Counters()
    correlator = Correlator(matcher.rules, counter=counters, evidence=evidence)
    files = open_files(paths, year=2026)
    return list(Replay(files, matcher, correlator, counter=counters, workers=workers, chunk=chunk).run())


def write(path: Path, lines: list[str], *, newline: str = "\n", end: str = "\n") -> Path:
    path.write_bytes((newline.join(lines) + end).encode())
    return path


def test_findings_name_file_and_line(tmp_path: Path, matcher: Matcher) -> None:
    lines = ["Mar  1 10:00:00 web1 CRON[1]: nothing"] * 3
    lines += [f"Mar  1 10:00:0{n} web1 sshd[9]: Failed password for root from 192.0.2.1 port 9 ssh2" for n in range(5)]
    path = write(tmp_path / "auth.log", lines)
    found = [one for one in replay([path], matcher) if one.rule_id == "ssh-brute-force-address"]
    assert [(one.key, one.count) for one in found] == [({"source.ip": "192.0.2.1"}, 5)]
    assert [(record.file, record.line) for record in found[0].records] == [(str(path), line) for line in range(4, 9)]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([1, 50, 333, 4096]), st.sampled_from(["\n", ""]))
def test_the_cut_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, matcher: Matcher, seed: int, lines: int, chunk: int, end: str
) -> None:
    path = write(tmp_path_factory.mktemp("cut") / "auth.log", attack(seed, lines), end=end)
    assert replay([path], matcher, chunk=chunk) == replay([path], matcher)


def test_the_number_of_workers_does_not_matter(tmp_path: Path, matcher: Matcher) -> None:
    path = write(tmp_path / "auth.log", attack(7, 3000))
    whole = replay([path], matcher)
    assert len(whole) > 10
    for workers in (2, 3):
        assert replay([path], matcher, workers=workers, chunk=9_000) == whole


def test_compressed_files_say_the_same(tmp_path: Path, matcher: Matcher) -> None:
    lines = attack(3, 600)
    plain = write(tmp_path / "auth.log", lines)
    packed = tmp_path / "auth.log.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    expected = [(one.id, one.time, one.key, [r.line for r in one.records]) for one in replay([plain], matcher)]
    for workers, chunk in ((1, 1 << 20), (1, 100), (2, 5000)):
        found = replay([packed], matcher, workers=workers, chunk=chunk)
        assert [(one.id, one.time, one.key, [r.line for r in one.records]) for one in found] == expected


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 2), max_size=60), st.sampled_from([1, 200, 1 << 20]))
def test_files_are_merged_by_time(
    tmp_path_factory: pytest.TempPathFactory, matcher: Matcher, seed: int, owners: list[int], chunk: int
) -> None:
    """Dealing a log out over three files and replaying them together gives back the log's own findings."""
    folder = tmp_path_factory.mktemp("merge")
    lines = attack(seed, len(owners))
    paths = [
        write(folder / f"{n}.log", [line for line, owner in zip(lines, owners, strict=True) if owner == n])
        for n in range(3)
    ]
    paths = [path for path in paths if path.stat().st_size > 1]
    if not paths:
        return
    parts = [path.read_text().splitlines() for path in paths]
    merged = write(folder / "merged.log", _merged(parts))
    expected = [(one.rule_id, one.time, one.key, one.count) for one in replay([merged], matcher)]
    found = [(one.rule_id, one.time, one.key, one.count) for one in replay(paths, matcher, chunk=chunk)]
    assert found == expected


def _merged(parts: list[list[str]]) -> list[str]:
    """The obvious way: always the earliest next line, ties by argument order."""
    out = []
    heads = [0] * len(parts)
    while any(head < len(part) for head, part in zip(heads, parts, strict=True)):
        best = min(
            (n for n in range(len(parts)) if heads[n] < len(parts[n])), key=lambda n: (parts[n][heads[n]][:15], n)
        )
        out.append(parts[best][heads[best]])
        heads[best] += 1
    return out


def test_a_line_longer_than_a_chunk(tmp_path: Path, matcher: Matcher) -> None:
    long = "Mar  1 10:00:00 web1 sshd[9]: " + "x" * 200_000
    lines = [long, *attack(5, 300), long]
    path = write(tmp_path / "auth.log", lines, end="")
    assert replay([path], matcher, chunk=500) == replay([path], matcher)


@pytest.mark.parametrize("content", [b"", b"\n\n\n", b"\x00" * 5000, b"\xff\xfe" * 100 + b"\n"])
def test_nothing_to_find(tmp_path: Path, matcher: Matcher, content: bytes) -> None:
    path = tmp_path / "odd.log"
    path.write_bytes(content)
    assert replay([path], matcher) == []


def test_what_cannot_be_read_is_said(tmp_path: Path, matcher: Matcher) -> None:
    with pytest.raises(VedetteError, match="no such file"):
        open_files([tmp_path / "none.log"])
    with pytest.raises(VedetteError, match="not a file"):
        open_files([tmp_path])
    damaged = tmp_path / "damaged.gz"
    damaged.write_bytes(gzip.compress(b"\n".join(line.encode() for line in attack(1, 500)))[:-200])
    with pytest.raises(VedetteError, match="is damaged"):
        replay([damaged], matcher)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_came_before_the_damage_is_judged(tmp_path: Path, matcher: Matcher, workers: int) -> None:
    lines = attack(1, 4000)
    whole = write(tmp_path / "whole.log", lines)
    damaged = tmp_path / "damaged.gz"
    damaged.write_bytes(gzip.compress(whole.read_bytes())[:-2000])
    counters = Counters()
    correlator = Correlator(matcher.rules, counter=counters, evidence=evidence)
    found = []
    run = Replay(open_files([damaged], year=2026), matcher, correlator, counter=counters, workers=workers, chunk=9000)

    def collect() -> None:
        for one in run.run():
            found.append(one.id)

    with pytest.raises(VedetteError, match="is damaged"):
        collect()
    expected = [one.id for one in replay([whole], matcher)]
    assert 0 < len(found) < len(expected)
    assert found == expected[: len(found)]


def test_a_compressed_file_crosses_new_year_like_a_plain_one(tmp_path: Path, matcher: Matcher) -> None:
    words = "web1 sshd[9]: Failed password for root from 192.0.2.1 port 9 ssh2"
    lines = [f"Dec 31 23:59:5{n} {words}" for n in range(3)] + [f"Jan  1 00:00:0{n} {words}" for n in range(3)]
    plain = write(tmp_path / "auth.log", lines)
    packed = tmp_path / "auth.log.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    expected = [(one.id, one.time, one.count) for one in replay([plain], matcher)]
    assert [count for _, _, count in expected] == [5]
    assert [(one.id, one.time, one.count) for one in replay([packed], matcher)] == expected


@pytest.mark.parametrize("packed", [False, True])
def test_an_overlong_record_is_cut_and_counted(tmp_path: Path, matcher: Matcher, packed: bool) -> None:
    lines = [line.encode() for line in attack(5, 300)]
    long = [b"x" * (LONGEST + 1), b"\0" * 3_000_000 + lines[0], lines[0] + b" " * LONGEST * 2]
    path = tmp_path / "auth.log"
    content = b"\n".join([*lines[:100], *long, *lines[100:], b"y" * 3_000_000])
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    plain = write(tmp_path / "plain.log", [])
    plain.write_bytes(b"\n".join([*lines[:100], b"", lines[0], b"", *lines[100:], b""]))
    expected = [(one.id, [record.line for record in one.records]) for one in replay([plain], matcher)]
    for chunk in (9000, 1 << 20, 8 << 20):
        counters = Counters()
        correlator = Correlator(matcher.rules, counter=counters, evidence=evidence)
        run = Replay(open_files([path], year=2026), matcher, correlator, counter=counters, chunk=chunk)
        assert [(one.id, [record.line for record in one.records]) for one in run.run()] == expected
        assert run.progress.records == 304
        if chunk > 3_000_000:
            assert counters.value("records_dropped", "record-too-long") == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_is_renamed_or_cut_short_meanwhile(tmp_path: Path, matcher: Matcher, workers: int) -> None:
    lines = attack(2, 3000)
    path = write(tmp_path / "auth.log", lines)
    expected = replay([path], matcher)
    counters = Counters()
    correlator = Correlator(matcher.rules, counter=counters, evidence=evidence)
    run = Replay(open_files([path], year=2026), matcher, correlator, counter=counters, workers=workers, chunk=5000)
    findings = run.run()
    found = [next(findings)]
    path.rename(tmp_path / "auth.log.1")
    write(path, ["something else"] * 3000)
    assert [*found, *findings] == expected

    large = tmp_path / "large.log"
    large.write_bytes((tmp_path / "auth.log.1").read_bytes() + b"\n")
    os.truncate(large, 1 << 40)
    run = Replay(open_files([large], year=2026), matcher, correlator, counter=counters, workers=workers, chunk=5000)
    findings = run.run()
    next(findings)
    os.truncate(large, 100)
    assert len(list(findings)) < len(expected)


def test_many_short_records_are_matched_a_few_at_a_time(
    tmp_path: Path, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "auth.log", attack(4, 500))
    expected = replay([path], matcher)
    monkeypatch.setattr("vedette.app.replay.RECORDS", 37)
    assert replay([path], matcher) == expected


def test_a_worker_that_dies_ends_the_run_with_words(
    tmp_path: Path, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "auth.log", attack(2, 2000))

    def die(self: Replay, data: bytes) -> bytes:
        raise SystemExit(1)

    monkeypatch.setattr(Replay, "_work", die)
    with pytest.raises(VedetteError, match="worker ended"):
        replay([path], matcher, workers=2, chunk=5000)


def test_a_worker_that_died_idle_is_no_reader_of_ours_that_went_away() -> None:
    """A broken pipe would end the command with 0, its findings cut short."""
    pool = ForkedPool(bytes, 2)

    def use() -> None:
        with pool:
            for process in pool.processes:
                process.kill()
                process.join()
            pool.submit(b"job")

    with pytest.raises(VedetteError, match="worker ended"):
        use()


@pytest.mark.parametrize("odd", ["", "garbage", "<13>1 - host app - - - hello", "\x00\x00"])
@pytest.mark.parametrize("year", [0, 2024])
def test_a_record_without_a_time_makes_none_late(tmp_path: Path, matcher: Matcher, odd: str, year: int) -> None:
    """It is given the time of reading, which for a file at rest lies after everything else in it."""
    lines = [f"Mar  1 10:00:0{n} web1 sshd[9]: Failed password for root from 192.0.2.1 port 9 ssh2" for n in range(5)]
    path = write(tmp_path / "auth.log", [odd, *lines[:2], odd, *lines[2:]])
    other = write(tmp_path / "other.log", [odd, odd])
    for paths in ([path], [other, path], [path, other]):
        counters = Counters()
        correlator = Correlator(matcher.rules, counter=counters, evidence=evidence)
        run = Replay(open_files(paths, year=year), matcher, correlator, counter=counters)
        assert [(one.rule_id, one.count) for one in run.run()] == [("ssh-brute-force-address", 5)]
        assert counters.value("records_dropped", "late") == 0


def test_a_failure_without_a_time_counts_with_the_record_before_it(tmp_path: Path, matcher: Matcher) -> None:
    words = "Failed password for root from 192.0.2.1 port 9 ssh2"
    untimed = f"<38>1 - web1 sshd 9 - - {words}"
    timed = [f"<38>1 2026-03-01T10:00:0{n}Z web1 sshd 9 - - {words}" for n in range(4)]
    for lines in ([untimed, *timed, untimed], [*timed[:2], untimed, *timed[2:]]):
        found = replay([write(tmp_path / "auth.log", lines)], matcher)
        assert [(one.rule_id, one.count) for one in found] == [("ssh-brute-force-address", 5)]
