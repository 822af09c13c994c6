"""One of many differs: who is told, and who is not while an upgrade goes from host to host.
Counterpart: alike.py; `vedette integrity odd` reads the hosts."""

from __future__ import annotations

from typing import Any

import pytest

from vedette.sources.integrity.alike import Fact, facts_told, odd_ones

HOSTS = [f"web{number}" for number in range(212)]


def facts(key: str, **values: str) -> list[Fact]:
    """The same on all, but for those named."""
    return [Fact(host, "file", key, values.get(host, "usual")) for host in HOSTS if values.get(host) != ""]


def test_one_of_many_differs() -> None:
    (odd,) = odd_ones(facts("/usr/bin/ssh", web7="evil"), HOSTS)
    assert (odd.hosts, odd.of, odd.alike, odd.value, odd.usual) == (("web7",), 212, 211, "evil", "usual")
    assert odd.words == "1 of 212 differ: file /usr/bin/ssh: evil, on the others usual: web7"


def test_what_one_has_not_or_has_alone() -> None:
    (without,) = odd_ones(facts("/etc/x", web7=""), HOSTS)
    assert (without.value, without.usual) == ("", "usual")
    (alone,) = odd_ones([Fact("web7", "listener", "tcp 0.0.0.0:31337", "there")], HOSTS)
    assert (alone.value, alone.usual, alone.hosts) == ("there", "", ("web7",))


def test_all_alike_is_nothing() -> None:
    assert list(odd_ones(facts("/etc/x"), HOSTS)) == []


def test_a_staged_upgrade_makes_nobody_odd() -> None:
    staged = dict.fromkeys(HOSTS[:60], "newer")
    assert list(odd_ones(facts("/usr/bin/ssh", **staged), HOSTS)) == []
    every = {host: host for host in HOSTS}
    assert list(odd_ones(facts("/etc/hostname", **every), HOSTS)) == []


@pytest.mark.parametrize(("count", "told"), [(4, 0), (5, 1)])
def test_of_few_hosts_nothing_is_usual(count: int, told: int) -> None:
    some = HOSTS[:count]
    found = [Fact(host, "file", "/x", "odd" if host == "web0" else "usual") for host in some]
    assert len(list(odd_ones(found, some))) == told


def test_files_of_one_version_of_a_package_are_held_against_each_other() -> None:
    """Only among the hosts that told of them; those of another version are no measure."""

    def told(host: str, version: str, digest: str) -> dict[str, Any]:
        return {
            "event.action": "file-changed", "host.name": host, "@timestamp": "2026-03-01T10:00:00.000000Z",
            "package.name": "openssh", "package.version": version, "file.path": "/usr/sbin/sshd",
            "file.hash.sha256": digest,
        }  # fmt: skip

    records = [told(f"a{number}", "2", "evil" if number == 4 else "good") for number in range(6)]
    records += [told(f"b{number}", "1", "old") for number in range(2)]
    found = facts_told(records)
    (odd,) = odd_ones(found, {one.host for one in found})
    assert (odd.hosts, odd.of, odd.value, odd.usual) == (("a4",), 6, "evil", "good")
    assert odd.kind == "file told of openssh 2"


def record(host: str, at: int, kind: str, told: Any) -> dict[str, Any]:
    return {
        "event.action": "facts-told", "host.name": host, "@timestamp": f"2026-03-01T10:00:0{at}.000000Z",
        "vedette.rootkit.kind": kind, "vedette.rootkit.facts": told,
    }  # fmt: skip


def test_the_newest_facts_of_each_host_count() -> None:
    records = [
        record("a", 2, "set-uid", ["/bin/su = 4755"]),
        record("a", 1, "set-uid", ["/bin/old = 4755"]),
        record("b", 1, "listeners", "tcp 0.0.0.0:22"),
        {"event.action": "something"},
    ]
    assert facts_told(records) == [
        Fact("b", "listeners", "tcp 0.0.0.0:22", "there"),
        Fact("a", "set-uid", "/bin/su", "4755"),
    ]
