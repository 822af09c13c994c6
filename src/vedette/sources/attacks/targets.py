"""The hosts a command names, so that one aimed at somebody else's is not run.
Counterpart: `run` asks before it starts a program; `app.attacks` says which networks are one's own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_network
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import urlsplit

from vedette.model.ports import Network
from vedette.sources.attacks.evidence import NMAP_TAKING, known_as
from vedette.sources.attacks.outcomes import Reason
from vedette.text.addresses import parse_network

Resolve = Callable[[str], Iterable[str]]
"""All addresses of a name; none where it does not resolve."""


class Named(NamedTuple):
    """A host that a word may name. length: of the prefix after it, empty = none. sure: it can mean nothing else."""

    host: str
    length: str = ""
    sure: bool = True


_FILES = re.compile(r"\.(xml|txt|html|json|csv|log|g?nmap|lst|pem|crt|key|cfg|conf|out|py|rb|sh|nse|dat|ya?ml)", re.I)
"""Endings of files that programs are told to write or read; some are top-level domains as well."""
_NAME = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?\.)*[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?")
_SPAN = re.compile(r"[\d*,-]+(?:\.[\d*,-]+){3}")
_ELSEWHERE = {
    "": re.compile(r"-i[LR].*"),
    "nmap": re.compile(r"--?i[LR].*|-i|--resume.*|--script-args-file.*|.*\bnewtargets\b.*", re.DOTALL),
    "curl": re.compile(r"-[^-AbcCdDeEFhHmoPQrtTuUwxXyYz]*K.*|--conf.*", re.DOTALL),
    "sqlmap": re.compile(r"-[mrlgc].*|--(?:bulk|config).*"),
    "sslyze": re.compile(r"--targets_in.*"),
}
"""Targets that stand in no word: in a file, at random, found by a script. By program; `` is any that we do not know."""
_CURL_SHORT = re.compile(r"-(?!-)[^AbcCdDeEFhHKmoPQrtTuUwxXyYz]*(?:([AbcCdDeEFhHKmoPQrtTuUwxXyYz])(.*))?", re.DOTALL)
_CURL_HOSTS = re.compile(r"--(?:url|proxy(?:1\.0)?|preproxy|socks\w+(?<!user)|doh-url)")
_CURL_TEXT = re.compile(
    r"--(?:user-agent|referer|user|proxy-user|cookie(?:-jar)?|data(?:-\w+)?|json|url-query|form(?:-string)?|header"
    r"|proxy-header|request(?:-target)?|write-out|output(?:-dir)?|dump-header|range|quote|oauth2-bearer|aws-sigv4"
    r"|upload-file|cert|key|cacert|capath|crlfile|netrc-file|stderr|trace(?:-ascii)?|max-time|connect-timeout)"
)
_CURL_FLAGS = re.compile(
    r"--(?:silent|show-error|head|insecure|location(?:-trusted)?|fail|fail-\w+|include|verbose|compressed|http[\d.]+"
    r"|ipv[46]|get|path-as-is|globoff|no-[\w-]+|remote-\S+|tlsv[\d.]+|sslv\d|ssl\S*|anyauth|basic|digest|parallel|raw|next"
    r"|progress-bar|proxytunnel|disable)"
)
_CONNECT_TO = re.compile(r"(?:\[[^\]]*\]|[^:]*):\d*:(\[[^\]]*\]|[^:]*):\d*")
_SHELL = re.compile(r"(?:ba|da|z|k)?sh")


def named_hosts(argv: Sequence[str]) -> list[Named]:
    """What the words after the program may name, in their order."""
    program = known_as(argv, "")
    found = _of_curl(argv) if program == "curl" else _of_words(argv, program)
    return list(dict.fromkeys(found))


def _of_words(argv: Sequence[str], program: str) -> Iterator[Named]:
    shell = _SHELL.fullmatch(PurePath(argv[0]).name) if argv else None
    for number, word in enumerate(argv[1:], 1):
        last = argv[number - 1] if number > 1 else ""
        after_option = bool(NMAP_TAKING.fullmatch(last)) if program == "nmap" else last.startswith("-")
        if shell and last.startswith("-") and last.endswith("c"):
            yield from named_hosts(["sh", *_script_words(word)])
            continue
        if word.startswith("-"):
            word = word.partition("=")[2]
            after_option = True
        pair = re.fullmatch(r"(.+)\{(.+)\}", word) if program == "sslyze" else None
        for one in pair.groups() if pair else (word,):
            named = _named(one, after_option)
            if named is None and program == "nmap" and not after_option and number > _place_of(argv, "nmap"):
                # Whatever else it is, nmap takes it for a target.
                named = Named(word)
            if named is not None:
                yield named


def _script_words(script: str) -> list[str]:
    """The words of a script for a shell, its operators apart; nothing is expanded."""
    lexer = shlex.shlex(script, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:
        return script.split()


def _place_of(argv: Sequence[str], program: str) -> int:
    """Where the program stands behind `sudo` and the like."""
    return next((at for at, word in enumerate(argv) if PurePath(word).name.lower() == program), 0)


def _of_curl(argv: Sequence[str]) -> Iterator[Named]:
    """curl takes every word that is no option and no option's value for an address, whatever it looks like."""
    words = iter(argv[_place_of(argv, "curl") + 1 :])
    for word in words:
        if word == "--":
            yield from (named for one in words if (named := _address(one)))
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            if _CURL_FLAGS.fullmatch(name):
                continue
            value = value if equals else next(words, "")
            yield from _curl_value(name, value)
        elif word[:1] == "-" and word != "-":
            short = _CURL_SHORT.fullmatch(word)
            if short is not None and short[1]:
                value = short[2] or next(words, "")
                if short[1] == "x" and (named := _address(value)):
                    yield named
        elif named := _address(word):
            yield named


def _curl_value(option: str, value: str) -> Iterator[Named]:
    if option.startswith("--resolve"):
        for one in value.split(":", 2)[2].split(",") if value.count(":") > 1 else ():
            yield Named(one.strip("[]"))
    elif option.startswith("--connect-to"):
        to = _CONNECT_TO.fullmatch(value)
        if to is None or to[1]:
            yield Named(to[1].strip("[]") if to else value)
    elif option == "--url" and value.startswith("@"):
        # A file of addresses: a name that none has.
        yield Named(value)
    elif _CURL_HOSTS.fullmatch(option):
        if named := _address(value):
            yield named
    elif not _CURL_TEXT.fullmatch(option) and (named := _named(value, after_option=True)):
        yield named


def _address(word: str) -> Named | None:
    """The host of an address as curl reads it: without a scheme, with one slash or three, a number for an address."""
    scheme, rest = re.fullmatch(r"(?:([A-Za-z][A-Za-z0-9+.-]*):/{1,3})?(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if not host or (scheme or "").lower() == "file":
        return None
    bracketed = re.match(r"\[([0-9A-Fa-f:.]+)(?:%[^\]]*)?\]", host)
    return Named(bracketed[1] if bracketed else re.sub(r":\d*$", "", host))


def _named(word: str, after_option: bool) -> Named | None:
    if "://" in word:
        try:
            return Named(urlsplit(word).hostname or word)
        except ValueError:
            return Named(word)
    head = word.rpartition("@")[2]
    bracketed = re.match(r"\[([0-9A-Fa-f:.]+)\]", head)
    if bracketed:
        return Named(bracketed[1])
    try:
        parse_network(head)
    except ValueError:
        pass
    else:
        host, _, length = head.partition("/")
        return Named(host, length)
    head, _, rest = head.partition("/")
    head = re.sub(r":\d+$", "", head)
    length = rest if re.fullmatch("[0-9]{1,3}", rest) else ""
    try:
        parse_network(head)
    except ValueError:
        pass
    else:
        return Named(head, length)
    if _SPAN.fullmatch(head) or head == "localhost":
        return Named(head, length)
    if not _NAME.fullmatch(head):
        return None
    if "." not in head:
        return None if after_option else Named(head, length, sure=False)
    return Named(head, length, sure=not (after_option and _FILES.fullmatch(PurePath(head).suffix)))


def refused(argv: Sequence[str], own: Sequence[Network], resolve: Resolve) -> tuple[Reason, str, str] | None:
    """Why a command may not be run where only `own` may be looked at; None where every host it names is in them.

    The reason, the word it is about, and what is so of it.
    """
    pattern = _ELSEWHERE.get(known_as(argv, ""), _ELSEWHERE[""])
    elsewhere = next((word for word in argv[1:] if pattern.fullmatch(word)), None)
    if elsewhere is not None:
        return Reason.OUTSIDE_OWN_NETWORKS, elsewhere, "takes targets that are not in the command"
    for named in named_hosts(argv):
        networks = _networks(named, resolve)
        if not networks and named.sure:
            return Reason.NAME_UNRESOLVED, named.host, "does not resolve"
        for one in networks:
            if not any(_within(one, mine) for mine in own):
                return Reason.OUTSIDE_OWN_NETWORKS, named.host, f"is outside own_networks ({one})"
    return None


def _networks(named: Named, resolve: Resolve) -> list[Network]:
    length = f"/{named.length}" if named.length else ""
    if _SPAN.fullmatch(named.host):
        # nmap's `192.0.2.1-9` and `192.0.2.*`: the network around all of them
        parts = named.host.split(".")
        fixed = next((at for at, part in enumerate(parts) if not part.isdigit()), 4)
        length = length if fixed == 4 else f"/{8 * fixed}"
        named = Named(".".join([*parts[:fixed], *["0"] * (4 - fixed)]))
    try:
        return [parse_network(named.host + length)]
    except ValueError:
        return [_around(address, named.length) for address in resolve(named.host)]


def _around(address: str, length: str) -> Network:
    """The network of that length around an address; a length its family does not have is the address alone."""
    alone = ip_network(address)
    if length and int(length) <= alone.max_prefixlen:
        return ip_network(f"{address}/{int(length)}", strict=False)
    return alone


def _within(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and int(outer.network_address) <= int(inner.network_address)
        and int(inner.broadcast_address) <= int(outer.broadcast_address)
    )
