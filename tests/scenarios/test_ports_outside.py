"""Looking from outside, at real hosts behind real firewalls: what is said of each port, beside Debian's nmap.
Counterpart: vedette.sources.ports.prober and .nmap; parts/listeners.py and parts/netns.py make the hosts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_network

import pytest
from tests.scenarios.parts import nft
from tests.scenarios.parts.listeners import accept_everything, far_link, filter_input, listen, lose
from tests.scenarios.parts.netns import SERVER, SERVER6, Namespace, NetLab, Wire
from tests.scenarios.parts.nft import PublishedPort

from vedette.app.ports import check_ports
from vedette.inventory.yaml import parse_policy
from vedette.model.clock import SystemClock
from vedette.model.ports import Observation, PortRange, PortState, SeenWhy, Survey, TargetCondition
from vedette.sources.ports.judge import exit_code
from vedette.sources.ports.nmap import Nmap, Technique, read_report
from vedette.sources.ports.prober import Effort, Limits, Prober, Target
from vedette.sources.ports.targets import Tuning

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

OPEN, CLOSED, FILTERED, UNKNOWN = PortState.OPEN, PortState.CLOSED, PortState.FILTERED, PortState.UNKNOWN
OWN = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"), ip_network("198.51.100.0/24")]
FEW = PortRange(1, 120)


def look(
    space: Namespace, address: str, ports: PortRange = FEW, limits: Limits | None = None, tuning: Tuning | None = None
) -> tuple[Survey, Effort]:
    """What our prober says of an address, seen from `space`."""

    def run() -> tuple[Survey, Effort]:
        prober = Prober(SystemClock(), limits=limits, tuning=tuning)
        (survey,) = prober.look([Target("host", address, (ports,))], "here")
        return survey, prober.effort

    return space.inside(run)


def states(survey: Survey) -> dict[int, PortState]:
    """Of every port that was asked."""
    seen = {one: survey.observed(one) for asked in survey.asked for one in range(asked.first, asked.last + 1)}
    return {port: one.state for port, one in seen.items() if one is not None}


def second_opinion(space: Namespace, address: str, ports: PortRange = FEW, how: str = "-sT") -> dict[int, PortState]:
    """What nmap says of the same ports."""
    family = ["-6"] if ":" in address else []
    argv = ["nmap", *family, how, "-n", "-Pn", "-p", str(ports), "-oX", "-", address]
    report = read_report(space.run(argv, timeout=50).encode())[address]
    return {port: report.verdict(port)[0] for port in range(ports.first, ports.last + 1)}


def expect(default: PortState, **apart: Iterable[int]) -> dict[int, PortState]:
    """`expect(CLOSED, open=[22])`: of the few ports."""
    said = {port: PortState(state) for state, ports in apart.items() for port in ports}
    return {port: said.get(port, default) for port in range(FEW.first, FEW.last + 1)}


@pytest.mark.parametrize("address", [SERVER, SERVER6])
def test_listeners_are_open_and_nothing_else_is(wire: Wire, address: str):
    listen(wire.server, ["22/tcp", "80/tcp"])
    survey, effort = look(wire.world, address)
    assert states(survey) == expect(CLOSED, open=[22, 80]) == second_opinion(wire.world, address)
    assert effort.connections < 150


@pytest.mark.parametrize("address", [SERVER, SERVER6])
def test_dropped_is_filtered_and_a_reset_is_closed_whoever_sends_it(wire: Wire, address: str):
    listen(wire.server, ["22/tcp", "80/tcp", "90/tcp"])
    filter_input(wire.server, "tcp dport 80-89 drop", "tcp dport 90-99 reject with tcp reset")
    survey, _ = look(wire.world, address)
    wanted = expect(CLOSED, open=[22], filtered=range(80, 90))
    assert states(survey) == wanted == second_opinion(wire.world, address)
    seen = survey.observed(85)
    assert seen is not None
    assert seen.why is SeenWhy.TIMEOUT
    assert seen.attempts >= 2


def test_administratively_prohibited_is_filtered_and_the_reason_is_kept(wire: Wire):
    # Linux sends six such errors at once and then one a second to one address.
    listen(wire.server, ["22/tcp", "80/tcp"])
    for address in (SERVER, SERVER6):
        filter_input(wire.server, "tcp dport 80-89 reject with icmpx admin-prohibited")
        survey, _ = look(wire.world, address)
        wanted = expect(CLOSED, open=[22], filtered=range(80, 90))
        assert states(survey) == wanted == second_opinion(wire.world, address)
        whys = Counter(one.why for one in survey.observations if one.state is FILTERED)
        assert whys[SeenWhy.PROHIBITED] >= 3
        assert set(whys) <= {SeenWhy.PROHIBITED, SeenWhy.TIMEOUT}


def test_a_port_unreachable_of_the_host_itself_reads_as_closed(wire: Wire):
    listen(wire.server, ["22/tcp", "80/tcp"])
    filter_input(wire.server, "tcp dport 80-83 reject with icmpx port-unreachable")
    survey, _ = look(wire.world, SERVER)
    assert states(survey) == expect(CLOSED, open=[22]) == second_opinion(wire.world, SERVER)


def test_a_limit_of_the_host_is_found_and_kept_and_no_verdict_suffers(wire: Wire):
    listen(wire.server, ["22/tcp", "80/tcp"])
    filter_input(wire.server, "tcp dport 100 drop", "tcp flags syn limit rate over 400/second burst 40 packets drop")
    survey, effort = look(wire.world, SERVER)
    assert states(survey) == expect(CLOSED, open=[22, 80], filtered=[100]) == second_opinion(wire.world, SERVER)
    assert effort.connections < 5 * len(FEW)


@pytest.mark.parametrize("address", [SERVER, SERVER6])
def test_a_container_published_by_dnat_is_open_though_nothing_listens_on_the_host(
    wire: Wire, published: PublishedPort, address: str
):
    near = PortRange(published.port - 5, published.port + 5)
    survey, _ = look(wire.world, address, near)
    assert survey.ports_in(OPEN) == {published.port}
    assert states(survey) == second_opinion(wire.world, address, near)
    published.service.close()
    survey, _ = look(wire.world, address, near)
    assert set(states(survey).values()) == {CLOSED}


def test_a_host_that_vanishes_is_unknown_from_there_on_and_never_filtered(wire: Wire):
    listen(wire.server, ["22/tcp"])
    gone = threading.Timer(0.7, wire.server.ip, ("link", "set", wire.server_device, "down"))
    gone.start()
    survey, _ = look(wire.world, SERVER, PortRange(1, 4_000), Limits(rate=2_000))
    gone.join()
    counted = Counter(states(survey).values())
    assert set(counted) <= {OPEN, CLOSED, UNKNOWN}
    assert counted[CLOSED] > 300
    assert counted[UNKNOWN] > 300


def test_a_host_that_is_down_is_never_closed_whoever_speaks_for_it(wire: Wire):
    filter_input(wire.server, "drop")
    survey, _ = look(wire.world, SERVER)
    assert (survey.condition, survey.rest, survey.observations) == (TargetCondition.DOWN, UNKNOWN, ())
    assert survey.rest_why is SeenWhy.NO_ANSWER_AT_ALL


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("host-unreachable", SeenWhy.HOST_UNREACHABLE),
        ("admin-prohibited", SeenWhy.PROHIBITED),
        ("port-unreachable", SeenWhy.PROHIBITED),
        ("net-unreachable", SeenWhy.NETWORK_UNREACHABLE),
    ],
)
def test_a_router_that_rejects_everything_is_no_answer_of_the_host_and_is_not_asked_for_every_port(
    lab: NetLab, answer: str, why: SeenWhy
):
    host, router, world = lab.namespace(), lab.namespace(), lab.namespace()
    lab.link(router, host, ["198.51.100.1/24"], ["198.51.100.2/24"])
    lab.link(router, world, ["192.0.2.1/24"], ["192.0.2.2/24"])
    world.ip("route", "add", "default", "via", "192.0.2.1")
    host.ip("route", "add", "default", "via", "198.51.100.1")
    router.set_knob("net/ipv4/ip_forward", "1")
    router.set_knob("net/ipv4/icmp_ratelimit", "0")
    listen(host, ["22/tcp"])
    reachable, _ = look(world, "198.51.100.2")
    assert reachable.ports_in(OPEN) == {22}
    chain = f"chain forward {{\n  type filter hook forward priority 0;\n  reject with icmp type {answer}\n }}"
    nft.load(router, f"table ip way {{\n {chain}\n}}\n")
    survey, effort = look(world, "198.51.100.2", PortRange(1, 20_000))
    assert (survey.condition, survey.rest, survey.rest_why) == (TargetCondition.DOWN, UNKNOWN, why)
    assert effort.connections < 500


def test_a_tarpit_is_named_and_nothing_is_concluded_from_it(wire: Wire):
    accept_everything(wire.server)
    survey, effort = look(wire.world, SERVER, PortRange(1, 65_535))
    assert (survey.condition, survey.rest) == (TargetCondition.ANSWERS_EVERYTHING, UNKNOWN)
    assert effort.connections < 60
    half_open = wire.world.inside(
        lambda: Nmap(SystemClock(), OWN).look([Target("host", SERVER, (FEW,))], "here", Technique.SYN)
    )
    assert half_open[0].condition is TargetCondition.ANSWERS_EVERYTHING


@pytest.mark.parametrize("address", [SERVER, SERVER6])
def test_five_percent_of_loss_each_way_change_no_verdict(wire: Wire, address: str):
    listen(wire.server, ["22/tcp", "80/tcp"])
    lose(wire.server, 5)
    filter_input(wire.server, "tcp dport 100-109 drop")
    # nmap agrees, and may take half a minute for it: bench/ports.py asks it.
    survey, _ = look(wire.world, address)
    assert states(survey) == expect(CLOSED, open=[22, 80], filtered=range(100, 110))


def test_half_open_looks_say_the_same_and_services_their_names(wire: Wire):
    listen(wire.server, ["22/tcp", "80/tcp"])
    filter_input(wire.server, "tcp dport 90-95 drop")
    nmap = Nmap(SystemClock(), OWN)
    target = Target("host", SERVER, (FEW,))
    (half_open,) = wire.world.inside(lambda: nmap.look([target], "here", Technique.SYN))
    connected, _ = look(wire.world, SERVER)
    assert states(half_open) == states(connected) == expect(CLOSED, open=[22, 80], filtered=range(90, 96))
    short = Survey(
        "host", SERVER, connected.protocol, "here", 1, 2, (PortRange(22, 22),), CLOSED, SeenWhy.REFUSED,
        (Observation("host", SERVER, 22, connected.protocol, OPEN, "here", 2, why=SeenWhy.ACCEPTED),),
    )  # fmt: skip
    (named,) = wire.world.inside(lambda: nmap.name_services([short], "here"))
    service = named.observations[0].service
    assert service.startswith("ssh")
    assert service.isprintable()


def test_udp_open_closed_filtered_and_silent_are_told_apart(wire: Wire):
    listen(wire.server, ["53/udp", "60/udp"])
    filter_input(wire.server, "udp dport 60 drop", "udp dport 61 reject with icmpx admin-prohibited")
    nmap = Nmap(SystemClock(), OWN)
    ports = (PortRange(53, 54), PortRange(60, 61))
    targets = [Target("host", one, ports) for one in (SERVER, SERVER6)]
    for survey in wire.world.inside(lambda: nmap.look(targets, "here", Technique.UDP)):
        assert states(survey) == {53: OPEN, 54: CLOSED, 60: UNKNOWN, 61: FILTERED}
        silent = survey.observed(60)
        assert silent is not None
        assert silent.why is SeenWhy.NO_RESPONSE


POLICY = """
version: 1
own_networks: [192.0.2.0/24]
probe: {tcp: [22, 80], udp: [53, 54, 123]}
hosts:
  ns1:
    addresses: [192.0.2.1]
    ports:
      53/udp: {from: world, must_answer: true, owner: names}
      22/tcp: {from: world, owner: operations}
"""


def test_a_policy_of_udp_is_held_against_what_is_seen(wire: Wire):
    names = listen(wire.server, ["53/udp"])
    other = listen(wire.server, ["22/tcp"])
    policy = parse_policy(POLICY.encode(), "ports.yml")

    def drifts() -> dict[tuple[int, str], str]:
        checked = wire.world.inside(lambda: check_ports(policy, SystemClock()))
        kinds = {(one.port, one.protocol.value): one.kind.value for one in checked.drifts}
        return {**kinds, (0, "exit"): str(exit_code(checked.drifts))}

    assert drifts() == {(0, "exit"): "0"}
    names.close()
    listen(wire.server, ["123/udp"])
    said = drifts()
    assert said[123, "udp"] == "open-not-allowed"
    assert said[53, "udp"] == "must-answer"
    other.close()
    assert drifts()[22, "tcp"] == "allowed-but-closed"


def test_a_rate_is_kept_where_answers_are_far(lab: NetLab):
    """On loopback every answer wakes the prober at once; over a link of 25 ms each way none does."""
    host, world = lab.namespace(), lab.namespace()
    device = far_link(lab, world, host, ("192.0.2.9/24", "192.0.2.1/24"), delay=0.025)
    listen(host, ["22/tcp"])
    counter = ["cat", f"/sys/class/net/{device}/statistics/tx_packets"]
    before = int(world.run(counter))
    survey, effort = look(world, "192.0.2.1", PortRange(1, 1_000), Limits(rate=1_000))
    assert survey.ports_in(OPEN) == {22}
    assert len(survey.ports_in(CLOSED)) == 999
    # The one open port is acknowledged and reset too; nothing is sent that was not counted.
    assert int(world.run(counter)) - before <= effort.connections + 20
    assert effort.connections / effort.seconds <= 1_050


def test_a_bottleneck_on_the_way_is_found_and_no_verdict_suffers(lab: NetLab):
    host, world = lab.namespace(), lab.namespace()
    far_link(lab, world, host, ("192.0.2.9/24", "192.0.2.1/24"), delay=0.01, rate=500)
    listen(host, ["22/tcp", "80/tcp"])
    filter_input(host, "tcp dport 100 drop")
    ports = PortRange(1, 1_500)
    survey, _ = look(world, "192.0.2.1", ports)
    assert survey.ports_in(OPEN) == {22, 80}
    assert survey.ports_in(FILTERED) == {100}
    assert len(survey.ports_in(CLOSED)) == 1_497
