from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import msgspec
import pytest

from vedette.app.inside_helper import serve
from vedette.app.port_inside import inside_view, own_host
from vedette.inventory.rulesets import Ruleset
from vedette.inventory.verdicts import Fate, fate
from vedette.inventory.yaml import parse_policy
from vedette.model.clock import Clock
from vedette.model.ports import FirewallVerdict, InsideView, Listener, Protocol, UnreadWhy
from vedette.sources.ports.inside import Inside, Space
from vedette.system.namespaces import NetworkNamespace
from vedette.testing.clock import FakeClock

POLICY = parse_policy(
    b"""
version: 1
own_networks: [192.0.2.0/24, 127.0.0.0/8]
hosts:
  here: {addresses: [127.0.0.1]}
  web: {addresses: [192.0.2.1, 192.0.2.2]}
  db: {addresses: [192.0.2.3]}
  shop: {names: [shop.example.org]}
""",
    "p.yml",
)


@pytest.mark.parametrize(
    ("own", "name", "wanted"),
    [
        ({"127.0.0.1", "192.0.2.2"}, "db", "web"),
        ({"127.0.0.1", "192.0.2.3"}, "", "db"),
        ({"127.0.0.1", "10.0.0.1"}, "", "here"),
        ({"127.0.0.1", "10.0.0.1"}, "db", "db"),
        ({"127.0.0.1", "10.0.0.1"}, "shop.example.org", "shop"),
        ({"127.0.0.1", "10.0.0.1"}, "shop", "shop"),
        ({"192.0.2.9"}, "sho", None),
        (set(), "", None),
    ],
)
def test_which_host_of_a_policy_this_machine_is(own: set[str], name: str, wanted: str | None):
    found = own_host(POLICY, frozenset(own), name)
    assert (found.name if found else None) == wanted


def a_space(inode: int, *ports: int) -> Space:
    name = "" if inode == 1 else f"net:[{inode}]"
    found = tuple(Listener("h", "0.0.0.0", port, Protocol.TCP, namespace=name) for port in ports)
    return Space(NetworkNamespace(inode, name), found, frozenset(("192.0.2.1",)), ())


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> list[Space]:
    made: list[Space] = []
    monkeypatch.setattr("vedette.app.port_inside.look_inside", lambda host, clock, root: Inside(host, 0, made))
    monkeypatch.setattr("vedette.app.port_inside.live_ruleset", lambda place, run: Ruleset(place=place))
    monkeypatch.setattr(Space, "within", lambda self, call: call())
    return made


def test_namespaces_that_anybody_makes_do_not_hold_a_look_up(spaces: list[Space], monkeypatch: pytest.MonkeyPatch):
    spaces += [a_space(1, 22), *(a_space(inode, 80) for inode in range(2, 50))]
    view = inside_view("h", FakeClock())
    assert [one.firewall for one in view.listeners] == [FirewallVerdict.ACCEPTED] * 49
    monkeypatch.setattr("vedette.app.port_inside.ALL_SECONDS", 0.0)
    view = inside_view("h", FakeClock())
    assert [one.firewall for one in view.listeners] == [FirewallVerdict.ACCEPTED] + [FirewallVerdict.UNKNOWN] * 48
    assert "too much inside" in view.listeners[1].firewall_rule
    assert view.unread == {UnreadWhy.FIREWALL: 48}


def test_listeners_that_anybody_makes_cost_no_walk_each(spaces: list[Space], monkeypatch: pytest.MonkeyPatch):
    spaces += [a_space(1, *range(1024, 4096)), a_space(2, *range(1024, 4096))]
    walks = []

    def counted(*asked: object) -> Fate:
        walks.append(asked)
        return fate(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr("vedette.inventory.verdicts.fate", counted)
    assert len(inside_view("h", FakeClock()).listeners) == 2 * 3072
    assert 0 < len(walks) < 10


def test_a_look_that_fails_does_not_end_the_helper(monkeypatch: pytest.MonkeyPatch):
    views = iter([UnicodeEncodeError("utf-8", "d\udcff", 1, 2, "surrogates"), InsideView("web", 7)])

    def look(host: str, clock: Clock) -> InsideView:
        found = next(views)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("vedette.app.inside_helper.inside_view", look)
    answers = BytesIO()
    serve(BytesIO(b'"web"\n"web"\n'), answers)
    failed, told = answers.getvalue().splitlines()
    assert "UnicodeEncodeError" in msgspec.json.decode(failed, type=str)
    assert msgspec.json.decode(told, type=InsideView | str) == InsideView("web", 7)


def test_of_listeners_without_end_those_are_told_that_can_be_reached(
    spaces: list[Space], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("vedette.app.port_inside.MOST_LISTENERS", 3)
    own, other = a_space(1, 22, 80), a_space(2, *range(1024, 1100))
    inner = tuple(replace(one, address="127.0.0.1") for one in a_space(1, *range(1, 9)).listeners)
    spaces += [replace(own, listeners=(*inner, *own.listeners)), other]
    view = inside_view("h", FakeClock())
    assert [(one.address, one.port) for one in view.listeners] == [("0.0.0.0", 22), ("0.0.0.0", 80), ("127.0.0.1", 1)]
    assert (view.unread, view.knows_own_ports) == ({UnreadWhy.SOCKETS: 83}, False)
