"""How much of fail2ban's sample logs our own packs find, service by service: `python -m bench.own_recall CORPUS`.
Counterpart: `app.failjson` judges each line; docs/agreement.md has the table and argues what is not found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from vedette.app.failjson import OwnRun, SampleRun
from vedette.model.errors import RuleError
from vedette.rules.failjson import FailCase, FailSet, read_failjson
from vedette.rules.failregex import filter_files, read_filter

SERVICES: dict[str, tuple[str, ...]] = {
    "apache": (
        "apache-auth",
        "apache-badbots",
        "apache-botsearch",
        "apache-fakegooglebot",
        "apache-modsecurity",
        "apache-nohome",
        "apache-noscript",
        "apache-overflows",
        "apache-shellshock",
    ),
    "dovecot": ("dovecot",),
    "dropbear": ("dropbear",),
    "exim": ("exim", "exim-spam"),
    "haproxy": ("haproxy-http-auth",),
    "mysqld": ("mysqld-auth",),
    "named": ("named-refused",),
    "nginx": ("nginx-bad-request", "nginx-botsearch", "nginx-forbidden", "nginx-http-auth", "nginx-limit-req"),
    "openldap": ("slapd",),
    "openvpn": ("openvpn",),
    "postfix": ("postfix",),
    "proftpd": ("proftpd",),
    "pure-ftpd": ("pure-ftpd",),
    "squid": ("squid",),
    "vsftpd": ("vsftpd",),
}
"""The services of the packs, and the filters whose logs are theirs."""

BESIDE: dict[str, tuple[str, ...]] = {"pam": ("pam-generic",), "sshd": ("sshd",)}
"""Measured by the same rule, not held to the same share: what is missing is argued in the document."""


@dataclass(slots=True)
class Share:
    """What came of a service's lines. missed: failures nobody was accused for; wrong: lines that are no failure by any
    filter of the service, and somebody was; strangers: failures for which somebody else was.
    """

    service: str
    lines: int = 0
    found: int = 0
    elsewhere: int = 0
    """Lines that one filter of the service calls none and another, or the same in another mode, a failure."""
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        """The part that was found."""
        return self.found / self.lines if self.lines else 1.0


class Judge:
    """Our packs, and fail2ban's own filters to ask about lines that are no failure in one of them."""

    def __init__(self, corpus: Path) -> None:
        self._logs, self._filters = corpus / "fail2ban" / "logs", corpus / "fail2ban" / "config" / "filter.d"
        self._own = OwnRun()
        self._run = cache(self._run_of)

    def share(self, service: str, names: Iterable[str]) -> Share | None:
        """The share of the logs that are there; None where none is."""
        sets: list[FailSet] = []
        errors: list[RuleError] = []
        for path in (self._logs / name for name in names):
            if path.exists():
                sets += read_failjson(path, errors)
        if errors:
            raise errors[0]
        if not sets:
            return None
        share = Share(service)
        for case in (case for one in sets for case in one.cases):
            self._judge(share, case, sets)
        return share

    def _judge(self, share: Share, case: FailCase, sets: Sequence[FailSet]) -> None:
        found = self._own.line(case)
        if case.match:
            share.lines += 1
            share.found += found is not None
            if found is None:
                share.missed.append(case.line)
            elif found[0].who != case.fields.get("host"):
                share.strangers.append(case.line)
        elif found is not None:
            if any(self._calls(one, case, str(found[0].who)) for one in sets):
                share.elsewhere += 1
            else:
                share.wrong.append(case.line)

    def _calls(self, other: FailSet, case: FailCase, who: str) -> bool:
        """Whether fail2ban itself, by a filter of the same service, takes the line for a failure of this address."""
        run = self._run(other.filter, tuple(sorted(other.options.items())))
        failure = None if run is None else run.line(case)
        return failure is not None and failure[0].who == who

    def _run_of(self, name: str, options: tuple[tuple[str, str], ...]) -> SampleRun | None:
        try:
            return SampleRun(read_filter(filter_files(self._filters, name), dict(options), name))
        except RuleError:
            return None


def shares(corpus: Path, services: dict[str, tuple[str, ...]] = SERVICES) -> list[Share]:
    """The shares of all services whose logs are there."""
    judge = Judge(corpus)
    found = (judge.share(service, names) for service, names in services.items())
    return [share for share in found if share is not None]


def table(rows: Sequence[Share], total: bool = True) -> str:
    """As Markdown."""
    lines = [
        "| service | failures | found | recall | counted by another filter | wrongly accused |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row.service} | {row.lines} | {row.found} | {row.recall:.1%} | {row.elsewhere} | {len(row.wrong)} |"
        )
    if total:
        every, found = sum(row.lines for row in rows), sum(row.found for row in rows)
        elsewhere, wrong = sum(row.elsewhere for row in rows), sum(len(row.wrong) for row in rows)
        lines.append(f"| all | {every} | {found} | {found / max(every, 1):.1%} | {elsewhere} | {wrong} |")
    return "\n".join(lines)


def main() -> int:
    """Exit 0 where at least nine of ten are found and nobody is accused wrongly."""
    parser = argparse.ArgumentParser(prog="python -m bench.own_recall", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--lines", action="store_true", help="also each line that was missed or is wrong")
    given = parser.parse_args()
    held, beside = shares(given.corpus), shares(given.corpus, BESIDE)
    print(table(held), "", table(beside, total=False), sep="\n")
    if given.lines:
        for share in (*held, *beside):
            for word, lines in (("missed", share.missed), ("wrong", share.wrong), ("stranger", share.strangers)):
                for line in dict.fromkeys(lines):
                    print(f"{share.service}: {word}: {line[:200]!r}")
    every, found = sum(row.lines for row in held), sum(row.found for row in held)
    return int(found < 0.9 * every or any(row.wrong or row.strangers for row in held))


if __name__ == "__main__":
    sys.exit(main())
