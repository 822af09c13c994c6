"""The hosts a command names, and commands that are not run because one is somebody else's.
Counterpart: vedette.sources.attacks.targets."""

from __future__ import annotations

import shlex

import pytest

from vedette.sources.attacks.outcomes import Reason
from vedette.sources.attacks.targets import named_hosts, refused
from vedette.text.addresses import parse_network

OWN = [parse_network(one) for one in ("192.0.2.0/24", "2001:db8::/32", "127.0.0.0/8")]
NAMES = {
    "shop.example.org": ["192.0.2.7"],
    "both.example.org": ["192.0.2.7", "2001:db8::7"],
    "half.example.org": ["192.0.2.7", "203.0.113.9"],
    "away.example.org": ["203.0.113.9"],
    "localhost": ["127.0.0.1"],
    "web1": ["192.0.2.8"],
    "away": ["203.0.113.8"],
    "away.sh": ["203.0.113.7"],
    "2130706433": ["127.0.0.1"],
    "127.1": ["127.0.0.1"],
    "3405803785": ["203.0.113.9"],
}


def resolve(name: str) -> list[str]:
    return NAMES.get(name, [])


@pytest.mark.parametrize(
    "command",
    [
        "nmap -F 192.0.2.1",
        "nmap -p 80,443 -oX foo.xml shop.example.org",
        "nmap --script http-title.nse 192.0.2.0/25 192.0.2.1-9 192.0.2.*",
        "nmap -6 2001:db8::1 both.example.org/64",
        "nmap web1",
        'curl -s -o /dev/null -w "%{http_code}" http://shop.example.org:8080/x?y=away.example.org',
        "curl --silent https://[2001:db8::1]:443/ localhost/x user@192.0.2.9 192.0.2.9:80",
        "curl -X delete localhost",
        "dirb http://localhost:8008 vulns/tests.txt -wf",
        "python3 /opt/sslyze.py shop.example.org:443",
        "garmr -u http://shop.example.org -o my_output.xml",
        "ls -a",
        # what curl sends is no host, and -iL of it is no list
        "curl -iL -H 'Origin: http://evil.example.com' -e http://evil.example.com -b a=b.example.com localhost",
        "curl -sXGET -d @away.example.org --user-agent away.example.org http://localhost",
        "curl --resolve shop.example.org:443:192.0.2.7 https://shop.example.org --connect-to ::[2001:db8::1]:",
        "curl http:/localhost 2130706433:8931 127.1 -o out.py -- user@localhost",
        "nmap -T4 -oN out.py -p 80 web1",
        "sudo -u nobody curl -o x.sh http://localhost",
        'sh -c "nmap -p 80 web1 | grep open"',
        "arachni --checks=xss --url=http://192.0.2.3/",
    ],
)
def test_one_s_own_may_be_looked_at(command: str):
    assert refused(shlex.split(command), OWN, resolve) is None


@pytest.mark.parametrize(
    ("command", "reason", "said"),
    [
        ("nmap -F 198.51.100.1", Reason.OUTSIDE_OWN_NETWORKS, "198.51.100.1"),
        ("nmap 192.0.2.1 198.51.100.1", Reason.OUTSIDE_OWN_NETWORKS, "198.51.100.1"),
        ("nmap 192.0.0.0/16", Reason.OUTSIDE_OWN_NETWORKS, "192.0.0.0"),
        ("nmap 192.0.1-2.1", Reason.OUTSIDE_OWN_NETWORKS, "192.0.1-2.1"),
        ("nmap shop.example.org/8", Reason.OUTSIDE_OWN_NETWORKS, "192.0.0.0/8"),
        ("nmap half.example.org", Reason.OUTSIDE_OWN_NETWORKS, "203.0.113.9"),
        ("nmap away", Reason.OUTSIDE_OWN_NETWORKS, "203.0.113.8"),
        ("nmap ::1", Reason.OUTSIDE_OWN_NETWORKS, "::1"),
        ("nmap -iL list.txt", Reason.OUTSIDE_OWN_NETWORKS, "-iL takes targets"),
        ("nmap -iR 5", Reason.OUTSIDE_OWN_NETWORKS, "-iR takes targets"),
        ("curl http://away.example.org/", Reason.OUTSIDE_OWN_NETWORKS, "away.example.org"),
        ("curl -x http://away.example.org localhost", Reason.OUTSIDE_OWN_NETWORKS, "away.example.org"),
        ("curl http://a@[::ffff:203.0.113.9]/", Reason.OUTSIDE_OWN_NETWORKS, "203.0.113.9"),
        ("arachni --url=http://away.example.org", Reason.OUTSIDE_OWN_NETWORKS, "away.example.org"),
        ("dirb away.example.org:80/x", Reason.OUTSIDE_OWN_NETWORKS, "away.example.org"),
        *[
            (command, Reason.OUTSIDE_OWN_NETWORKS, "takes targets")
            for command in (
                "nmap --iL list.txt",
                "nmap -iL=list.txt",
                "nmap --iR=2",
                "nmap -i L list.txt",
                "nmap --resume x.log",
                "nmap --script targets-asn --script-args newtargets,targets-asn.asn=1 192.0.2.1",
                "curl -K x localhost",
                "curl -sKx localhost",
                "curl --config x",
                "sudo curl --conf x",
                "sqlmap -m list.txt",
                "sqlmap -r request.txt",
                "sslyze --targets_in=x",
            )
        ],
        *[
            (command, Reason.OUTSIDE_OWN_NETWORKS, said)
            for command, said in (
                ("nmap -n away", "203.0.113.8"),
                ("nmap -sT -- away.example.org", "203.0.113.9"),
                ("nmap -n away.sh", "203.0.113.7"),
                ("curl -s away", "203.0.113.8"),
                ("curl -s away.sh", "203.0.113.7"),
                ("curl -sLxaway:3128 http://localhost/", "203.0.113.8"),
                ("curl --socks5 away http://localhost/", "203.0.113.8"),
                ("curl --resolve localhost:80:192.0.2.7,203.0.113.9 http://localhost/", "203.0.113.9"),
                ("curl --connect-to ::[::ffff:203.0.113.9]:80 http://localhost/", "203.0.113.9"),
                ("curl http:/203.0.113.9/ http:///203.0.113.9", "203.0.113.9"),
                ("curl 3405803785", "203.0.113.9"),
                ("curl localhost:x@203.0.113.9", "203.0.113.9"),
                ("curl --next -- 203.0.113.9", "203.0.113.9"),
                ("curl --interface away.example.org localhost", "203.0.113.9"),
                ('bash -ec "curl -s away.example.org|cat"', "203.0.113.9"),
                ("sslyze shop.example.org:443{203.0.113.9}", "203.0.113.9"),
            )
        ],
        ("curl {127.0.0.1,203.0.113.9}", Reason.NAME_UNRESOLVED, "does not resolve"),
        ("curl --url @list.txt", Reason.NAME_UNRESOLVED, "does not resolve"),
        ("curl --connect-to nonsense localhost", Reason.NAME_UNRESOLVED, "nonsense"),
        ("nmap fe80::1%lo", Reason.OUTSIDE_OWN_NETWORKS, "fe80::1"),
        ("nmap a_b:c", Reason.NAME_UNRESOLVED, "a_b:c"),
        ("nmap no.such.example.org", Reason.NAME_UNRESOLVED, "no.such.example.org"),
        ("curl http://[x/", Reason.NAME_UNRESOLVED, "does not resolve"),
        ("nmap 300.1.1.1", Reason.NAME_UNRESOLVED, "300.1.1.1"),
        ("nmap 192.0.2.1/99", Reason.NAME_UNRESOLVED, "192.0.2.1"),
        ("nmap weather.py", Reason.NAME_UNRESOLVED, "weather.py"),
    ],
)
def test_somebody_else_s_may_not(command: str, reason: Reason, said: str):
    found = refused(shlex.split(command), OWN, resolve)
    assert found is not None
    assert found[0] is reason
    assert said in " ".join(found[1:])


def test_names_are_taken_once_and_in_order():
    assert [one.host for one in named_hosts(["nmap", "a.b", "c.d", "a.b/24", "a.b"])] == ["a.b", "c.d", "a.b"]
