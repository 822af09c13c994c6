"""The tables of central logging as Markdown, with payload, sync and TLS settings and what was asked for.
Counterpart: `bench.logging_syslog`, `logging_fleet` and `logging_lake` measure; `bench.report` writes the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from statistics import median

from bench.logging_fleet import Long, Resting, Shipped
from bench.logging_lake import Kept, Large
from bench.logging_syslog import SIZE, Received
from bench.report import table, verdict

SHIPPED_MUST, SHIPPED_GOAL = 100_000, 200_000
TIMES_MUST = 8
RARE_MUST = 20
SHARE_MUST, RSS_MUST = 0.05, 100


def head(load: float) -> list[str]:
    """What holds for all of it."""
    return [
        "## Central logging",
        "",
        "`python -m bench logging`. Lines by `bench/logging_lines.py`, numbered; after each run every number is looked"
        " for where it should have arrived, each once, and one of them by `vedette search`: a run that lost or doubled"
        f" a line gives no figure. The one-minute load average was {load:.1f} when the runs began.",
        "",
    ]


def syslog_section(found: Sequence[Sequence[Received]]) -> list[str]:
    """TCP syslog against rsyslog."""
    peer = median(one.per_cpu_second for one in found[0])
    rows = []
    for runs in found:
        rate = median(one.per_cpu_second for one in runs)
        spread = sorted(one.per_cpu_second for one in runs)
        rows.append(
            [
                runs[0].name,
                f"{rate:,.0f}",
                f"{spread[0]:,.0f} - {spread[-1]:,.0f}",
                f"{rate / peer:.2f}",
                f"{median(one.messages / one.seconds for one in runs):,.0f}",
                f"{max(one.rss for one in runs):.0f}",
            ]
        )
    best = max(median(one.per_cpu_second for one in runs) for runs in found[1:])
    return [
        "### TCP syslog, stored and searchable",
        "",
        f"{found[0][0].messages:,} messages of {SIZE} bytes (RFC 3164, newline framing, no TLS) over one connection on"
        " loopback; sender on one processor, receiver on the other. rsyslog: `imtcp` to `omfile`, one plain file, not"
        " synced. Vedette: judged by the rules, on the shelf (`fdatasync` a group), hashed into the ledger and in the"
        " lake (`fsync` a flush); the clock stops when the manifest has the last one. CPU seconds are user and system.",
        "",
        *table(
            ["program", "messages/CPU-s (median)", "min - max", "times rsyslog", "messages/s, wall", "MiB at most"],
            rows,
        ),
        f"Must: at least rsyslog's. {verdict(best >= peer)} ({best / peer:.2f} times).",
        "",
    ]


def shipped_section(runs: Sequence[Shipped], resting: Resting) -> list[str]:
    """Agent to hub, and the agent at rest."""
    rows = [
        [
            f"{one.lines:,}",
            f"{one.rate:,.0f}",
            f"{one.possible:,.0f}",
            f"{one.wire / one.seconds / 1e6:.1f}",
            f"{one.raw / one.wire:.1f}",
            f"{one.agent / one.lines * 1e6:.1f}",
            f"{one.hub / one.lines * 1e6:.1f}",
            f"{one.broker / one.lines * 1e6:.1f}",
        ]
        for one in runs
    ]
    rate, possible = median(one.rate for one in runs), median(one.possible for one in runs)
    names = ["lines", "lines/s, wall", "lines/s by CPU", "wire MB/s", "raw / wire"]
    names += ["agent CPU µs/line", "hub CPU µs/line", "broker CPU µs/line"]
    return [
        "### Agent, JetStream, lake",
        "",
        "A file of lines of 300 bytes is appended to at once; the agent (one processor) reads, judges by all packs,"
        " spools (`fdatasync`, zstd) and ships over mutual TLS 1.3; broker and hub share the other processor: JetStream"
        " with `sync_interval: always`, fleet rules, lake and ledger (`fsync`). The clock stops when the hub's manifest"
        " has the last line. *By CPU*: what agent and hub would do with a processor of their own each"
        " (whichever needs more).",
        "",
        *table(names, rows),
        f"Must: {SHIPPED_MUST:,} lines/s, goal {SHIPPED_GOAL:,}. The must by wall time:"
        f" {verdict(rate >= SHIPPED_MUST).lower()} ({rate:,.0f}), by CPU time:"
        f" {verdict(possible >= SHIPPED_MUST).lower()} ({possible:,.0f}).",
        "",
        "### An agent at rest",
        "",
        f"One file that grows by {resting.per_second:,} lines a second in steps of 50 ms for {resting.seconds:.0f} s,"
        " all packs on.",
        "",
        *table(
            ["lines/s", "CPU of one processor", "MiB at the end", "MiB at most"],
            [
                [
                    f"{resting.per_second:,}",
                    f"{resting.share * 100:.1f} %",
                    f"{resting.rss:.0f}",
                    f"{resting.most:.0f}",
                ]
            ],
        ),
        f"Must: under 5 % of one processor and 100 MB. {verdict(resting.share < SHARE_MUST)};"
        f" {verdict(resting.most * 1.048576 < RSS_MUST).lower()}.",
        "",
    ]


def long_section(one: Long) -> list[str]:
    """A hub with many agents."""
    rows = [
        ["hub", *(f"{size:.0f}" for size in one.rss)],
        ["broker", *(f"{size:.0f}" for size in one.broker_rss)],
    ]
    return [
        f"### A hub with {one.agents} agents for {one.minutes:g} minutes",
        "",
        f"Agents simulated in one process, each with its own certificate, connection, shelf and shipper. Sent"
        f" {one.sent:,} lines, stored {one.stored:,}, each once. From shelf to confirmed: median {one.lag[0]:.2f} s,"
        f" 99 of 100 {one.lag[1]:.2f} s, at most {one.lag[2]:.2f} s. CPU of the hub: {one.hub_cpu:.1f} s.",
        "",
        "MiB resident after each tenth of the time:",
        "",
        *table(["", *(f"{tenth * one.minutes / 10:g} min" for tenth in range(1, 11))], rows),
    ]


def kept_section(found: Sequence[Kept]) -> list[str]:
    """Raw bytes to bytes on the disk."""
    rows = [
        [
            one.what,
            f"{one.lines:,}",
            f"{one.raw / 1e6:.1f}",
            f"{one.disk / 1e6:.2f}",
            f"{one.times:.1f}",
            f"{one.filters / one.disk * 100:.0f} %",
            f"{one.manifest / one.disk * 100:.0f} %",
            f"{one.cpu / one.lines * 1e6:.1f}",
        ]
        for one in found
    ]
    large = [one for one in found if one.lines >= 100_000]
    return [
        "### Bytes on the disk",
        "",
        "Raw bytes (newlines included) to all bytes of the lake's folder after compaction: records, header columns,"
        " filters, manifest and ledger. The samples of loghub are so small that the empty manifest is most of it. CPU:"
        " from headers to compacted, one process.",
        "",
        *table(["lines", "number", "raw MB", "disk MB", "raw / disk", "filters", "manifest", "CPU µs/line"], rows),
        f"Must: at most one byte for {TIMES_MUST}. "
        + "; ".join(f"{one.what}: {verdict(one.times >= TIMES_MUST).lower()} ({one.times:.1f})" for one in large)
        + ".",
        "",
    ]


def searched_section(one: Large) -> list[str]:
    """Searches beside zstdcat and grep."""
    rows = [
        [
            each.what,
            "`" + each.query.replace("|", "\\|") + "`",
            f"{each.wall[0]:.2f}",
            f"{each.wall[1]:.2f}",
            f"{each.wall[1] / each.wall[0]:.1f}",
            f"{each.cpu[1] / each.cpu[0]:.1f}",
            f"{each.memory:.0f}",
        ]
        for each in one.searched
    ]
    rare, filled = one.searched[0], one.filled
    ratio = rare.wall[1] / rare.wall[0]
    first, last = filled.days[0], filled.days[-1]
    return [
        "### Searched",
        "",
        f"{filled.lines:,} lines of {len(filled.days)} days from 8 hosts, {filled.raw / 1e9:.2f} GB raw,"
        f" {filled.disk / 1e9:.2f} GB as a lake ({filled.raw / filled.disk:.1f}), {filled.packed / 1e9:.2f} GB as"
        " `zstd -3` files, one a day; all in the page cache where it fits. Whole processes, start-up included, medians"
        " of pairs in turns; both must find the same number.",
        "",
        "```sh",
        f"vedette search QUERY --since {first:%Y-%m-%d}T00:00:00Z --until {last + timedelta(days=1):%Y-%m-%d}T00:00:00Z"
        " --output json",
        *dict.fromkeys(each.peer for each in one.searched),
        "```",
        "",
        *table(["looked for", "query", "wall s", "peer's wall s", "times as fast", "by CPU", "MiB at most"], rows),
        f"Must: the rare word {RARE_MUST} times as fast. {verdict(ratio >= RARE_MUST)} ({ratio:.1f}). On the disk, must"
        f" one byte for {TIMES_MUST}: {verdict(filled.raw / filled.disk >= TIMES_MUST).lower()}"
        f" ({filled.raw / filled.disk:.1f}, without the ledger).",
        "",
    ]
