"""What the pattern files say: their place in the documents, who gives a field, and that no text blames a stranger.
Counterpart: vedette/parsers/patterns and docs/parsers.md; the language itself is tested with `formats`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vedette.model.fields import FIELDS
from vedette.parsers.formats import Capture, CaptureType, Literal
from vedette.parsers.readings import Message, address_of
from vedette.parsers.registry import FlatShape, PatternSet
from vedette.parsers.shapes import NONE, match_one
from vedette.parsers.written import read_file, read_patterns

PATTERNS = read_patterns()
DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "parsers.md").read_text()

PEER = "198.51.100.7"
STRANGER = "203.0.113.9"
CUT = 500


def numbers_of(service: str) -> list[int]:
    """The shapes of a service in the order they are tried."""
    return sorted(PATTERNS.shapes_of[service], key=lambda number: PATTERNS.shapes[number].pattern.rest)


def blamed(service: str, message: bytes) -> tuple[FlatShape | None, str | None]:
    """What a message is, and the address it may be blamed on."""
    number, spans, named, unsourced = match_one(PATTERNS, numbers_of(service), Message(message))
    if number == NONE:
        return None, None
    flat = PATTERNS.shapes[number]
    if named or unsourced:
        return flat, None
    for capture, (start, end) in zip(flat.shape.captures, spans, strict=True):
        if capture.field in ("source.ip", "source.address"):
            return flat, address_of(message[start:end])
    return flat, None


# ------------------------------------------------------------------------------------------------ documents


def test_the_document_lists_every_service_and_exactly_its_events():
    rows = [
        line.strip("|").split(" | ") for line in DOCUMENT.splitlines() if re.match(r"\| `[a-z-]+` \| .* \| `", line)
    ]
    listed = {row[0].strip().strip("`"): set(re.findall(r"`([a-z-]+)`", row[2])) for row in rows}
    given_by_files = {
        file.service: {str(form.constants["event.action"]) for pattern in file.patterns for form in pattern.formats}
        for file in PATTERNS.files
    }
    assert listed == given_by_files


def test_the_worked_example_of_the_document_is_a_pattern_file_whose_samples_hold():
    example = DOCUMENT.partition("```yaml\n")[2].partition("```")[0]
    patterns = PatternSet((read_file(example.encode(), "docs/parsers.md"),))
    (pattern,) = patterns.files[0].patterns
    numbers = patterns.shapes_of["doord"]
    for sample in pattern.samples:
        number, spans, named, _ = match_one(patterns, numbers, Message(sample.message))
        assert number != NONE
        assert not named
        flat = patterns.shapes[number]
        got = {
            capture.field: sample.message[start:end].decode()
            for capture, (start, end) in zip(flat.shape.captures, spans, strict=True)
        }
        constants = {name: value for name, value in flat.constants.items() if name not in pattern.constants}
        assert got | constants == {
            name: value if isinstance(value, bool) else str(value) for name, value in sample.fields.items()
        }
    assert len(pattern.samples) == 3
    for message, _ in pattern.not_samples:
        assert match_one(patterns, numbers, Message(message))[0] == NONE


def test_a_file_is_named_after_its_service_and_its_fields_say_that_it_gives_them():
    for file in PATTERNS.files:
        assert Path(file.location.file).stem == file.service
        given_here = set()
        for number in PATTERNS.shapes_of[file.service]:
            flat = PATTERNS.shapes[number]
            given_here |= set(flat.constants) | {capture.field for capture in flat.shape.captures if capture.field}
        silent = {name for name in given_here if file.service not in FIELDS[name].given_by}
        assert not silent, f"model/fields.py does not say that {file.service} gives {sorted(silent)}"


def test_every_event_has_a_category_and_no_category_is_unknown():
    known = {"authentication", "session", "iam", "process", "network", "configuration"}
    for flat in PATTERNS.shapes:
        assert flat.constants["event.category"] in known, flat.pattern.id
        assert flat.constants.get("event.outcome", "success") in ("success", "failure"), flat.pattern.id


def test_samples_use_documentation_addresses_only():
    documented = (
        "192.0.2.",
        "198.51.100.",
        "203.0.113.",
        "2001:db8:",
        "::ffff:198.51.100.",
        "127.0.0.1",
        "0.0.0.0",
        "::",
    )
    for file in PATTERNS.files:
        for pattern in file.patterns:
            for sample in pattern.samples:
                for word in re.findall(r"[0-9a-f.:]+[.:][0-9a-f]+", sample.message.decode()):
                    if address_of(word.encode()) is not None:
                        assert word.startswith(documented), (pattern.id, word)


# ------------------------------------------------------------------------------------------------ hostile text

_ATTACKED = [
    flat
    for service in ("sshd", "pam")
    for flat in (PATTERNS.shapes[number] for number in PATTERNS.shapes_of[service])
    if not flat.pattern.rest and any(capture.type is CaptureType.TEXT for capture in flat.shape.captures)
]


def imitations(*services: str) -> list[str]:
    """The samples of some services, naming the stranger."""
    return sorted(
        {
            re.sub(r"(?:198\.51\.100|192\.0\.2)\.\d+|2001:db8::7", STRANGER, file.message_of(sample.message).decode())
            for file in PATTERNS.files
            for pattern in file.patterns
            for sample in pattern.samples
            if file.service in services
        }
    )


_IMITATIONS = imitations("sshd", "pam")
_ADDRESS = re.compile(re.escape(STRANGER))


@st.composite
def hostile_text(draw: st.DrawFn, messages: Sequence[str] = _IMITATIONS) -> str:
    """Messages of ours and pieces of them, all naming the stranger."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        message = draw(st.sampled_from(messages))
        words = message.split(" ")
        first = draw(st.integers(0, len(words) - 1))
        last = draw(st.integers(first, len(words)))
        parts.append(" ".join(words[first:last]))
        parts.append(
            draw(st.sampled_from(["", STRANGER, f"from {STRANGER} port 22 ssh2", f"{STRANGER} port 22 [preauth]"]))
        )
    return draw(st.sampled_from([" ", ""])).join(parts)


def written(flat: FlatShape, text: list[str]) -> str:
    """A message of that shape: the peer at its place, the given texts at theirs."""
    values = {CaptureType.INT: "4242", CaptureType.WORD: "word", CaptureType.OPT: "opt", CaptureType.ADDR: PEER}
    out = []
    for element in flat.shape.elements:
        if isinstance(element, Literal):
            out.append(element.text.decode())
            continue
        assert isinstance(element, Capture)
        if element.type is CaptureType.TEXT:
            out.append(text.pop())
        elif element.type is CaptureType.IP:
            out.append(PEER if element.field == "source.ip" else "192.0.2.1")
        else:
            out.append(values[element.type])
    return "".join(out)


@settings(max_examples=400)
@given(st.sampled_from(_ATTACKED), st.lists(hostile_text(), min_size=3, max_size=3))
def test_no_text_in_any_place_of_any_message_blames_a_stranger(flat: FlatShape, texts: list[str]):
    message = written(flat, list(texts)).encode()
    match, address = blamed(flat.service, message)
    assert match is not None
    assert address in (PEER, None), message


_NAMING = {
    file.service: [
        flat
        for flat in (PATTERNS.shapes[number] for number in PATTERNS.shapes_of[file.service])
        if flat.shape.gives_address and any(capture.type is CaptureType.TEXT for capture in flat.shape.captures)
    ]
    for file in PATTERNS.files
}


@pytest.mark.parametrize("service", [service for service, flats in _NAMING.items() if flats and service != "kernel"])
def test_no_text_in_a_message_of_any_service_blames_a_stranger(service: str):
    """Of the kernel's lines text stands in front of the address: it is the administrator's own prefix."""
    texts = hostile_text(imitations(service))

    @settings(max_examples=60)
    @given(st.sampled_from(_NAMING[service]), st.lists(texts, min_size=5, max_size=5))
    def holds(flat: FlatShape, texts: list[str]) -> None:
        message = written(flat, list(texts)).encode()
        match, address = blamed(service, message)
        assert match is not None
        assert address in (PEER, None), message

    holds()


_ENDINGS = sorted(
    {
        " ".join(words[first:])
        for words in (message.split(" ") for message in _IMITATIONS)
        for first in range(len(words))
        if STRANGER in " ".join(words[first:])
    }
)


_PEER_NAMED = next(flat for flat in _ATTACKED if flat.shape.head == b"reverse mapping checking getaddrinfo for ")


@settings(max_examples=300)
@given(st.sampled_from(_ATTACKED), st.sampled_from(_ENDINGS), st.integers(0, 2))
@example(_PEER_NAMED, f"for h7.example.net [{STRANGER}] failed - POSSIBLE BREAK-IN ATTEMPT!", 0)
def test_a_message_cut_right_after_text_blames_no_stranger(flat: FlatShape, ending: str, place: int):
    count = sum(capture.type is CaptureType.TEXT for capture in flat.shape.captures)
    texts = ["alice"] * count
    texts[place % count] = "\0"
    head = written(flat, list(texts)).partition("\0")[0]
    texts[place % count] = "x" * (CUT - len(head) - len(ending) - 1) + f" {ending}yyyy"
    message = written(flat, list(texts)).encode()[:CUT]
    assert message.endswith(ending.encode())
    assert blamed(flat.service, message)[1] in (PEER, None), message


@pytest.mark.parametrize("verb", ["Failed", "Accepted"])
def test_a_name_that_pushes_the_true_address_off_the_end_blames_nobody(verb: str):
    """The name is `x from ... ID aaa...`; of one word it would be an account, but nothing here says that it is one."""
    message = f"{verb} publickey for x from {STRANGER} port 22 ssh2: ED25519-CERT SHA256:aaaa ID ".encode()
    flat, address = blamed("sshd", message.ljust(CUT, b"a"))
    assert flat is not None
    assert address is None
    assert blamed("sshd", message.ljust(CUT - 1, b"a"))[1] == STRANGER  # whole, so the name is one word


def test_the_hostile_lines_are_about_something():
    """The two properties above would hold of a parser that blames nobody."""
    harmless = [blamed(flat.service, written(flat, ["alice", "alice", "alice"]).encode())[1] for flat in _ATTACKED]
    sourced = [flat.shape.gives_address for flat in _ATTACKED]
    assert sum(sourced) > 100
    assert [address == PEER for address in harmless] == sourced


# ------------------------------------------------------------------------------------------------ real logs

_HEADER = re.compile(r"^[A-Z][a-z]{2} +\d+ [\d:]{8} (?:\S+) ([^\s\[:]+)(?:\[\d+\])?: (.*)$")


def shares(path: Path) -> dict[str, tuple[int, int]]:
    """Program -> messages understood, and seen, for programs that have patterns."""
    seen: Counter[str] = Counter()
    understood: Counter[str] = Counter()
    for line in path.read_text(errors="replace").splitlines():
        header = _HEADER.match(line)
        if header is None:
            continue
        program, message = header[1], re.sub(r"^message repeated \d+ times: \[ (.*)\]$", r"\1", header[2])
        file = PATTERNS.file_of(program)
        services = ["pam"] if message.startswith(("pam_", "PAM ", "(pam_")) else []
        services += [file.service] if file is not None else []
        if not services:
            continue
        seen[program] += 1
        understood[program] += any(blamed(service, message.encode())[0] is not None for service in services)
    return {program: (understood[program], number) for program, number in seen.items()}


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name", ["logs/loghub/OpenSSH/OpenSSH_2k.log", "logs/loghub/Linux/Linux_2k.log", "logs/elastic-examples/auth.log"]
)
def test_every_line_of_real_logins_is_understood(corpus: Path, name: str):
    found = {program: share for program, share in shares(corpus / name).items() if program != "kernel"}
    assert sum(number for _, number in found.values()) > 800
    assert [program for program, (understood, number) in found.items() if understood < number] == []


@pytest.mark.corpus
def test_the_injection_lines_blame_the_peer(corpus: Path):
    lines = (corpus / "logs" / "injection-lines.log").read_text().splitlines()
    assert len(lines) == 13
    for line in lines:
        header = _HEADER.match(line)
        assert header is not None
        assert blamed("sshd", header[2].encode())[1] == PEER, line
