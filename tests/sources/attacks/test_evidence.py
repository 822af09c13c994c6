"""What proves that a program reached its target: nmap's XML, curl's exit status, the words of the others.
Counterpart: vedette.sources.attacks.evidence; the outputs are shaped like those of the programs' current versions."""

from __future__ import annotations

import pytest

from vedette.sources.attacks.evidence import EVIDENCE, Proof, Ran, known_as, proof, with_evidence
from vedette.sources.attacks.outcomes import Reason


def ran(name: str, output: str = "", status: int = 0, evidence: str = "", argv: str = "", stderr: str = "") -> Ran:
    words = tuple(argv.split() or [name])
    return Ran(name, argv, argv, words, status, output, stderr, False, evidence.encode())


def host(reason: str = "echo-reply", state: str = "up", inner: str = "", more: str = "") -> str:
    return f'<host {more}><status state="{state}" reason="{reason}"/><hostnames></hostnames>{inner}</host>'


def port(number: int, state: str, reason: str) -> str:
    return f'<ports><port protocol="tcp" portid="{number}"><state state="{state}" reason="{reason}"/></port></ports>'


def extra(state: str, reason: str) -> str:
    return (
        f'<ports><extraports state="{state}" count="9"><extrareasons reason="{reason}" count="9"/></extraports></ports>'
    )


def nmap_xml(*hosts: str, total: int | None = None, exit_: str = "success") -> str:
    return (
        '<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun>'
        '<scaninfo type="connect" protocol="tcp" services="80,443-445"/>'
        '<scaninfo type="udp" protocol="udp" services="53"/>'
        f'{"".join(hosts)}<runstats><finished exit="{exit_}"/>'
        f'<hosts up="1" down="0" total="{len(hosts) if total is None else total}"/></runstats></nmaprun>'
    )


@pytest.mark.parametrize(
    ("xml", "argv", "reason"),
    [
        (nmap_xml(host()), "nmap h", None),
        (nmap_xml(host("conn-refused")), "nmap h", None),
        (nmap_xml(host("arp-response"), total=256), "nmap 192.0.2.0/24", None),
        (nmap_xml(host(), total=20), "nmap 192.0.2.1-20", None),
        (nmap_xml(host(), total=256), "nmap -T4 192.0.2.0/24", None),
        (nmap_xml(host(), total=256), "nmap -p22,80 192.0.2.0/24", None),
        (nmap_xml(host(), total=256), "nmap -p 22 --open 192.0.2.0/24", None),
        (nmap_xml(host(), total=256), "nmap --top-ports 10 192.0.2.0/24", None),
        (nmap_xml(host(), total=2), "nmap --exclude-ports 1-9 h1 h2", Reason.TARGET_DOWN),
        (nmap_xml(host("user-set", inner=port(80, "open", "syn-ack"))), "nmap -Pn h", None),
        (nmap_xml(host("user-set", inner=port(80, "closed", "reset"))), "nmap -Pn h", None),
        (nmap_xml(host("user-set", inner=extra("closed", "resets"))), "nmap -Pn h", None),
        (nmap_xml(host("user-set", inner=extra("closed", "conn-refused"))), "nmap -Pn h", None),
        # -Pn says `up` of a host from which nothing came
        (nmap_xml(host("user-set", inner=extra("filtered", "no-responses"))), "nmap -Pn h", Reason.TARGET_DOWN),
        (nmap_xml(host("user-set", inner=port(80, "filtered", "no-response"))), "nmap -Pn h", Reason.TARGET_DOWN),
        (nmap_xml(host("user-set", inner=port(80, "filtered", "host-unreach"))), "nmap -Pn h", Reason.TARGET_DOWN),
        (nmap_xml(host("user-set", inner=port(53, "open|filtered", "no-response"))), "nmap -Pn h", Reason.TARGET_DOWN),
        (nmap_xml(total=1), "nmap h", Reason.TARGET_DOWN),
        (nmap_xml(total=0), "nmap no.such", Reason.TARGET_DOWN),
        (nmap_xml(host("no-response", "down")), "nmap -v h", Reason.TARGET_DOWN),
        (nmap_xml(host(more='timedout="true"')), "nmap h", Reason.TARGET_DOWN),
        (nmap_xml(host(), total=2), "nmap -p 80-90 h1 h2", Reason.TARGET_DOWN),
        (nmap_xml(host(), exit_="error"), "nmap h", Reason.PROGRAM_FAILED),
        ("<nmaprun><host>", "nmap h", Reason.PROGRAM_FAILED),
        ("", "nmap --nosuch", Reason.PROGRAM_FAILED),
        (nmap_xml(host("user-set", "unknown")), "nmap -sL h", Reason.NOTHING_TESTED),
        (
            nmap_xml(host("user-set", "unknown").replace("<hostnames>", '<hostnames><hostname name="x"/>')),
            "nmap -sL h",
            None,
        ),
    ],
)
def test_nmap(xml: str, argv: str, reason: Reason | None):
    found = proof(ran("nmap", evidence=xml, argv=f"{argv} -oX {EVIDENCE}"))
    assert found.reason is reason
    assert bool(found.words) == (reason is not None)
    assert not found.liftable
    if reason is None and "-sL" not in argv:
        assert found.looked_at == {"tcp": {80, 443, 444, 445}, "udp": {53}}


@pytest.mark.parametrize("argv", ["nmap -sn h", "nmap -sL h"])
def test_nmap_that_asks_no_port_looked_at_none(argv: str):
    named = host().replace("<hostnames>", '<hostnames><hostname name="x"/>')
    without = nmap_xml(named).replace("<scaninfo", "<other")
    assert proof(ran("nmap", evidence=without, argv=f"{argv} -oX {EVIDENCE}")) == Proof(looked_at={})


def test_nmap_that_writes_xml_to_its_output():
    assert proof(ran("nmap", nmap_xml(host()), argv="nmap -oX - h")).reason is None
    assert proof(ran("nmap", nmap_xml(total=1), argv="nmap -oX - h")).reason is Reason.TARGET_DOWN


@pytest.mark.parametrize(
    ("status", "headers", "reason", "liftable"),
    [
        (0, "HTTP/1.1 200 OK\r\n", None, False),
        (0, "", None, False),
        (0, "HTTP/1.1 500 no\r\n", None, False),
        (0, "HTTP/1.1 503 x\r\n\r\nHTTP/2 200\r\n", None, False),
        (0, "HTTP/1.1 200 x\r\n\r\nHTTP/2 503 \r\n", Reason.TARGET_DOWN, True),
        (0, "HTTP/1.1 502 Bad Gateway\r\n", Reason.TARGET_DOWN, True),
        *[(status, "", Reason.TARGET_DOWN, False) for status in (5, 6, 7, 28, 97)],
        *[(status, "", Reason.PROGRAM_FAILED, True) for status in (22, 35, 52, 56, 60)],
        *[(status, "", Reason.PROGRAM_FAILED, False) for status in (2, 3, 4, 59)],
        (3, "HTTP/1.1 302 x\r\n", Reason.PROGRAM_FAILED, True),
        (-9, "", Reason.PROGRAM_FAILED, False),
    ],
)
def test_curl(status: int, headers: str, reason: Reason | None, liftable: bool):
    found = proof(ran("curl", "000", status, headers))
    assert (found.reason, found.liftable) == (reason, liftable)


def test_curl_that_has_no_protocol_to_offer_asked_nothing():
    said = "curl: (35) error:0A0000BF:SSL routines::no protocols available\n"
    assert proof(ran("curl", "", 35, stderr=said)).liftable is False
    assert proof(ran("curl", "", 35, stderr="curl: (35) alert protocol version\n")).liftable is True


def test_curl_that_writes_headers_to_its_output_or_tells_of_itself():
    busy = "HTTP/1.1 503 x\r\n\r\n"
    assert proof(ran("curl", busy, argv="curl -sD - h")).reason is Reason.TARGET_DOWN
    assert proof(ran("curl", busy, evidence="HTTP/1.1 200 x", argv=f"curl h --dump-header {EVIDENCE}")).reason is None
    assert proof(ran("curl", "curl 8.14", argv="curl --version")).reason is Reason.UNPROVEN


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("curl: (7) Failed to connect to h port 9\n", Reason.TARGET_DOWN),
        ("+ No web server found on h:80\n+ 0 host(s) tested\n", Reason.TARGET_DOWN),
        ("ERROR: Could not open a connection to host h (192.0.2.1) on port 443.\n", Reason.TARGET_DOWN),
        ("curl: (22) The requested URL returned error: 404\n", None),
        ("Nmap done: 1 IP address (0 hosts up) scanned in 1 seconds\n", Reason.TARGET_DOWN),
        ("Nmap done: 1 IP address (1 host up) scanned in 1 seconds\n", None),
    ],
)
def test_a_program_we_do_not_know_may_have_run_one_that_we_do(output: str, reason: Reason | None):
    assert proof(ran("", output)).reason is reason


@pytest.mark.parametrize(
    ("name", "output", "reason"),
    [
        ("dirb", "GENERATED WORDS: 3\n...\nDOWNLOADED: 3 - FOUND: 0\n", None),
        ("dirb", "GENERATED WORDS: 3\n...\nDOWNLOADED: 9 - FOUND: 2\n", None),
        (
            "dirb",
            "GENERATED WORDS: 3\n(!) FATAL: Too many errors connecting to host\n    (Possible cause: COULDNT CONNECT)\n"
            "DOWNLOADED: 0 - FOUND: 0\n",
            Reason.TARGET_DOWN,
        ),
        (
            "sqlmap",
            "all tested parameters do not appear to be injectable.\n[WARNING] HTTP error codes detected during run:\n"
            "404 (Not Found) - 2 times, 503 (Service Unavailable) - 12 times\n",
            Reason.TARGET_DOWN,
        ),
        (
            "sqlmap",
            "all tested parameters do not appear to be injectable.\n[WARNING] HTTP error codes detected during run:\n"
            "404 (Not Found) - 2 times, 500 (Internal Server Error) - 503 times\n",
            None,
        ),
        (
            "sslyze",
            "h:443  => WARNING: Server REQUESTED optional client authentication\nSCAN RESULTS FOR h:443\n",
            None,
        ),
        ("dirb", "(!) FATAL: Error opening wordlist file: w.txt\n", Reason.NOTHING_TESTED),
        ("dirb", "GENERATED WORDS: 30\n(!) WARNING: x\nDOWNLOADED: 7 - FOUND: 0\n", Reason.NOTHING_TESTED),
        ("dirb", "GENERATED WORDS: 0\nDOWNLOADED: 0 - FOUND: 0\n", Reason.NOTHING_TESTED),
        ("dirb", "DOWNLOADED: 0 - FOUND: 0\n", Reason.UNPROVEN),
        ("sslyze", " SCAN RESULTS FOR LOCALHOST:443 - 127.0.0.1\n", None),
        ("sslyze", "  h:443 => ERROR: Could not connect to server\n", Reason.TARGET_DOWN),
        (
            "sslyze",
            "  h:443 => WARNING: Could not connect (timeout); discarding corresponding tasks.\n",
            Reason.TARGET_DOWN,
        ),
        ("sslyze", "  h:443 => ERROR: Could not resolve hostname\n", Reason.TARGET_DOWN),
        ("sslyze", "  h:443  => ERROR: Server rejected the connection; discarding scan.\n", Reason.TARGET_DOWN),
        ("sslyze", "  h:443  => ERROR: TLS probing failed: no version; discarding scan.\n", Reason.TARGET_DOWN),
        ("sslyze", "SCAN RESULTS FOR H:443 - 1\n  Verified Chain:  ERROR - Could not build verified chain\n", None),
        ("sslyze", "CHECKING CONNECTIVITY\n", Reason.UNPROVEN),
        ("sqlmap", "[ERROR] all tested parameters do not appear to be injectable\n", None),
        ("sqlmap", "sqlmap identified the following injection point(s) with a total of 47\n", None),
        ("sqlmap", "[CRITICAL] unable to connect to the target URL ('Connection refused')\n", Reason.TARGET_DOWN),
        ("sqlmap", "[CRITICAL] host 'x' does not exist\n", Reason.TARGET_DOWN),
        ("sqlmap", "[CRITICAL] no parameter(s) found for testing\n", Reason.NOTHING_TESTED),
        ("garmr", "[Garmr.corechecks.Http200Check] Fail The response code was 302\n", None),
        ("garmr", "[Garmr.corechecks.Http200Check] Error <requests.ConnectionError>\n", Reason.TARGET_DOWN),
        ("garmr", "", Reason.UNPROVEN),
        ("arachni", " [*] [HTTP: 200] http://shop/\n [~] 0 issues were detected.\n", None),
        ("arachni", " [-] Giving up trying to audit: http://shop/\n 0 issues were detected.\n", Reason.TARGET_DOWN),
        ("arachni", " [*] [HTTP: 0] http://shop/\n 0 issues were detected.\n", Reason.UNPROVEN),
        ("heartbleed", "shop:443 - SAFE\n", None),
        ("heartbleed", "shop:443 - UNSAFE\n", Reason.TARGET_DOWN),
        ("heartbleed", "ERROR - dial tcp: connection refused\n", Reason.TARGET_DOWN),
        ("zap-api-scan", "Total of 12 URLs\nFAIL-NEW: 0\n", None),
        ("zap-api-scan", "Total of 0 URLs\nFAIL-NEW: 0\n", Reason.NOTHING_TESTED),
        ("zap-cli", "", Reason.UNPROVEN),
        ("", "x", None),
    ],
)
def test_programs_that_tell_in_words(name: str, output: str, reason: Reason | None):
    assert proof(ran(name, output)).reason is reason
    assert proof(ran(name, stderr=output)).reason is reason


@pytest.mark.parametrize("name", ["", "sslyze", "zap-cli"])
def test_a_failing_program_may_still_be_one_that_was_expected_to(name: str):
    assert proof(ran(name, "x", 2)) == Proof(
        Reason.PROGRAM_FAILED, f"{name or 'the program'} failed (exit status 2)", liftable=True
    )
    assert proof(ran(name, "x", -11)).liftable is False


@pytest.mark.parametrize(
    ("argv", "adapter", "name"),
    [
        ("nmap -F h", "nmap", "nmap"),
        ("/usr/bin/nmap h", "generic", "nmap"),
        ("sudo -n nmap h", "generic", "nmap"),
        ("python3 /opt/sslyze.py h", "sslyze", "sslyze"),
        ("python3 /opt/x.py h", "sslyze", "sslyze"),
        ("timeout -k 5 60 nmap h", "generic", "nmap"),
        ("env -i A=b curl h", "generic", "curl"),
        ("sudo -u nobody nmap h", "generic", "nmap"),
        ("which nmap", "generic", ""),
        ("sudo -n which nmap", "generic", ""),
        ("Heartbleed h", "Heartbleed", "heartbleed"),
        ("curl h", "nmap", "curl"),
        ("ls -a", "generic", ""),
    ],
)
def test_whose_words_they_are(argv: str, adapter: str, name: str):
    assert known_as(argv.split(), adapter) == name


@pytest.mark.parametrize(
    ("argv", "run", "file"),
    [
        ("nmap -F h", f"nmap -F h -oX {EVIDENCE}", EVIDENCE),
        ("nmap -oX foo.xml h", "nmap -oX foo.xml h", "foo.xml"),
        ("nmap -oA base h", "nmap -oA base h", "base.xml"),
        ("nmap -oX - h", "nmap -oX - h", "-"),
        ("curl -s h", f"curl -s h --fail-early --dump-header {EVIDENCE}", EVIDENCE),
        ("curl -D - h", "curl -D - h --fail-early", "-"),
        ("curl --fail-early -D x h", "curl --fail-early -D x h", "x"),
        ("curl -sSD - -o f h", "curl -sSD - -o f h --fail-early", "-"),
        ("curl -sDx h", "curl -sDx h --fail-early", "x"),
        ("curl -HD: h", f"curl -HD: h --fail-early --dump-header {EVIDENCE}", EVIDENCE),
        ("curl -s -- h", f"curl -s --fail-early --dump-header {EVIDENCE} -- h", EVIDENCE),
        ("nmap -F -- h", f"nmap -F -oX {EVIDENCE} -- h", EVIDENCE),
        ("nmap --oX=foo.xml h", "nmap --oX=foo.xml h", "foo.xml"),
        ("dirb h", "dirb h", ""),
    ],
)
def test_what_is_asked_for_beside(argv: str, run: str, file: str):
    assert with_evidence(argv.split(), argv.split()[0]) == (run.split(), file)
