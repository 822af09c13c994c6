"""What the values of Linux audit records mean: quoted and hexadecimal text, arguments, socket addresses, flags.
Counterpart: `parsers.audit` finds the values and asks once for each distinct one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address

from vedette.model.events import Value
from vedette.parsers.syscalls import SYSCALLS
from vedette.text.addresses import canonical
from vedette.text.escape import decode

_HEX = re.compile(rb"(?:[0-9A-F]{2})+|(?:[0-9a-f]{2})+")
_EXECVE = re.compile(rb"type=EXECVE ")
_EITHER = re.compile(rb' a\d+=(?:"([^"]*)"|(\S*))')
_WORD = re.compile(rb" a(\d{1,5})(?:\[(\d{1,5})\])?=(\S*)")
_HIDDEN = re.compile(rb"[ ']([a-z_]\w*)=((?:[0-9A-F]{2}){3,})(?=[\s']|\Z)")

# Text that whoever is watched may choose: quoted, or in hexadecimal where it holds more than plain characters.
UNTRUSTED = frozenset(
    {
        "exe",
        "comm",
        "cwd",
        "name",
        "acct",
        "cmd",
        "proctitle",
        "data",
        "dir",
        "device",
        "path",
        "grp",
        "new_group",
        "vm",
    }
    | {"watch", "ocomm", "sw", "new-chardev", "old-chardev", "new-disk", "old-disk", "new-fs", "old-fs"}
)
EXECUTING = frozenset({"execve", "execveat"})
CONNECTING = frozenset({"connect", "sendto", "sendmsg", "sendmmsg"})

FLAGS: Mapping[str, frozenset[str]] = {
    # Which argument of a system call holds how a file is opened.
    "a1": frozenset({"open"}),
    "a2": frozenset({"openat"}),
}
_MAKING = 0x40 | 0x200
"""O_CREAT, O_TRUNC"""


def _bare(word: bytes) -> bytes:
    """Without the quote that ends a program's message."""
    return word[:-1] if word.endswith(b"'") else word


def plain(word: bytes) -> Value | None:
    """A value as written, without quotes."""
    word = _bare(word)
    return decode(word[1:-1] if len(word) > 1 and word[:1] == b'"' == word[-1:] else word)


def _text(word: bytes) -> bytes:
    word = _bare(word)
    if word[:1] == b'"':
        return word[1:].removesuffix(b'"')
    return bytes.fromhex(word.decode()) if _HEX.fullmatch(word) else word


def untrusted(word: bytes) -> Value | None:
    """Quoted text, or text in hexadecimal."""
    return decode(_text(word))


def title(word: bytes) -> Value | None:
    """A process title: arguments separated by NUL."""
    return decode(_text(word).rstrip(b"\0").replace(b"\0", b" "))


def _key(word: bytes) -> Value | None:
    parts = tuple(decode(part) for part in _text(word).split(b"\x01"))
    return parts if len(parts) > 1 else parts[0]


def value_of(key: str) -> Callable[[bytes], Value | None]:
    """How the values of a key are read."""
    if key == "key":
        return _key
    if key == "proctitle":
        return title
    return untrusted if key in UNTRUSTED else plain


def number(word: bytes) -> Value | None:
    """A number; absent where it is none."""
    return int(word) if word.isdigit() and len(word) <= 18 else None


def account(word: bytes) -> Value | None:
    """The account of a numeric id: root has one name everywhere, others stay numbers."""
    return "root" if word == b"0" else decode(word)


def outcome(word: bytes) -> Value | None:
    """ECS event.outcome of `success=` and `res=`."""
    return {b"yes": "success", b"success": "success", b"1": "success", b"no": "failure", b"failed": "failure"}.get(
        _bare(word), "failure" if _bare(word) == b"0" else None
    )


def call_of(machine: Value, call: Value) -> Value | None:
    """The name of a system call, by architecture and number."""
    names = SYSCALLS.get(str(machine))
    text = str(call)
    return names.get(int(text)) if names and text.isascii() and text.isdigit() and len(text) < 6 else None


def makes(flags: Value) -> bool:
    """Whether a file opened with these flags (hexadecimal) is made or emptied."""
    try:
        return bool(int(str(flags), 16) & _MAKING)
    except ValueError:
        return False


# -------------------------------------------------------------------------------------------- arguments


def arguments(record: bytes) -> list[str]:
    """The arguments of the EXECVE records of an event, those that were split put together."""
    parts: dict[int, list[bytes]] = {}
    for line in record.split(b"\n"):
        if _EXECVE.search(line):
            for word in _WORD.finditer(line.partition(b"\x1d")[0]):
                parts.setdefault(int(word[1]), []).append(_text(word[3]))
    return [decode(b"".join(parts[place])) for place in sorted(parts)]


def command_line(block: bytes, start: int, end: int) -> str:
    """The arguments of an event, `block[start:end]`, with spaces between them."""
    begin = block.find(b"type=EXECVE ", start, end)
    stop = block.find(b"\n", begin, end)
    line = block[begin : stop if stop >= 0 else end]
    # Arguments that were split are told by their length; those of one event may fill several records.
    if b"_len=" not in line and (stop < 0 or block.find(b"type=EXECVE ", stop, end) < 0):
        return decode(b" ".join([quoted or (_text(bare) if bare else b"") for quoted, bare in _EITHER.findall(line)]))
    return " ".join(arguments(block[start:end]))


def hidden(record: bytes) -> list[str]:
    """Texts that an event has in hexadecimal."""
    return [decode(text) for text in hidden_in(record, 0, len(record))]


def hidden_in(block: bytes, start: int, end: int) -> list[bytes]:
    """The same, of `block[start:end]`, as bytes."""
    found = _HIDDEN.finditer(block, start, end)
    return [bytes.fromhex(text[2].decode()).replace(b"\0", b" ") for text in found]


# ------------------------------------------------------------------------------------------------ paths


def is_absolute(value: Value) -> bool:
    """Whether a value is one path from the root on, or none that could be made one."""
    return isinstance(value, str) and value.startswith("/")


def absolute(value: Value, folder: Value) -> Value:
    """Paths as seen from the root; relative ones stand in `folder`."""
    if isinstance(value, tuple):
        return tuple(str(absolute(one, folder)) for one in value)
    if not isinstance(value, str) or value.startswith(("/", "(")) or not isinstance(folder, str):
        return value
    return f"{folder.rstrip('/')}/{value.removeprefix('./')}"


# ---------------------------------------------------------------------------------------------- sockets


def socket_address(word: bytes) -> dict[str, Value | None]:
    """Address and port of a `saddr=` (struct sockaddr in hexadecimal); None where it is of another family."""
    nothing: dict[str, Value | None] = {"ip": None, "port": None}
    if not _HEX.fullmatch(word):
        return nothing
    raw = bytes.fromhex(word.decode())
    family = raw[0] | raw[1] << 8 if len(raw) > 1 else 0
    if family == 2 and len(raw) >= 8:
        return {"ip": ".".join(map(str, raw[4:8])), "port": int.from_bytes(raw[2:4], "big")}
    if family == 10 and len(raw) >= 24:
        return {"ip": canonical(str(IPv6Address(raw[8:24]))), "port": int.from_bytes(raw[2:4], "big")}
    return nothing
