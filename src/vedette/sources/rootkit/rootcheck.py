"""Known paths and strings of rootkits, from files in the format of OSSEC's rootcheck, which the operator names.
Counterpart: `files` walks and asks here about every path; the files themselves are not ours and are only read."""

# The comments at the head of rootkit_files.txt and rootkit_trojans.txt.
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vedette.model.errors import Location
from vedette.model.levels import Level
from vedette.sources.rootkit.traces import Blind, Check, Look, TraceKind
from vedette.text.escape import decode, shorten, terminal
from vedette.text.regex import compile_re2

FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
"""Where a program of which strings are known is looked for."""
_PRINTABLE = re.compile(rb"[\x20-\x7e]{4,}")
_MOST_READ = 64 << 20
_PATH = re.compile(r"^(\S+(?: \S+)*?)\s*!\s*(.*?)\s*(?:::.*)?$")


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that cannot be used."""

    location: Location
    why: str


@dataclass(frozen=True, slots=True)
class Strings:
    """What must not stand in a program of this name. pattern: matches one printable string of it."""

    program: str
    matches: Callable[[bytes], bool]
    name: str


@dataclass(slots=True)
class Signatures:
    """paths: from the root, to what is known of them. names: wherever they are found. problems: lines not used."""

    paths: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    strings: list[Strings] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def named(self, look: Look, path: str) -> None:
        """A path that was found: whether its name alone is known."""
        known = self.names.get(path.rpartition("/")[2])
        if known is not None:
            _known(look, path, known)


def read_signatures(files: Iterable[Path]) -> Signatures:
    """Both kinds of file, told apart line by line; OSError where one cannot be read."""
    found = Signatures()
    for file in files:
        for number, raw in enumerate(file.read_bytes().splitlines(), 1):
            line = raw.decode("utf-8", "replace").strip()
            if line and not line.startswith("#"):
                _take(found, line, Location(str(file), number))
    return found


def _take(found: Signatures, line: str, location: Location) -> None:
    if line.count("!") >= 2:
        program, _, rest = line.partition("!")
        # A pattern may hold an exclamation mark; the last one begins the description.
        pattern, _, name = rest.rpartition("!")
        try:
            # One case as the other, as rootcheck does not tell them apart either.
            compiled = compile_re2(pattern.strip().encode(), latin1=True)
        except ValueError as error:
            found.problems.append(Problem(location, str(error)))
            return
        search = compiled.search
        found.strings.append(
            Strings(program.strip(), lambda text: search(text) is not None, name.strip() or "a known trojan")
        )
        return
    matched = _PATH.match(line)
    if matched is None:
        found.problems.append(Problem(location, "neither a path with a name nor a program with a pattern"))
        return
    path, name = matched[1], matched[2] or "a known rootkit"
    if path.startswith("*/"):
        found.names[path[2:]] = name
    else:
        found.paths["/" + path.lstrip("/")] = name


def known_paths(look: Look, signatures: Signatures, root: Path = Path("/")) -> None:
    """Paths of known rootkits that are there."""
    look.missed(Check.SIGNATURES, Blind.SIGNATURE_UNUSABLE, len(signatures.problems))
    for path, name in signatures.paths.items():
        try:
            if "*" in path:
                for found in root.glob(path.lstrip("/")):
                    _known(look, f"/{found.relative_to(root)}", name)
                continue
            (root / path.lstrip("/")).lstat()
        except (OSError, ValueError):
            continue
        _known(look, path, name)


def known_strings(look: Look, signatures: Signatures, hinted: Callable[[str], bool], root: Path = Path("/")) -> None:
    """Programs in which a string stands that stood in trojans of that name.

    hinted: whether the package's list on this host speaks for the file: these patterns are old, and match many an
    honest program of today; such are informational.
    """
    by_program: dict[str, list[Strings]] = {}
    for one in signatures.strings:
        by_program.setdefault(one.program, []).append(one)
    for path, known in _programs(by_program, root):
        try:
            with (root / path.lstrip("/")).open("rb") as stream:
                content = stream.read(_MOST_READ)
        except OSError:
            look.missed(Check.SIGNATURES, Blind.UNREADABLE)
            continue
        texts = set(_PRINTABLE.findall(content))
        for one in known:
            text = next((text for text in sorted(texts) if one.matches(text)), None)
            if text is None:
                continue
            speaks = hinted(path)
            shown = terminal(path)
            detail = f"it holds a string of {one.name}: {shorten(terminal(decode(text)), 80)}" + (
                "; its package's list on this host speaks for it" if speaks else ""
            )
            look.found(
                TraceKind.KNOWN_STRINGS, shown, Level.INFORMATIONAL if speaks else Level.HIGH, detail,
                file__path=shown, vedette__rootkit__signature=one.name,
            )  # fmt: skip
            break


def _programs(wanted: Mapping[str, list[Strings]], root: Path) -> Iterable[tuple[str, list[Strings]]]:
    seen: set[tuple[int, int]] = set()
    for program, known in wanted.items():
        places = (f"/{program}",) if "/" in program else tuple(f"{folder}/{program}" for folder in FOLDERS)
        for path in places:
            try:
                status = (root / path.lstrip("/")).stat()
            except (OSError, ValueError):
                continue
            here = (status.st_dev, status.st_ino)
            # One file under two names is looked at once for each program it may be.
            if (root / path.lstrip("/")).is_file() and here not in seen:
                seen.add(here)
                yield path, known


def _known(look: Look, path: str, name: str) -> None:
    shown, words = terminal(path), terminal(name)
    look.found(
        TraceKind.KNOWN_PATH,
        shown,
        Level.HIGH,
        f"known of {words}",
        file__path=shown,
        vedette__rootkit__signature=words,
    )
