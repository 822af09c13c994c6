from __future__ import annotations

from dataclasses import replace

import pytest

from vedette.model.clock import MINUTE
from vedette.model.ports import FirewallVerdict, InsideView, Listener, Protocol, UnreadWhy
from vedette.sources.ports.listeners import absent, candidates, described, story
from vedette.text.times import parse_rfc3339

NOW = parse_rfc3339("2026-11-24T10:00:00Z")
OWN = frozenset(("192.0.2.1", "2001:db8::1", "127.0.0.1"))
EVERYWHERE = Listener(
    "web", "0.0.0.0", 443, Protocol.TCP, process="nginx", pid=12, user="root", unit="nginx.service",
    package="nginx-light", since=NOW - MINUTE, firewall=FirewallVerdict.ACCEPTED, firewall_rule="a rule",
)  # fmt: skip


def hindrance(one: Listener, address: str = "192.0.2.1", own: frozenset[str] = OWN) -> str:
    (found,) = candidates(InsideView("web", NOW, (one,), addresses=own), address, 443, Protocol.TCP)
    return found.hindrance


@pytest.mark.parametrize(
    ("changes", "address", "wanted"),
    [
        ({}, "192.0.2.1", ""),
        ({}, "2001:db8::1", "it takes IPv4 alone"),
        ({"address": "::", "dual": True}, "192.0.2.1", ""),
        ({"address": "::"}, "192.0.2.1", "it takes IPv6 alone"),
        ({"address": "::"}, "2001:db8::1", ""),
        ({"address": "192.0.2.1"}, "192.0.2.1", ""),
        ({"address": "127.0.0.1"}, "192.0.2.1", "it is bound to 127.0.0.1 alone"),
        ({"address": "127.0.0.1"}, "127.0.0.1", ""),
        ({"address": "192.0.2.9"}, "192.0.2.1", "it is bound to 192.0.2.9 alone"),
        ({"device": "lo"}, "192.0.2.1", "it is bound to the device lo alone"),
        ({"namespace": "c1"}, "192.0.2.1", "it is in the network namespace c1, and nothing publishes it there"),
        ({"namespace": "c1", "published": True}, "192.0.2.1", ""),
        # An address that is none of the host's own was translated on the way, to whichever of its own.
        ({"address": "192.0.2.1"}, "198.51.100.1", ""),
        ({"address": "127.0.0.1"}, "198.51.100.1", "it is bound to 127.0.0.1 alone"),
        ({}, "web.example.org", ""),
    ],
)
def test_who_answers_at_an_address_and_what_keeps_others_from_it(changes: dict[str, object], address: str, wanted: str):
    assert hindrance(replace(EVERYWHERE, **changes), address) == wanted  # type: ignore[arg-type]


def test_what_a_port_is_translated_to_answers_in_place_of_what_listens_on_it():
    container = replace(EVERYWHERE, namespace="c1", published=True, process="app")
    loopback = replace(EVERYWHERE, address="127.0.0.1", process="proxy")
    view = InsideView("web", NOW, (loopback, EVERYWHERE, container))
    found = candidates(view, "192.0.2.1", 443, Protocol.TCP)
    assert [one.listener.process for one in found] == ["app", "nginx", "proxy"]
    assert candidates(view, "192.0.2.1", 443, Protocol.UDP) == []


def test_only_a_fresh_view_that_read_enough_says_that_something_is_not_there():
    assert absent(InsideView("web", NOW), NOW + 9 * MINUTE)
    assert not absent(InsideView("web", NOW), NOW + 11 * MINUTE)
    assert not absent(None, NOW)
    assert not absent(InsideView("web", NOW, complete=False), NOW)
    blind = InsideView("web", NOW, complete=False, unread={UnreadWhy.NAMESPACE: 1})
    assert absent(blind, NOW)
    assert not absent(replace(blind, unread={UnreadWhy.NAMESPACE: 1, UnreadWhy.TRANSLATION: 1}), NOW)


def test_the_inside_part_of_the_story():
    view = InsideView("web", NOW, (EVERYWHERE, replace(EVERYWHERE, address="127.0.0.1")), unread={UnreadWhy.PROCESS: 2})
    assert list(story(view, "192.0.2.1", 443, Protocol.TCP)) == [
        "inside: nginx (pid 12, user root, nginx.service, package nginx-light) listens on 0.0.0.0:443/tcp "
        "since 2026-11-24T09:59:00.000000Z",
        "  the host's own firewall lets it in: a rule",
        "inside: nginx (pid 12, user root, nginx.service, package nginx-light) listens on 127.0.0.1:443/tcp "
        "since 2026-11-24T09:59:00.000000Z",
        "  it is bound to 127.0.0.1 alone",
        "inside: could not be read: process 2",
        "inside: as of 2026-11-24T10:00:00.000000Z",
    ]
    assert next(story(None, "192.0.2.1", 443, Protocol.TCP)).startswith("inside: not known")
    assert next(story(view, "192.0.2.1", 80, Protocol.TCP)) == "inside: nothing listens on 80/tcp"
    part = replace(view, complete=False, unread={UnreadWhy.TRANSLATION: 1})
    assert "not everything could be read" in next(story(part, "192.0.2.1", 80, Protocol.TCP))
    assert described(Listener("web", "::", 1, Protocol.UDP)) == "something"
