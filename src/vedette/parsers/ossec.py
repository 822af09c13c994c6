"""Records as OSSEC and Wazuh see them: the header cut off their way, the decoder that knows the text, its fields.
Counterpart: `ossec_decoders` reads the decoders; `ossec_fields` hands the outcome to tables as columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from vedette.parsers.ossec_decoders import Decoder, DecoderTable, First, Nulls, Offset

_VALID = r"[A-Za-z0-9_./()@*-]"
_DATE = re.compile(
    r"(?:.{3} .{2} .{2}:.{2}:.{2} "
    r"|\S{4}-\S{2}-\S{2} \S{2}:\S{2}:\S{2},\S{3}"
    r"|\S{4}-\S{2}-\S{2} \S{2}:\S{2}:\S{2}\.\S{6}[+-]\S{4} "
    r"|\S{4}-\S{2}-\S{2}T\S{2}:\S{2}:\S{2}(?:[.,]\S{1,6})?[+-]\S{2}:\S{2} "
    r"|\S{4}-\S{2}-\S{2}T\S{2}:\S{2}:\S{2}(?:[.,]\S{1,6})?Z "
    r"|[0-9]\S{3} \S{3} .{2} \S{2}:\S{2}:\S{2} "
    r"|[0-9]\S{3}:\S{2}:\S{2}-\S{2}:\S{2}:\S{2} ?) ?",
    re.DOTALL,
)
# A line of OSSEC's own archive: what came before is of the server that wrote it.
_ARCHIVED = re.compile(r"[0-9]{4} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} (?:\([^)]*\) )?\S+->\S+ ", re.ASCII)
_HOST = re.compile(rf"({_VALID}*)(: | )", re.ASCII)
_PROGRAM = re.compile(rf"({_VALID}*)(?:: |\[[0-9]+\](?:: | ))", re.ASCII)
# A program that glues its message to the brackets, as some senders do.
_GLUED = re.compile(rf"({_VALID}+)\[[0-9]+\]:", re.ASCII)
_AIX = re.compile(rf"{_VALID}*\|[a-z][A-Za-z0-9]*:[A-Za-z0-9]* ({_VALID}*)(?:: |\[[0-9]+\]: )", re.ASCII)
_SOLARIS_ID = re.compile(r"\[ID .*?\] ", re.DOTALL)
_XFERLOG = re.compile(r".{3} .{3} .{2} .{2}:.{2}:.{2} .{4} .\s", re.DOTALL)
_SNORT = re.compile(r".{2}/.{2}-.{2}:.{2}:.{2}\..{6} ", re.DOTALL)
_SURICATA = re.compile(r".{2}/.{2}/.{4}-.{2}:.{2}:.{2}\..{6} ", re.DOTALL)
_APACHE = re.compile(r"\[.{3} .{3} .{2} .{2}:.{2}:.{2} .{4}\]", re.DOTALL)
_ASL = re.compile(r"\[T.{3} .{4}\..{2}\..{2} .{2}:.{2}", re.DOTALL)
_CONTROL = dict.fromkeys((*range(9), *range(11, 32), 127))


@dataclass(frozen=True, slots=True)
class Cut:
    """A record without its header. host, program: None where it names none."""

    host: str | None
    program: str | None
    log: str


def printable(text: str) -> str:
    """A line without control characters."""
    return text if text.isprintable() else text.translate(_CONTROL)


def cut_header(text: str) -> Cut:
    """What OSSEC's pre-decoding leaves of a line."""
    if date := _DATE.match(text):
        return _after_date(text, date.end())
    if _XFERLOG.match(text):
        return Cut(None, None, text[24:].removeprefix(" "))
    if _SNORT.match(text):
        return Cut(None, None, text[23:])
    if _SURICATA.match(text):
        return Cut(None, None, text[28:])
    if _APACHE.match(text):
        return Cut(None, None, text[27:].removeprefix(" "))
    if _ASL.match(text):
        return _asl(text)
    return Cut(None, None, text)


def _after_date(text: str, at: int) -> Cut:
    host = _HOST.match(text, at)
    if host is None:
        return Cut(None, None, text[at:])
    if host[2] == ": ":
        # Solaris leaves the host out.
        return Cut(None, host[1], _without_id(text[host.end() :]))
    at = host.end()
    program = _PROGRAM.match(text, at) or _GLUED.match(text, at) or _AIX.match(text, at)
    if program is None:
        return Cut(host[1], None, text[at:])
    return Cut(host[1], program[1], _without_id(text[program.end() :]))


def _without_id(log: str) -> str:
    found = _SOLARIS_ID.match(log)
    return log[found.end() :] if found else log


def _asl(text: str) -> Cut:
    log: str | None = None
    host = program = None
    for name, value in re.findall(r"\[(Sender|Message|Host) ([^\]]*)\]", text[25:]):
        if name == "Sender" and program is None:
            program = value
        elif name == "Message" and log is None:
            log = value
        elif name == "Host":
            host = value
            break
    return Cut(host, program, text[25:] if log is None else log)


@dataclass(slots=True)
class Decoded:
    """What is known of a record. decoder: "" where none knows it. first: what is new when it is seen first."""

    cut: Cut
    decoder: str = ""
    category: str = "syslog"
    fields: dict[str, str] = field(default_factory=dict)
    first: str = ""


class _Roots:
    """Decoders without parents, the first of which that matches has a record to itself."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self.decoders = decoders
        self.first = First([one.prematch for one in decoders])


class _Children:
    """The children of one decoder. Of siblings of one name only the first is asked; the others go on from it."""

    def __init__(self, root: Decoder) -> None:
        self._children = root.children
        self._heads: list[int] = []
        place = 0
        while place < len(root.children):
            self._heads.append(place)
            while root.children[place].more and place + 1 < len(root.children):
                place += 1
            place += 1
        self._after = any(root.children[at].prematch_offset is Offset.AFTER_PARENT for at in self._heads)
        self._first = First([root.children[at].prematch for at in self._heads])

    def first(self, log: str, parent_end: int) -> int:
        """The place of the child that matches; -1 where none does."""
        if not parent_end or not self._after:
            found = self._first(log)
            return self._heads[found] if found >= 0 else -1
        for place in self._heads:
            child = self._children[place]
            if child.prematch is None:
                return place
            text = log[parent_end:] if child.prematch_offset is Offset.AFTER_PARENT else log
            if child.prematch.find(text) is not None:
                return place
        return -1


class OssecDecoder:
    """Runs a table of decoders. Pure: what was decoded before changes nothing."""

    def __init__(self, table: DecoderTable) -> None:
        self._unnamed = _Roots(table.unnamed)
        self._table = table
        self._by_program: dict[str, _Roots] = {}
        self._below = {id(root): _Children(root) for root in (*table.named, *table.unnamed) if root.children}

    def decode(self, text: str, location: str = "") -> Decoded:
        """A whole line."""
        text = printable(text)
        return self.decode_archived(text, self.decode_cut(cut_header(text), location), location)

    def decode_archived(self, text: str, out: Decoded, location: str) -> Decoded:
        """`out`; a line that no decoder knows as it was archived is decoded as the agent sent it."""
        if not out.decoder and (archived := _ARCHIVED.match(text)):
            return self.decode_cut(cut_header(text[archived.end() :]), location)
        return out

    def decode_cut(self, cut: Cut, location: str = "") -> Decoded:
        """A record whose header was cut off."""
        out = Decoded(cut)
        roots = self._roots(cut.program)
        place = roots.first(cut.log)
        if place < 0:
            return out
        root = roots.decoders[place]
        after = 0
        if root.prematch is not None:
            found = root.prematch.find(cut.log)
            after = found[0] if found else 0
        known = self._inside(root, cut.log, after, out)
        if known.fts:
            values = {**out.fields, "name": out.decoder, "location": location}
            out.first = json.dumps([out.decoder, *(values.get(name) for name in known.fts)])
        return out

    def _roots(self, program: str | None) -> _Roots:
        if program is None:
            return self._unnamed
        roots = self._by_program.get(program)
        if roots is None:
            if len(self._by_program) > 1000:
                self._by_program.clear()
            roots = self._by_program[program] = _Roots(
                [one for one in self._table.named if one.program and one.program.find(program) is not None]
            )
        return roots

    def _inside(self, root: Decoder, log: str, parent_end: int, out: Decoded) -> Decoder:
        """Find the decoder below `root` and what it finds; the one that the record is said to be decoded by."""
        out.decoder, out.category = root.shown, root.category
        if not root.children:
            self._extract(root, root, -1, log, parent_end, parent_end, out)
            return root
        below = self._below[id(root)]
        place = below.first(log, parent_end)
        if place < 0:
            return root
        chosen, known, after = root.children[place], root, parent_end
        if chosen.prematch is not None:
            known = chosen
            begin = parent_end if chosen.prematch_offset is Offset.AFTER_PARENT else 0
            if chosen.regex_offset is not Offset.BEGINNING or chosen.plugin:
                found = chosen.prematch.find(log[begin:] if begin else log)
                after = begin + found[0] if found else begin
            out.decoder = chosen.shown
            if chosen.category != "syslog":
                out.category = chosen.category
        self._extract(root, chosen, place, log, parent_end, after, out)
        return known

    def _extract(
        self, root: Decoder, chosen: Decoder, place: int, log: str, parent_end: int, after: int, out: Decoded
    ) -> None:
        last = -1
        while True:
            if chosen.plugin:
                begin = parent_end if chosen.plugin_offset is Offset.AFTER_PARENT else after
                plugin = PLUGINS.get(chosen.plugin)
                if plugin is not None:
                    plugin(log if chosen.plugin_offset is Offset.BEGINNING else log[begin:], chosen, out)
            elif chosen.regex is None:
                return
            else:
                begin = 0
                if chosen.regex_offset is Offset.AFTER_PARENT:
                    begin = parent_end
                elif chosen.regex_offset is Offset.AFTER_PREMATCH:
                    begin = after
                elif chosen.regex_offset is Offset.AFTER_REGEX:
                    begin = last if last >= 0 else after
                found = chosen.regex.find(log[begin:] if begin else log)
                if found is not None:
                    last = begin + found[0]
                    out.fields.update(zip(chosen.order, found[1], strict=False))
                elif not chosen.more:
                    return
            if not chosen.more:
                return
            # The siblings of one name go on with one another, whatever stands between them.
            place = next(at for at in range(place + 1, len(root.children)) if root.children[at].name == chosen.name)
            chosen = root.children[place]


# ------------------------------------------------------------------------------------------------------ plug-ins


def _json(text: str, decoder: Decoder, out: Decoded) -> None:
    begin = text.find("{")
    if begin < 0:
        return
    try:
        value, _end = json.JSONDecoder().raw_decode(text[begin:])
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict):
        _flatten(value, "", decoder.nulls, out.fields, 0)


def _flatten(value: Mapping[str, object], prefix: str, nulls: Nulls, fields: dict[str, str], depth: int) -> None:
    if depth > 20:
        return
    for key, one in value.items():
        name = f"{prefix}{key}".lower()
        if isinstance(one, dict):
            _flatten(one, f"{name}.", nulls, fields, depth + 1)
        elif one is None:
            if nulls is not Nulls.LEFT_OUT:
                fields[name] = "null" if nulls is Nulls.TEXT else ""
        elif isinstance(one, bool):
            fields[name] = "true" if one else "false"
        elif isinstance(one, float):
            fields[name] = f"{one:f}"
        elif isinstance(one, list):
            fields[name] = json.dumps(one, ensure_ascii=False, separators=(",", ":"))
        else:
            fields[name] = str(one)
    if not prefix and "user" in fields:
        fields["dstuser"] = fields.pop("user")


_PF = re.compile(
    r"\((\w+)\)?: (\w+) \w+ on [^:]+: .*?([0-9.]+)\.([0-9]+) > ([0-9.]+)\.([0-9]+):|"
    r"\((\w+)\)?: (\w+) \w+ on [^:]+: .*?([0-9.]+) > ([0-9.]+): *(icmp)?"
)


def _pf(text: str, _decoder: Decoder, out: Decoded) -> None:
    found = _PF.search(text)
    if found is None:
        return
    if found[2]:
        values = zip(("srcip", "srcport", "dstip", "dstport"), found.groups()[2:6], strict=True)
        action = found[2]
    else:
        values = zip(("srcip", "dstip"), found.groups()[8:10], strict=True)
        action = found[8]
    out.fields.update((name, str(value)) for name, value in values)
    out.fields["action"] = "drop" if action == "block" else action


_SONIC = re.compile(r" (?:(m|pri|c)=([0-9]+)|(src|dst)=([0-9.]+):?([0-9]*)|proto=(\S+?)(?:/|\s|$)|sid=([0-9]+))")


def _sonicwall(text: str, _decoder: Decoder, out: Decoded) -> None:
    category = ""
    for kind, number, side, address, port, protocol, _sid in _SONIC.findall(text):
        if kind == "pri":
            out.fields["status"] = number
        elif kind == "m":
            out.fields["id"] = number
        elif kind == "c":
            category = number
        elif side:
            out.fields[f"{side}ip"] = address
            if port:
                out.fields[f"{side}port"] = port
        elif protocol:
            out.fields["protocol"] = protocol
    if category == "32":
        out.category, out.fields["action"] = "ids", "drop"
    elif category in ("1024", "4096"):
        out.category = "firewall"
        out.fields["action"] = "close" if category == "1024" else "pass"


PLUGINS = {"JSON_Decoder": _json, "PF_Decoder": _pf, "SonicWall_Decoder": _sonicwall}
"""Decoders that are programs. Of others (OSSECAlert_Decoder, SymantecWS_Decoder) the text is known, without fields."""
