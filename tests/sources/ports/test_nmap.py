from __future__ import annotations

import threading
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.model.clock import SystemClock
from vedette.model.ports import Observation, PortRange, PortState, Protocol, SeenWhy, Survey, TargetCondition
from vedette.sources.ports import nmap as module
from vedette.sources.ports.nmap import Nmap, NmapLimits, Technique, read_report
from vedette.sources.ports.targets import Target
from vedette.system.exec import Finished

OWN = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")]
PORTS = (PortRange(1, 9), PortRange(53, 53))

HEAD = '<?xml version="1.0"?>\n<!DOCTYPE nmaprun>\n<nmaprun scanner="nmap" version="7.93">\n'


def host(body: str, address: str = "192.0.2.1", timedout: str = "") -> str:
    kind = "ipv6" if ":" in address else "ipv4"
    return (
        f'<host{timedout}><status state="up" reason="user-set"/><address addr="{address}" addrtype="{kind}"/>'
        f'<address addr="02:00:00:00:00:01" addrtype="mac"/><ports>{body}</ports></host>\n'
    )


def port(number: int, state: str, reason: str, protocol: str = "udp", more: str = "") -> str:
    told = f'<state state="{state}" reason="{reason}" reason_ttl="64"/>'
    return f'<port protocol="{protocol}" portid="{number}">{told}{more}</port>'


def extra(state: str, *reasons: tuple[str, str], protocol: str = "udp") -> str:
    inner = "".join(f'<extrareasons reason="{one}" proto="{protocol}" ports="{ports}"/>' for one, ports in reasons)
    return f'<extraports state="{state}" count="9">{inner}</extraports>'


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """`asked(xml, returncode, euid)`: nmap says that; the argument vectors it got, the addresses at their end."""

    def answer(xml: str | OSError, returncode: int = 0, euid: int = 0) -> list[list[str]]:
        calls: list[list[str]] = []

        def run(argv: list[str], *, stdin: bytes, timeout: float, stop: threading.Event) -> Finished:
            assert timeout > 0
            assert not stop.is_set()
            calls.append([*argv, *stdin.decode().split()])
            if isinstance(xml, OSError):
                raise xml
            return Finished(returncode, xml.encode(), b"")

        monkeypatch.setattr(module, "run", run)
        monkeypatch.setattr(module.os, "geteuid", lambda: euid)
        return calls

    return answer


def look(*targets: Target, technique: Technique = Technique.UDP, limits: NmapLimits | None = None) -> list[Survey]:
    return Nmap(SystemClock(), OWN, limits=limits).look(targets, "here", technique)


def states(survey: Survey) -> dict[int, tuple[PortState, SeenWhy]]:
    return {one: (seen.state, seen.why) for one in (*range(1, 10), 53) if (seen := survey.observed(one)) is not None}


def test_udp_that_answers_refuses_or_says_nothing_is_told_apart(asked):
    body = (
        extra("closed", ("port-unreach", "3-9"))
        + port(1, "open|filtered", "no-response")
        + port(2, "filtered", "admin-prohibited")
        + port(53, "open", "udp-response")
    )
    calls = asked(HEAD + host(body) + "</nmaprun>")
    (survey,) = look(Target("ns1", "192.0.2.1", PORTS), limits=NmapLimits(rate=100))
    assert survey.protocol is Protocol.UDP
    assert states(survey) == {
        1: (PortState.UNKNOWN, SeenWhy.NO_RESPONSE),
        2: (PortState.FILTERED, SeenWhy.PROHIBITED),
        **dict.fromkeys(range(3, 10), (PortState.CLOSED, SeenWhy.REFUSED)),
        53: (PortState.OPEN, SeenWhy.ACCEPTED),
    }
    (argv,) = calls
    assert argv[0] == "nmap"
    assert {"-sU", "-n", "-Pn"} <= set(argv)
    assert argv[argv.index("-p") + 1] == "1-9,53"
    assert argv[argv.index("--max-rate") + 1] == "100.000"
    assert argv[-1] == "192.0.2.1"


def test_states_that_nmap_sums_up_are_taken_apart_by_its_reasons(asked):
    body = extra("closed", ("port-unreach", "1-4")) + extra("filtered", ("net-unreach", "5,7-8"), ("host-unreach", "6"))
    asked(HEAD + host(body) + "</nmaprun>")
    (survey,) = look(Target("ns1", "192.0.2.1", PORTS))
    seen = states(survey)
    assert [seen[one][0] for one in (1, 4, 5, 6, 8)] == [PortState.CLOSED] * 2 + [PortState.FILTERED] * 3
    assert (seen[5][1], seen[6][1]) == (SeenWhy.NETWORK_UNREACHABLE, SeenWhy.HOST_UNREACHABLE)
    # Of what it says nothing, nothing is known.
    assert seen[9] == seen[53] == (PortState.UNKNOWN, SeenWhy.NOT_PROBED)


@pytest.mark.parametrize(
    ("answer", "why", "condition"),
    [
        (("", 1), SeenWhy.NO_TOOL, TargetCondition.ANSWERS),
        (("", -9), SeenWhy.NOT_PROBED, TargetCondition.ANSWERS),
        ((HEAD + host("", "192.0.2.1", ' timedout="true"') + "</nmaprun>",), SeenWhy.NOT_PROBED, None),
        ((HEAD + "</nmaprun>",), SeenWhy.NO_ANSWER_AT_ALL, TargetCondition.DOWN),
        ((FileNotFoundError("nmap"),), SeenWhy.NO_TOOL, TargetCondition.ANSWERS),
        (("", 1, 1_000), SeenWhy.NOT_PERMITTED, TargetCondition.ANSWERS),
    ],
)
def test_what_nmap_cannot_say_is_unknown_and_why(asked, answer, why: SeenWhy, condition: TargetCondition | None):
    calls = asked(*answer)
    (survey,) = look(Target("ns1", "192.0.2.1", PORTS))
    assert set(states(survey).values()) == {(PortState.UNKNOWN, why)}
    assert survey.condition is (condition or TargetCondition.ANSWERS)
    assert len(calls) == 1


def test_what_was_whole_before_it_was_killed_counts(asked):
    whole = host(port(53, "open", "udp-response"))
    asked(HEAD + whole + host(port(53, "open", "udp-response"), "192.0.2.2")[:120], returncode=-9)
    first, second = look(Target("a", "192.0.2.1", PORTS), Target("b", "192.0.2.2", PORTS))
    assert states(first)[53] == (PortState.OPEN, SeenWhy.ACCEPTED)
    assert states(second)[53] == (PortState.UNKNOWN, SeenWhy.NOT_PROBED)


@pytest.mark.parametrize("address", ["203.0.113.9", "-iR", "--script=x", "192.0.2.1 203.0.113.9", "192.0.2.1-9", ""])
def test_only_addresses_of_ones_own_reach_the_program(asked, address: str):
    calls = asked(HEAD + "</nmaprun>")
    (survey,) = look(Target("x", address, PORTS))
    assert (survey.condition, survey.rest_why) == (TargetCondition.REFUSED, SeenWhy.OUTSIDE_OWN_NETWORKS)
    assert calls == []


def test_families_and_port_lists_are_asked_apart_and_answers_keep_their_order(asked):
    calls = asked(HEAD + host(port(53, "open", "udp-response"), "2001:db8::1") + "</nmaprun>")
    places = ["2001:db8::1", "192.0.2.1", "192.0.2.2"]
    other = Target("d", "192.0.2.3", (PortRange(7, 7),))
    surveys = look(*(Target(one, one, PORTS) for one in places), other)
    assert [one.address for one in surveys] == [*places, "192.0.2.3"]
    assert surveys[0].ports_in(PortState.OPEN) == {53}
    assert [("-6" in one, one[-1]) for one in calls] == [
        (True, "2001:db8::1"),
        (False, "192.0.2.2"),
        (False, "192.0.2.3"),
    ]


def test_half_open_looks_know_a_tarpit_and_a_host_that_is_down(asked):
    everything = extra("open", ("syn-ack", "1-60000"), protocol="tcp")
    asked(HEAD + host(everything) + "</nmaprun>")
    (survey,) = look(Target("t", "192.0.2.1", PORTS), technique=Technique.SYN)
    assert (survey.condition, survey.rest) == (TargetCondition.ANSWERS_EVERYTHING, PortState.UNKNOWN)
    silent = extra("filtered", ("no-response", "1-9,53"), protocol="tcp")
    asked(HEAD + host(silent) + "</nmaprun>")
    (survey,) = look(Target("t", "192.0.2.1", PORTS), technique=Technique.SYN)
    assert (survey.condition, survey.rest_why) == (TargetCondition.DOWN, SeenWhy.NO_ANSWER_AT_ALL)


def test_what_a_service_says_of_itself_is_harmless_text_and_a_guess_from_the_number_is_not_said(asked):
    banner = "Open\x7fSSH&#x1b;[31m\u202e " + "x" * 4_000
    body = port(22, "open", "syn-ack", "tcp", f'<service name="ssh" product="{banner}" method="probed" conf="10"/>')
    body += port(80, "open", "syn-ack", "tcp", '<service name="http" method="table" conf="3"/>')
    good = body.replace("&#x1b;", "")
    asked(HEAD + host(good) + "</nmaprun>")
    seen = tuple(
        Observation("w", "192.0.2.1", one, Protocol.TCP, PortState.OPEN, "here", 1, why=SeenWhy.ACCEPTED)
        for one in (22, 80)
    )
    asked_for = (PortRange(1, 100),)
    survey = Survey("w", "192.0.2.1", Protocol.TCP, "here", 1, 2, asked_for, PortState.CLOSED, SeenWhy.REFUSED, seen)
    (told,) = Nmap(SystemClock(), OWN).name_services([survey], "here")
    ssh, http = told.observations
    assert ssh.service.startswith(r"ssh Open\x7fSSH[31m\u{202e} xxx")
    assert len(ssh.service) <= 200
    assert (http.service, http.state) == ("", PortState.OPEN)
    # A control character that no XML may hold ends the report there, and nothing is concluded.
    assert read_report((HEAD + host(body) + "</nmaprun>").encode()) == {}


def test_a_report_that_declares_entities_is_given_up():
    bomb = '<!DOCTYPE nmaprun [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><nmaprun>'
    assert read_report((bomb + host(port(1, "open", "udp-response")) + "</nmaprun>").encode()) == {}


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=60)
def test_no_report_breaks_the_reader(noise: bytes, at: int):
    good = (HEAD + host(port(53, "open", "udp-response") + extra("closed", ("reset", "1-9")))).encode()
    for report in read_report(good[:at] + noise + good[at:]).values():
        assert all(0 < one < 65_536 for one in report.ports)
