"""Which bytes must occur in a record for a query to hold on it: what the lake looks for before anything is parsed.
Counterpart: `store.lake.reader` scans for them; `app.search` has the candidates confirmed by parsers and matcher."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network

from vedette.detections.atoms import like_runs, regex_atoms
from vedette.detections.predicates import as_text
from vedette.model.batch import RecordFormat
from vedette.model.fields import FIELDS
from vedette.model.rules import All, Any, Node, Op, Raw, Test
from vedette.store.lake.reader import Literal
from vedette.text.addresses import parse_network

Group = tuple[Literal, ...]
"""Alternatives, one of which must occur."""

VERBATIM = frozenset({"event.original", "message", "user.name", "file.path", "process.command_line"})
"""Fields whose text stands in the record as it is, or as JSON or Linux audit write it there."""

_SHORTEST, _MOST = 3, 16
# What no JSON writer escapes; the words between other characters are looked for one by one.
_RUN = re.compile(r"[A-Za-z0-9_.:@+-]+")
_PLAIN = {Op.EQUALS, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH, Op.LIKE}


def literals_of(node: Node) -> tuple[Group, ...]:
    """Groups of which one literal each must occur in every record that satisfies `node`; () = none is known.

    Letters are looked for in ASCII's two cases. Characters beyond ASCII that only fold to an ASCII letter (the Kelvin
    sign) stand for none here, and Linux audit's hexadecimal values for text in one case, or capitalised.
    """
    return tuple(dict.fromkeys(_groups(node)))


def _groups(node: Node) -> list[Group]:
    match node:
        case All(parts):
            return [group for part in parts for group in _groups(part)]
        case Any(parts):
            return _either([_groups(part) for part in parts])
        case Test():
            return _of_test(node)
        case Raw():
            return _of_regex(node.pattern) if node.regex else _of_texts(like_runs(node.pattern))
    return []


def _either(found: list[list[Group]]) -> list[Group]:
    """What must occur where one of several conditions holds."""
    if not found or not all(found):
        return []
    common = [group for group in found[0] if all(group in others for others in found[1:])]
    if common:
        return common
    best = [max(groups, key=lambda group: min(len(one.text) for one in group)) for groups in found]
    joined = tuple(dict.fromkeys(literal for group in best for literal in group))
    return [joined] if len(joined) <= 4 * _MOST else []


def _of_test(test: Test) -> list[Group]:
    if test.part is not None:
        return []
    if test.field in ("source.ip", "destination.ip"):
        return _either([_of_address(as_text(value)) for value in test.values]) if test.op in _ADDRESS else []
    native = test.field not in FIELDS
    if (not native and test.field not in VERBATIM) or len(test.values) > _MOST:
        return []
    texts = [as_text(value) for value in test.values]
    if native and not all(re.search("[A-Za-z]", text) for text in texts):
        return []  # a number may be written in several ways
    if test.op is Op.REGEX:
        found = [_of_regex(text) for text in texts]
    elif test.op in _PLAIN:
        found = [_of_texts(like_runs(text) if test.op is Op.LIKE else [text]) for text in texts]
    else:
        return []
    return [group for groups in found for group in groups] if test.all else _either(found)


_ADDRESS = {Op.EQUALS, Op.CIDR}


def _of_address(text: str) -> list[Group]:
    """IPv4 in decimal, mapped into IPv6, or as bytes of a socket address; IPv6 may be written in too many ways."""
    try:
        network = parse_network(text)
    except ValueError:
        return []
    if not isinstance(network, IPv4Network) or network.prefixlen < 8:
        return []
    octets = network.network_address.packed[: network.prefixlen // 8]
    decimal = ".".join(map(str, octets)) + ("." if len(octets) < 4 else "")
    return [(Literal(decimal.encode()), Literal(b"::ffff:"), _hexadecimal(octets))]


def _of_texts(texts: Iterable[str]) -> list[Group]:
    runs = [run for text in texts for run in _RUN.findall(text) if len(run) >= _SHORTEST]
    return [_alternatives(run) for run in dict.fromkeys(runs)][:_MOST]


def _of_regex(pattern: str) -> list[Group]:
    if not pattern.isascii():
        return []
    atoms = regex_atoms(pattern)
    if atoms is None or len(atoms) > _MOST or any(atom.pattern for atom in atoms):
        return []
    return _either([_of_texts([atom.text]) for atom in atoms])


def _alternatives(run: str) -> Group:
    """The word itself, and as Linux audit writes a value in which it stands beside a blank."""
    written = dict.fromkeys((run, run.lower(), run.upper(), run.capitalize()))
    return (Literal(run.encode()), *(_hexadecimal(one.encode()) for one in written))


def _hexadecimal(text: bytes) -> Literal:
    """As Linux audit, and nobody else, writes it."""
    return Literal(text.hex().upper().encode(), format=RecordFormat.AUDIT)
