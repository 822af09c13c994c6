"""Whether a program did what it was started for: for each that we know, what proves that it reached its target.
Counterpart: `run` starts programs with the options added here, `judge` lets no pass rest on one that proves nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from xml.etree.ElementTree import Element

from vedette.sources.attacks.css import parse_xml
from vedette.sources.attacks.outcomes import Reason

EVIDENCE = ".vedette-evidence"
"""A file of the scenario's folder that a program is asked to write beside what it was told to."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One program that was run to its end.

    known_as: the name whose evidence is asked for. template: the command as written; command: as it was run.
    status: exit status, negative for a signal. evidence: what it wrote where it was asked to.
    """

    known_as: str
    template: str
    command: str
    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    cut: bool = False
    evidence: bytes = b""

    @property
    def output(self) -> str:
        """Both streams, as aruba puts them together."""
        return self.stdout + self.stderr


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a run proves anything. reason: why not, None = it worked. words: the same for people.

    liftable: expectations that say what must be seen, or how the program ends, may still be met by it; with others
    the scenario is vacuous whatever is expected. looked_at: the ports of each protocol that were asked, None = not
    known. idle: the host answered, and the scripts it was asked for had no port to ask.
    """

    reason: Reason | None = None
    words: str = ""
    liftable: bool = False
    looked_at: Mapping[str, frozenset[int]] | None = None
    idle: bool = False


WORKED = Proof()


def _down(words: str) -> Proof:
    return Proof(Reason.TARGET_DOWN, words)


def _untested(words: str) -> Proof:
    return Proof(Reason.NOTHING_TESTED, words)


def _failed(ran: Ran) -> Proof:
    how = f"exit status {ran.status}" if ran.status >= 0 else f"killed by signal {-ran.status}"
    return Proof(Reason.PROGRAM_FAILED, f"{ran.known_as or 'the program'} failed ({how})", liftable=ran.status >= 0)


# ------------------------------------------------------------------------------------------- nmap

_ANSWERED = frozenset({"syn-ack", "reset", "conn-refused", "udp-response", "port-unreach", "init-ack", "abort"})
_PORT_LIST = re.compile(r"(\d+)(?:-(\d+))?")
NMAP_TAKING = re.compile(
    r"-[pTSegDbm]|-i[LR]|-sI|--?o[NXGASM]"
    r"|--(?!(?:open|reason|traceroute|privileged|unprivileged|packet-trace|badsum|system-dns|unique|adler32|iflist"
    r"|append-output|no-stylesheet|webxml|osscan-\w+|version-(?:light|all|trace)|allports|defeat-\S+|resolve-all"
    r"|send-(?:eth|ip)|script-trace|script-updatedb|disable-arp-ping|discovery-ignore-rst|randomize-hosts|noninteractive"
    r"|log-errors|nsock-\S+|vv|fuzzy|release-memory|deprecated-xml-osclass)$)[^=]+"
)
"""Options of nmap whose value is the next word."""


def _before_operands(argv: Sequence[str], *options: str) -> list[str]:
    """`argv` with options at its end: before `--`, after which words are no options."""
    end = argv.index("--") if "--" in argv else len(argv)
    return [*argv[:end], *options, *argv[end:]]


def _nmap_options(argv: Sequence[str]) -> tuple[list[str], str]:
    """Ask for XML too, unless it is written already; where it will be."""
    for number, word in enumerate(argv):
        asked = re.fullmatch(r"--?o([XA])(?:=(.*))?", word)
        if asked:
            file = asked[2] if asked[2] is not None else "".join(argv[number + 1 : number + 2])
            return list(argv), file if asked[1] == "X" else f"{file}.xml"
    return _before_operands(argv, "-oX", EVIDENCE), EVIDENCE


def _nmap(ran: Ran) -> Proof:
    raw = ran.stdout.encode() if EVIDENCE not in ran.argv and not ran.evidence else ran.evidence
    try:
        root = parse_xml(raw)
    except ValueError:
        return Proof(Reason.PROGRAM_FAILED, f"nmap did not finish (exit status {ran.status})")
    finished = root.find("runstats/finished")
    counts = root.find("runstats/hosts")
    if finished is None or counts is None or finished.get("exit") != "success":
        return Proof(Reason.PROGRAM_FAILED, f"nmap did not finish (exit status {ran.status})")
    hosts = root.findall("host")
    if "-sL" in ran.argv:
        named = any(one.find("hostnames/hostname") is not None for one in hosts)
        return Proof(looked_at={}) if named else _untested("nmap -sL sends nothing to its targets, and found no name")
    total = int(counts.get("total", "0"))
    if total == 0:
        return _down("nmap had no target: the name does not resolve, or every address was left out")
    alive = sum(1 for one in hosts if _alive(one))
    if alive == 0:
        silent = " (with -Pn it says `up` of every host)" if any(_said_up(one) for one in hosts) else ""
        return _down(f"no answer of any kind came from the target{silent}")
    if alive < total and not any(re.search(r"/\d|\d-\d|\*|\d,\d|^-iR", word) for word in _nmap_words(ran.argv)):
        return _down(f"only {alive} of {total} targets answered")
    looked_at: dict[str, frozenset[int]] = {}
    for info in root.findall("scaninfo"):
        protocol = info.get("protocol", "")
        ports = frozenset(
            port
            for found in _PORT_LIST.finditer(info.get("services", ""))
            for port in range(int(found[1]), int(found[2] or found[1]) + 1)
        )
        looked_at[protocol] = looked_at.get(protocol, frozenset()) | ports
    return Proof(looked_at=looked_at, idle=_no_script_ran(ran.argv, root))


def _no_script_ran(argv: Sequence[str], root: Element) -> bool:
    """Whether scripts were asked for, and none had anything to look at."""
    if not any(re.fullmatch(r"--script(?:=.*)?", word) for word in argv) or root.find(".//script") is not None:
        return False
    return not any(one.get("state", "").startswith("open") for one in root.findall("host/ports/port/state"))


def _nmap_words(argv: Sequence[str]) -> list[str]:
    """What may name targets: no option, and not what stands behind one that takes a value."""
    before = ("", *argv)
    return [
        word for word, last in zip(argv, before, strict=False) if word[:1] != "-" and not NMAP_TAKING.fullmatch(last)
    ]


def _alive(host: Element) -> bool:
    status = host.find("status")
    if status is None or status.get("state") != "up" or host.get("timedout") == "true":
        return False
    if status.get("reason") != "user-set":
        return True
    reasons = [one.get("reason") for one in host.findall("ports/port/state")]
    reasons += [one.get("reason", "").rstrip("s") for one in host.findall("ports/extraports/extrareasons")]
    return any(one in _ANSWERED for one in reasons)


def _said_up(host: Element) -> bool:
    status = host.find("status")
    return status is not None and status.get("reason") == "user-set"


# ------------------------------------------------------------------------------------------- curl

_CURL_UNREACHED = {
    5: "the proxy's name does not resolve",
    6: "the name does not resolve",
    7: "no connection was made",
    28: "it ran into its time-out",
    97: "the proxy made no connection",
}
_CURL_NEVER_TRIED = frozenset({2, 3, 4, 26, 27, 43, 45, 48, 53, 54, 58, 59, 77, 82})
"""A wrong option, or what this curl cannot do itself: a cipher it does not have, a certificate that is not there."""
_CURL_NO_OFFER = re.compile(r"no (?:protocols|ciphers) available")
"""OpenSSL of such a curl: connected, and had nothing it may offer."""
_STATUS = re.compile(rb"(?m)^HTTP/[\d.]+ (\d{3})")
_UPSTREAM_DOWN = {b"502", b"503", b"504"}


_CURL_DUMPS = re.compile(r"-[^-AbcCdeDEFhHKmoPQrtTuUwxXyYz]*D(.*)|--dump.*")
"""curl told where headers go; flags may stand before in one word (`-sSD -`), and a second such option would win."""
_CURL_SHOWS_ITSELF = frozenset({"-V", "--version", "-h", "--help", "-M", "--manual"})


def _curl_options(argv: Sequence[str]) -> tuple[list[str], str]:
    """Ask for the headers too, and end at the first address that cannot be had, so that the status tells of it."""
    more = [] if any(word == "--fail-early" for word in argv) else ["--fail-early"]
    for number, word in enumerate(argv[1:], 1):
        dumps = _CURL_DUMPS.fullmatch(word)
        if dumps:
            return _before_operands(argv, *more), dumps[1] or "".join(argv[number + 1 : number + 2])
    return _before_operands(argv, *more, "--dump-header", EVIDENCE), EVIDENCE


def _curl(ran: Ran) -> Proof:
    if ran.status in _CURL_UNREACHED:
        return _down(f"curl did not reach the target: {_CURL_UNREACHED[ran.status]} (exit status {ran.status})")
    never = ran.status in _CURL_NEVER_TRIED and not ran.evidence
    if never or (ran.status == 35 and _CURL_NO_OFFER.search(ran.output)):
        return Proof(Reason.PROGRAM_FAILED, f"curl itself cannot do what it is told (exit status {ran.status})")
    if ran.status != 0:
        return _failed(ran)
    if not _CURL_SHOWS_ITSELF.isdisjoint(ran.argv):
        return Proof(Reason.UNPROVEN, "curl was asked about itself")
    # Told to write headers to its output it writes them there alone.
    statuses = _STATUS.findall(ran.evidence or (b"" if EVIDENCE in ran.argv else ran.stdout.encode()))
    if statuses and statuses[-1] in _UPSTREAM_DOWN:
        code = statuses[-1].decode()
        return Proof(Reason.TARGET_DOWN, f"what stands in front answered {code}: the service is down", liftable=True)
    return WORKED


# ------------------------------------------------------------------------------------------- those that tell in words


def _dirb(ran: Ran) -> Proof:
    fatal = re.search(r"\(!\) FATAL: (.*)", ran.output)
    words = re.search(r"GENERATED WORDS: (\d+)", ran.output)
    asked = re.search(r"DOWNLOADED: (\d+) - FOUND: \d+", ran.output)
    if fatal is not None and ("connect" in fatal[1].lower() or "host" in fatal[1].lower()):
        return _down(f"dirb did not reach the target: {fatal[1].strip()}")
    if fatal is not None:
        return _untested(f"dirb gave up: {fatal[1].strip()}")
    if asked is None or words is None:
        return Proof(Reason.UNPROVEN, "dirb did not get to its summary")
    if int(words[1]) == 0 or int(asked[1]) < int(words[1]):
        return _untested(f"dirb asked for {asked[1]} of {words[1]} words")
    return WORKED


def _sslyze(ran: Ran) -> Proof:
    reached = re.search(r"SCAN RESULTS FOR ", ran.output, re.IGNORECASE)
    # That a server asks for a certificate of ours is a server that was reached.
    refused = re.search(
        r"ERROR: (Could not.*|Connection.*|.*resolve.*)|=> (?:WARNING|ERROR): (?!.*client auth)(.*)", ran.output
    )
    if refused is not None:
        return _down(f"sslyze did not reach the target: {(refused[1] or refused[2]).strip()}")
    if reached is None:
        return _failed(ran) if ran.status else Proof(Reason.UNPROVEN, "sslyze shows no results of a scan")
    return WORKED


def _sqlmap(ran: Ran) -> Proof:
    if re.search(r"the following injection point", ran.output):
        return WORKED
    busy = re.search(r"HTTP error codes detected during run:\s(?:.*\n)*?(?:.*, )?(50[234]) ", ran.output)
    if busy is not None:
        return _down(f"sqlmap was answered {busy[1]}: the service is down")
    if "do not appear to be injectable" in ran.output:
        return WORKED
    unreached = re.search(
        r"unable to connect to the target|connection timed out|can't establish|does not exist|connection reset",
        ran.output,
    )
    if unreached is not None:
        return _down(f"sqlmap did not reach the target: {unreached[0]}")
    return _untested("sqlmap tested no parameter")


def _garmr(ran: Ran) -> Proof:
    if re.search(r"(?m)^\s*\[[\w.]+\] (?:Pass|Fail)\b", ran.output):
        return WORKED
    if re.search(r"\] Error\b", ran.output):
        return _down("garmr's checks ended in errors: the target was not reached")
    return Proof(Reason.UNPROVEN, "garmr shows no check that passed or failed")


def _arachni(ran: Ran) -> Proof:
    given_up = re.search(r"Giving up trying to audit|Couldn't get a response", ran.output)
    if given_up is not None:
        return _down("arachni got no response from the target")
    if re.search(r"\[HTTP: [1-5]\d\d\]", ran.output):
        return WORKED
    return Proof(Reason.UNPROVEN, "arachni shows no page that it got")


def _heartbleed(ran: Ran) -> Proof:
    if re.search(r"\b(?:SAFE|VULNERABLE)\b", ran.output):
        return WORKED
    return _down("Heartbleed came to no result")


def _zap(ran: Ran) -> Proof:
    asked = re.search(r"Total of (\d+) URLs", ran.output)
    if asked is not None:
        return WORKED if int(asked[1]) else _untested("zap found no address to look at")
    if ran.status != 0:
        return _failed(ran)
    return Proof(Reason.UNPROVEN, "zap does not say what it looked at")


_SAID_DOWN = re.compile(
    r"^curl: \((?:5|6|7|28|97)\) .*|^\+ 0 host\(s\) tested|No web server found on .*"
    r"|ERROR: Could not (?:open a connection to|resolve) host.*"
    r"|^Note: Host seems down.*|Nmap done: \d+ IP address(?:es)? \(0 hosts up\)",
    re.MULTILINE,
)
"""What curl, nmap, nikto and sslscan say of a target that is gone, whoever started them: a script, a container."""


def _any_program(ran: Ran) -> Proof:
    down = _SAID_DOWN.search(ran.output)
    if down is not None:
        return _down(f"the target was not reached: {down[0].strip()}")
    return WORKED if ran.status == 0 else _failed(ran)


_JUDGES: Mapping[str, Callable[[Ran], Proof]] = {
    "nmap": _nmap,
    "curl": _curl,
    "dirb": _dirb,
    "sslyze": _sslyze,
    "sqlmap": _sqlmap,
    "garmr": _garmr,
    "arachni": _arachni,
    "heartbleed": _heartbleed,
    "zap-cli": _zap,
    "zap-api-scan": _zap,
}
_OPTIONS: Mapping[str, Callable[[Sequence[str]], tuple[list[str], str]]] = {
    "nmap": _nmap_options,
    "curl": _curl_options,
}
_BEFORE = re.compile(
    r"(?:sudo|nice|ionice|timeout|time|env|nohup|setsid|stdbuf|unbuffer|proxychains4?|python[\d.]*|ruby)$"
)
"""Programs that run the one their words name."""
_BEFORE_TAKING = frozenset({"-u", "-g", "-k", "-s"})
_BEFORE_WORD = re.compile(r"[\d.]+[smhd]?|\w+=.*", re.DOTALL)


def known_as(argv: Sequence[str], adapter: str) -> str:
    """Whose evidence is asked for: that of the program itself where we know it, else of the adapter it was run by."""
    last = ""
    for word in argv:
        name = PurePath(word).name.lower().removesuffix(".py").removesuffix(".rb")
        if name in _JUDGES:
            return name
        theirs = word[:1] == "-" or (word is not argv[0] and (last in _BEFORE_TAKING or _BEFORE_WORD.fullmatch(word)))
        if not _BEFORE.match(name) and not theirs:
            break
        last = word
    return adapter.lower() if adapter.lower() in _JUDGES else ""


def with_evidence(argv: Sequence[str], name: str) -> tuple[list[str], str]:
    """The words to run, and the file that evidence will stand in (empty: none)."""
    ask = _OPTIONS.get(name)
    return ask(argv) if ask is not None else (list(argv), "")


def proof(ran: Ran) -> Proof:
    """Whether `ran` proves anything."""
    return _JUDGES.get(ran.known_as, _any_program)(ran)
