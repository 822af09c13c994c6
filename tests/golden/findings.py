"""Findings over the corpora, written short: `python -m tests.golden.findings CORPUS` renews the golden files.
Counterpart: `test_golden.py` holds what is found today to them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
from bench.agreement import FOLDERS, ours, samples_of

from vedette.app.counters import Counters
from vedette.app.detection import load_matcher
from vedette.app.replay import Replay, evidence, open_files
from vedette.detections.correlate import Correlator
from vedette.model.findings import Finding
from vedette.rules.loading import load

GOLDEN = Path(__file__).parent
YEAR = 2015
"""Of headers that name none: one that is no leap year, as the logs' own."""


def line_of(finding: Finding) -> str:
    """Rule, key, count and first record of a finding; nothing else of the log."""
    first = finding.records[0]
    return orjson.dumps([finding.rule_id, finding.key, finding.count, first.line]).decode()


def logs(corpus: Path, log: str, rules: tuple[str, ...] = (), *, workers: int = 1, chunk: int = 1 << 20) -> list[str]:
    """Findings of our packs, and of SigmaHQ's rules in `rules`, over one log."""
    counters = Counters()
    matcher = load_matcher([corpus / "sigma" / name for name in rules], counter=counters, keep_going=True)
    correlator = Correlator(matcher.rules, counter=counters, evidence=evidence)
    files = open_files([corpus / "logs" / log], year=YEAR)
    run = Replay(files, matcher, correlator, counter=counters, workers=workers, chunk=chunk)
    found = [line_of(finding) for finding in run.run()]
    # Every line of these logs has a header that can be read.
    assert run.progress.records > 0
    assert run.progress.unreadable == 0, log
    return found


def _samples(corpus: Path) -> list[str]:
    """Which of SigmaHQ's rules match which of its samples: each rule, then the samples."""
    loaded = load([corpus / "sigma" / name for name in FOLDERS], keep_going=True)
    samples = samples_of(corpus / "sigma" / "regression_data")
    found: dict[str, list[str]] = {}
    for rule, n in sorted(ours([rule for rule in loaded.rules if rule.correlate is None], samples)):
        found.setdefault(rule, []).append(Path(samples[n].name).name)
    return [orjson.dumps([rule, *names]).decode() for rule, names in found.items()]


GOLDEN_FILES: dict[str, Callable[[Path], list[str]]] = {
    "loghub-openssh": lambda corpus: logs(corpus, "loghub/OpenSSH/OpenSSH_2k.log"),
    "loghub-linux": lambda corpus: logs(corpus, "loghub/Linux/Linux_2k.log"),
    "elastic-auth": lambda corpus: logs(corpus, "elastic-examples/auth.log"),
    "elastic-apache": lambda corpus: logs(corpus, "elastic-examples/apache_logs", ("rules/web",)),
    "sigmahq-samples": _samples,
}


def renew(corpus: Path) -> Iterator[str]:
    """Write the golden files anew; what was written."""
    for name, find in GOLDEN_FILES.items():
        lines = find(corpus)
        (GOLDEN / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
        yield f"{name}: {len(lines)}"


if __name__ == "__main__":
    for _line in renew(Path(sys.argv[1])):
        print(_line)
