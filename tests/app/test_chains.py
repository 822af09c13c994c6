"""Chained correlations are the same however the files are cut and by how many they are read.
Counterpart: src/vedette/rules/chains.py and detections/correlate.py through app/replay.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.app.test_replay import attack, replay, write

from vedette.app.counters import Counters
from vedette.app.detection import load_matcher
from vedette.detections.match import Matcher

RULES = """
title: A failed login
id: 5f0d2a2e-0000-4000-8000-00000000000a
name: failed
logsource: {product: linux, service: sshd}
detection: {a: {event.action: ssh-login-failed}, condition: a}
level: low
---
title: A login
id: 5f0d2a2e-0000-4000-8000-00000000000b
name: login
logsource: {product: linux, service: sshd}
detection: {a: {event.action: ssh-login-succeeded}, condition: a}
level: low
---
title: Guessing
id: 5f0d2a2e-0000-4000-8000-00000000000c
name: guessing
correlation: {type: event_count, rules: [failed], group-by: [host.name, source.ip], timespan: 10m,
  condition: {gte: 3}}
level: medium
---
title: Guessed
id: 5f0d2a2e-0000-4000-8000-00000000000d
name: guessed
correlation: {type: temporal_ordered, rules: [guessing, login], group-by: [host.name, source.ip], timespan: 30m,
  generate: true}
level: high
---
title: Several guess
id: 5f0d2a2e-0000-4000-8000-00000000000e
correlation: {type: value_count, rules: [guessed], group-by: [host.name], timespan: 6h, generate: true,
  condition: {field: source.ip, gte: 2}}
level: critical
"""


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    path = tmp_path_factory.mktemp("rules") / "chains.yml"
    path.write_text(RULES)
    return load_matcher([path], packs=False, counter=Counters())


def test_chains_do_not_depend_on_cuts_or_workers(tmp_path: Path, matcher: Matcher) -> None:
    paths = [write(tmp_path / f"{n}.log", attack(4 + n, 500)) for n in range(2)]
    whole = replay(paths, matcher)
    assert {found.rule_id[-1] for found in whole} == {"b", "c", "d", "e"}
    for workers, chunk in ((1, 2_000), (2, 5_000), (3, 9_000)):
        assert replay(paths, matcher, workers=workers, chunk=chunk) == whole
