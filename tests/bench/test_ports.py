"""The benchmark of looking at ports counts every verdict that is not what there is, of either program.
Counterpart: bench/ports.py."""

from __future__ import annotations

import json

from bench.ports import Task, nmap, read, vedette, wrong

from vedette.model.ports import PortState

TASK = Task("small", 100, 2, dropped=range(80, 93))


def test_every_wrong_verdict_counts_and_an_address_that_is_not_spoken_of_counts_whole():
    said = TASK.truth()
    assert said["192.0.2.1"][22] is PortState.OPEN
    assert said["192.0.2.1"][80] is PortState.FILTERED
    assert wrong(TASK, said) == 0
    del said["192.0.2.1"][22]
    said["192.0.2.2"] |= {5: PortState.FILTERED, 22: PortState.FILTERED, 50_123: PortState.OPEN}
    assert wrong(TASK, said) == 3
    del said["192.0.2.1"]
    assert wrong(TASK, said) == 102


def test_both_programs_are_read_into_one_form():
    ours = json.dumps({"192.0.2.1": {"open": [22], "filtered": [80, 90]}}).encode()
    theirs = (
        '<nmaprun><host><status state="up"/><address addr="192.0.2.1" addrtype="ipv4"/><ports>'
        '<extraports state="closed" count="97"><extrareasons reason="conn-refused" proto="tcp" ports="1-21"/>'
        "</extraports>"
        + "".join(
            f'<port protocol="tcp" portid="{port}"><state state="{state}" reason="x"/></port>'
            for port, state in ((22, "open"), (80, "filtered"), (90, "filtered"))
        )
        + "</ports></host></nmaprun>"
    ).encode()
    assert read("vedette", ours) == read("nmap -sT", theirs)
    assert read("vedette", ours)["192.0.2.1"][90] is PortState.FILTERED


def test_both_programs_are_asked_for_the_same():
    assert {"1-100", "192.0.2.1", "192.0.2.2"} <= set(vedette(TASK)) & set(nmap(TASK))
