"""Whether an expectation holds of what programs wrote, and whether it could have held of nothing at all.
Counterpart: `steps` says what is expected, `run` keeps what was seen, `judge` concludes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from vedette.sources.attacks.actions import (
    Cookies,
    Ends,
    ExitStatus,
    Expectation,
    FileText,
    FileThere,
    FileXml,
    How,
    Output,
    Stream,
)
from vedette.sources.attacks.css import XML_LIMIT, has, parse_xml
from vedette.sources.attacks.evidence import Ran
from vedette.sources.attacks.patterns import compiled
from vedette.sources.attacks.steps import unescape

_ANSI = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
Signature = tuple[int, int, int]


class Held(Enum):
    """What an expectation came to."""

    YES = auto()
    NO = auto()
    UNDECIDED = auto()
    """The pattern took too many steps."""
    CUT = auto()
    """It rests on output that was cut short."""
    STALE = auto()
    """The file was there before, and nothing wrote it since."""
    UNREADABLE = auto()


@dataclass(slots=True)
class Seen:
    """What a scenario has seen so far. before: what its files were like before anything was run."""

    folder: Path
    runs: list[Ran] = field(default_factory=list)
    before: Mapping[Path, Signature] = field(default_factory=dict)
    ansi: bool = False
    """Whether escape sequences of terminals are kept (tag `@ansi`)."""

    def text(self, stream: Stream, of: str | None = None) -> str:
        """What was written so far, or by the command `of` alone."""
        chosen = self.runs if of is None else self.of(of)
        parts = []
        if stream in (Stream.OUTPUT, Stream.STDOUT):
            parts += [one.stdout for one in chosen]
        if stream in (Stream.OUTPUT, Stream.STDERR):
            parts += [one.stderr for one in chosen]
        text = "".join(parts)
        return text if self.ansi else _ANSI.sub("", text)

    def of(self, command: str) -> list[Ran]:
        """The runs of a command, as it was written or with its values filled in."""
        return [one for one in self.runs if command in (one.template.strip(), one.command)]

    @property
    def cut(self) -> bool:
        """Whether some output was not kept."""
        return any(one.cut for one in self.runs)


def files_of(expectation: Expectation, folder: Path) -> list[Path]:
    """The files an expectation looks into."""
    if isinstance(expectation, FileText | FileThere | FileXml):
        return [folder / expectation.path]
    return []


def signature(path: Path) -> Signature | None:
    """What tells that a file was written since; None where it is not there."""
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def holds(expectation: Expectation, seen: Seen) -> tuple[Held, str]:
    """Whether it holds, and in words why not."""
    match expectation:
        case Output():
            if expectation.of is not None and not seen.of(expectation.of):
                return Held.NO, "no such command was run"
            text = seen.text(expectation.stream, expectation.of)
            held = _compare(expectation.how, expectation.wanted, text, seen.cut)
            if held in (Held.YES, Held.NO) and expectation.negative:
                held = Held.YES if held is Held.NO else Held.NO
                if held is Held.YES and seen.cut:
                    held = Held.CUT
            return held, "it does" if expectation.negative else _is_not(expectation.how, text)
        case ExitStatus():
            status = seen.runs[-1].status if seen.runs else None
            right = (status == expectation.status) != expectation.negative
            return _held(status is not None and right), f"the exit status is {status}"
        case Ends():
            if not seen.runs or (seen.runs[-1].status == 0) != expectation.well:
                return Held.NO, f"the exit status is {seen.runs[-1].status if seen.runs else None}"
            text = seen.text(Stream.OUTPUT)
            return _compare(expectation.how, expectation.wanted, text, seen.cut), _is_not(expectation.how, text)
        case FileThere():
            there = (seen.folder / expectation.path).exists()
            if there and not expectation.negative and _stale(seen, expectation.path):
                return Held.STALE, "the file was there before"
            return _held(there != expectation.negative), "the file is there" if there else "there is no such file"
        case FileText():
            held, raw = _read(seen, expectation.path)
            if held is not Held.YES:
                return held, "the file cannot be read" if held is Held.UNREADABLE else "there is no such file"
            has_text = unescape(expectation.wanted) in raw.decode("utf-8", "replace")
            return _held(has_text != expectation.negative), "it does" if expectation.negative else "it does not"
        case FileXml():
            return _xml(expectation, seen)
        case Cookies():
            return _cookies(expectation, seen)


def _held(right: bool) -> Held:
    return Held.YES if right else Held.NO


def _is_not(how: How, text: str) -> str:
    if not text.strip():
        return "there is no output"
    return "there is output" if how is How.EMPTY else "it does not"


def _compare(how: How, wanted: str, text: str, cut: bool) -> Held:
    wanted = unescape(wanted)
    match how:
        case How.CONTAINS:
            right: bool | None = wanted in unescape(text)
        case How.EXACTLY:
            right = wanted == unescape(text)
        case How.EMPTY:
            right = text == ""
        case How.MATCHES:
            right = compiled(wanted)(text)
    if right is None:
        return Held.UNDECIDED
    if not right and cut:
        return Held.CUT
    return _held(right)


def _read(seen: Seen, name: str) -> tuple[Held, bytes]:
    """A regular file's bytes; nothing that would block or never end is opened."""
    path = seen.folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Held.NO, b""
    except (OSError, ValueError):
        return Held.UNREADABLE, b""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return Held.UNREADABLE, b""
        raw = file.read(XML_LIMIT + 1)
    if len(raw) > XML_LIMIT:
        return Held.UNREADABLE, b""
    return (Held.STALE if _stale(seen, name) else Held.YES), raw


def _stale(seen: Seen, name: str) -> bool:
    path = seen.folder / name
    before = seen.before.get(path)
    return before is not None and before == signature(path)


def _xml(expectation: FileXml, seen: Seen) -> tuple[Held, str]:
    held, raw = _read(seen, expectation.path)
    if held is Held.NO:
        return Held.NO, "there is no such file"
    if held is not Held.YES:
        return held, "the file cannot be read, or is too large" if held is Held.UNREADABLE else "the file is old"
    try:
        root = parse_xml(raw)
        for css in expectation.selectors:
            if has(root, css) == expectation.negative:
                return Held.NO, f"{css} is {'there' if expectation.negative else 'not there'}"
    except ValueError as error:
        return Held.UNREADABLE, f"the file {error}"
    return Held.YES, ""


def _cookies(expectation: Cookies, seen: Seen) -> tuple[Held, str]:
    last = next((one for one in reversed(seen.runs) if one.known_as == "curl"), None)
    if last is None:
        return Held.NO, "no curl was run"
    got = received(last.output) or received(last.evidence.decode("utf-8", "replace"))
    for row in expectation.rows:
        alike = [one for one in got if one["name"] == row["name"]]
        if not alike:
            return Held.NO, f"no cookie {row['name']!r} was received"
        for name, value in row.items():
            if value and not any(one.get(name, "") == value for one in alike):
                return Held.NO, f"cookie {row['name']!r}: {name} is not {value!r}"
    return Held.YES, ""


def received(text: str) -> list[dict[str, str]]:
    """The cookies of `Set-Cookie` headers: name, value, and attributes in lower case (`max_age`, `secure`)."""
    out = []
    for line in re.findall(r"(?im)^set-cookie:[ \t]*([^\r\n]+)", text):
        first, *attributes = line.split(";")
        name, _, value = first.strip().partition("=")
        cookie = {"name": name, "value": value}
        for attribute in attributes:
            key, equals, value = attribute.strip().lower().partition("=")
            cookie[key.replace("-", "_")] = value if equals else "true"
        out.append(cookie)
    return out


# ------------------------------------------------------------------------------------------- what would hold of nothing


def is_negative(expectation: Expectation) -> bool:
    """Whether it is met where nothing is seen at all."""
    match expectation:
        case ExitStatus():
            return expectation.negative and expectation.status != 0
        case Output():
            return expectation.negative or (not expectation.wanted and expectation.how is not How.EMPTY)
        case FileText() | FileThere() | FileXml():
            return expectation.negative
        case _:
            return False


def observed_nothing(expectation: Expectation, seen: Seen) -> bool:
    """Whether a negative expectation holds because there is nothing at all to look at."""
    if isinstance(expectation, FileText) and expectation.negative:
        return not _read(seen, expectation.path)[1].strip()
    return (
        isinstance(expectation, Output)
        and is_negative(expectation)
        and not seen.text(expectation.stream, expectation.of).strip()
    )


def lone_lines(expectation: Expectation, seen: Seen) -> str | None:
    """A line of several that must not be there, and is there alone.

    Of nmap's ports only open ones count: one that is closed or filtered is written too.
    """
    if not isinstance(expectation, Output) or not expectation.negative or expectation.how is not How.CONTAINS:
        return None
    lines = [line.strip() for line in unescape(expectation.wanted).splitlines() if line.strip()]
    if len(lines) < 2:
        return None
    written = seen.text(expectation.stream, expectation.of).splitlines()
    for line in lines:
        for one in written:
            shut = re.match(r"\d+/\w+\s++(?!open\b)", one) is not None
            if _squeezed(line) in _squeezed(one) and not shut:
                return line
    return None


def spaced_otherwise(expectation: Expectation, seen: Seen) -> bool:
    """Whether a port that must not be seen is seen, with other spaces between than it is written with.

    nmap aligns its columns: `80/tcp open` is `80/tcp   open` as soon as a longer port stands below it.
    """
    if not isinstance(expectation, Output) or not expectation.negative or not _PORT.search(expectation.wanted):
        return False
    wanted = expectation.wanted if expectation.how is How.MATCHES else _squeezed(expectation.wanted)
    text = _squeezed(seen.text(expectation.stream, expectation.of))
    return _compare(expectation.how, wanted, text, cut=False) is Held.YES


def _squeezed(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text)


# A port that is a port and no piece of a pattern (`[^8]0/tcp`).
_PORT = re.compile(
    r"""(?<![^\s"'^(|])(?P<port>\d{1,5})(?:/|\\/|\.)(?P<protocol>tcp|udp|sctp)|portid=["']?(?P<id>\d{1,5})"""
)


def names_no_port(expectation: Expectation) -> bool:
    """Whether it says what must not be seen, and that is no port."""
    return isinstance(expectation, Output) and expectation.negative and not _PORT.search(expectation.wanted)


def never_looked_at(expectation: Expectation, looked_at: Mapping[str, frozenset[int]] | None) -> list[str]:
    """The ports that must not be seen and were not among those asked; empty also where some of them were.

    looked_at: of each protocol; None where nothing is known of it.
    """
    if looked_at is None or not is_negative(expectation):
        return []
    texts: Sequence[str] = ()
    if isinstance(expectation, Output):
        texts = expectation.wanted.splitlines()
    elif isinstance(expectation, FileXml):
        texts = expectation.selectors
    missing = []
    for text in texts:
        for found in _PORT.finditer(text):
            protocol = found["protocol"] or ("udp" if "udp" in text else "tcp")
            port = int(found["port"] or found["id"])
            if port in looked_at.get(protocol, frozenset()):
                return []
            missing.append(f"{port}/{protocol}")
    return missing
