"""What stands behind `|`: counts, bars, clusters, and the period before."""

from __future__ import annotations

import pytest
from tests.app.search_parts import HOUR, lake_of, search

from vedette.app import search_pipes
from vedette.app.search import CutReason
from vedette.app.search_clusters import MOST, Clusters
from vedette.app.search_pipes import Pipe, Verb, run, split_line
from vedette.model.errors import RuleError
from vedette.store.lake.lake import Lake
from vedette.text.times import parse_rfc3339, rfc3339

BASE = parse_rfc3339("2026-01-01T00:00:00Z")


def failed(minute: int, user: str, address: str) -> bytes:
    time = rfc3339(BASE + minute * 60_000_000)
    return f"{time} web01 sshd[{minute}]: Failed password for {user} from {address} port {minute + 1000} ssh2".encode()


def started(minute: int, unit: str) -> bytes:
    return f"{rfc3339(BASE + minute * 60_000_000)} web01 systemd[1]: Started unit {unit} after {minute} ms.".encode()


BATCHES = [
    [failed(minute, "root", "192.0.2.1") for minute in range(0, 30, 10)],
    [failed(70, "root", "192.0.2.1"), failed(80, "bob", "192.0.2.2"), failed(90, "root", "192.0.2.2")],
    [started(20, "cron"), started(75, "cron"), started(76, "backup"), b"{} no object"],
]
SECOND_HOUR = {"since": BASE + HOUR, "until": BASE + 2 * HOUR}


@pytest.fixture
def lake(tmp_path):
    with lake_of(tmp_path / "lake", BATCHES) as made:
        yield made


def rows(lake: Lake, text: str, **options: object) -> list[tuple[object, ...]]:
    query, pipe = split_line(text)
    assert pipe is not None
    return list(run(search(lake, query, **options), pipe).rows)


def test_counts(lake):
    assert rows(lake, "failed | count") == [(6,)]
    assert rows(lake, "failed | count by user.name") == [("root", 5), ("bob", 1)]
    assert rows(lake, "failed | count by user.name, source.ip") == [
        ("root", "192.0.2.1", 4),
        ("bob", "192.0.2.2", 1),
        ("root", "192.0.2.2", 1),
    ]
    assert rows(lake, "* | count by source.ip")[0] == (None, 4)
    assert rows(lake, "failed | top 1 source.ip") == [("192.0.2.1", 4)]
    assert rows(lake, "nothing-like-it | count") == [(0,)]


def test_compared_with_the_period_before(lake):
    assert rows(lake, "failed | count | compare", **SECOND_HOUR) == [(3, 3, 0)]
    assert rows(lake, "failed | count by source.ip | compare", **SECOND_HOUR) == [
        ("192.0.2.2", 2, 0, 2),
        ("192.0.2.1", 1, 3, -2),
    ]
    first = {"since": BASE + 2 * HOUR, "until": BASE + 3 * HOUR}
    assert rows(lake, "failed | count by user.name | compare", **first) == [("bob", 0, 1, -1), ("root", 0, 2, -2)]


def test_bars_stand_for_every_time_of_the_range(lake):
    whole = rows(lake, "failed | histogram 30m", since=BASE, until=BASE + 2 * HOUR)
    assert [row[1] for row in whole] == [3, 0, 2, 1]
    assert whole[0][0] == "2026-01-01T00:00:00.000000Z"
    compared = rows(lake, "failed | histogram 30m | compare", **SECOND_HOUR)
    assert [row[1:] for row in compared] == [(2, 3, -1), (1, 0, 1)]
    assert len(rows(lake, "failed | histogram", since=BASE, until=BASE + 24 * HOUR)) == 48
    assert [row[1] for row in rows(lake, "failed | histogram 30m")] == [3, 2, 1]


def test_counting_everything_reads_no_record(lake, monkeypatch):
    def scan(*_: object) -> None:
        raise AssertionError("records were read")

    monkeypatch.setattr(lake, "scan", scan)
    assert rows(lake, "* | count") == [(10,)]
    assert [row[1] for row in rows(lake, "| histogram 30m", since=BASE, until=BASE + 2 * HOUR)] == [4, 0, 4, 1]


def test_similar_lines_are_one_cluster(lake):
    found = rows(lake, "* | clusters")
    assert [(row[0], row[1]) for row in found[:2]] == [
        (6, "Failed password for <*> from <*> port <*> ssh2"),
        (3, "Started unit <*> after <*> ms."),
    ]
    assert found[1][2:4] == ("2026-01-01T00:20:00.000000Z", "2026-01-01T01:16:00.000000Z")


def test_what_is_new_is_what_the_period_before_did_not_have(tmp_path):
    with lake_of(tmp_path / "new", [*BATCHES, [f"{rfc3339(BASE + HOUR)} web01 kernel: oops".encode()]]) as lake:
        assert [row[1] for row in rows(lake, "* | new", **SECOND_HOUR)] == ["oops"]
        assert len(rows(lake, "* | new", since=BASE, until=BASE + HOUR)) == 2


def test_too_many_groups_are_cut_and_it_is_said(lake, monkeypatch):
    monkeypatch.setattr(search_pipes, "MOST_GROUPS", 1)
    one = search(lake, "failed")
    assert list(run(one, Pipe(Verb.COUNT, ("source.port",))).rows) == [(1000, 1)]
    assert list(one.limits.cut) == [CutReason.GROUPS]


def test_clusters_are_bounded():
    clusters = Clusters()
    for number in range(MOST + 50):
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        clusters.add(f"{word} {word}x {word}y {word}z", number)
    assert clusters.full
    assert len(clusters.by_count()) == MOST


@pytest.mark.parametrize(
    ("line", "query", "pipe"),
    [
        ("failed", "failed", None),
        ("a | count by b, c,d", "a", Pipe(Verb.COUNT, ("b", "c", "d"))),
        ('"a | b" | top user.name', '"a | b"', Pipe(Verb.TOP, ("user.name",), 10)),
        ("f:/a|b/ | histogram 5m | compare", "f:/a|b/", Pipe(Verb.HISTOGRAM, length=300_000_000, compare=True)),
        ("|new 5", "", Pipe(Verb.NEW, number=5)),
    ],
)
def test_a_line_is_cut_at_its_bars(line, query, pipe):
    assert split_line(line) == (query, pipe)


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ("a |", "query:1:3", "nothing behind"),
        ("a | cont by b", "query:1:3", "did you mean"),
        ("a | count b", "query:1:3", "`by` and fields"),
        ("a | top 5", "query:1:3", "one field"),
        ("a | histogram 0s", "query:1:3", "no time at all"),
        ("a | histogram soon", "query:1:3", "not a duration"),
        ("a | clusters | compare", "query:1:14", "compare stands behind"),
        ("a | count | top b", "query:1:11", "top behind count"),
        ("a | compare", "query:1:3", "compare stands behind"),
    ],
)
def test_what_is_no_pipe_is_said_with_its_column(line, place, words):
    with pytest.raises(RuleError) as caught:
        split_line(line)
    assert str(caught.value).startswith(f"{place}: ")
    assert words in str(caught.value)
