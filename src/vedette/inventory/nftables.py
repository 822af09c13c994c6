"""A ruleset as `nft -j list ruleset` prints it, read into the model of `rulesets`.
Counterpart: `verdicts` asks what it does with a connection; what is not understood here is never guessed there."""

# libnftables-json(5); nft(8).
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import orjson

from vedette.inventory.nftables_text import rendered
from vedette.inventory.rulesets import (
    ALL,
    AnyOf,
    Base,
    Chain,
    Condition,
    Field,
    Hook,
    Known,
    Named,
    Numbered,
    Rule,
    Ruleset,
    Spans,
    Table,
    Unread,
    Verb,
    address_span,
    spans,
)
from vedette.model.errors import ConfigError, Location

_ADDRESSES = frozenset((family, which) for family in ("ip", "ip6") for which in ("saddr", "daddr"))
HINT = "write the file with `nft -j list ruleset`"
_HOOKS = {
    "ingress": Hook.INGRESS,
    "prerouting": Hook.PREROUTING,
    "input": Hook.INPUT,
    "forward": Hook.FORWARD,
}
_VERBS = {
    "accept": Verb.ACCEPT,
    "drop": Verb.DROP,
    "reject": Verb.REJECT,
    "return": Verb.RETURN,
    "continue": Verb.NOTHING,
    "snat": Verb.ACCEPT,
    "masquerade": Verb.ACCEPT,
    "queue": Verb.UNREAD,
    "tproxy": Verb.UNREAD,
    "synproxy": Verb.UNREAD,
    "fwd": Verb.UNREAD,
}
_SILENT = frozenset(
    (
        "counter", "log", "mangle", "notrack", "dup", "flow", "ct helper", "ct timeout", "ct expectation", "secmark",
        "last", "comment",
    )
)  # fmt: skip
"""Statements that change nothing about where the packet goes."""
_SILENT_TARGETS = frozenset(("LOG", "NFLOG", "TRACE", "CHECKSUM", "TCPMSS", "MARK", "CONNMARK"))
_PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp", 58: "ipv6-icmp", 132: "sctp"}
_OF_PROTOCOL = {"icmpv6": "ipv6-icmp"}
_TRANSPORTS = frozenset(("tcp", "udp", "sctp", "dccp", "udplite", "icmp", "icmpv6", "esp", "ah", "comp", "igmp"))
_NAMED_FIELDS = {
    "l4proto": Field.PROTOCOL,
    "iif": Field.INPUT_DEVICE,
    "iifname": Field.INPUT_DEVICE,
    "oif": Field.OUTPUT_DEVICE,
    "oifname": Field.OUTPUT_DEVICE,
}
_FAMILIES = {"ipv4": "ip", "ipv6": "ip6", "ip": "ip", "ip6": "ip6"}
_REJECTS = {"icmp": "ip", "icmpv6": "ip6"}
_NEW_FLAGS = frozenset(("syn",))


def parse_nftables(raw: bytes, origin: str) -> Ruleset:
    """The ruleset in what `nft -j list ruleset` printed; ConfigError where it is something else."""
    try:
        listed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"is no JSON: {error}", location=Location(origin, error.lineno), hint=HINT) from None
    objects = listed.get("nftables") if isinstance(listed, dict) else None
    if not isinstance(objects, list):
        raise ConfigError("is no ruleset of nftables: it has no list `nftables`", location=Location(origin), hint=HINT)
    reader = _Reader()
    try:
        tables = tuple(reader.tables([one for one in objects if isinstance(one, dict)]))
        return Ruleset(tables, origin, marks=reader.marks)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        words = f"is no ruleset of nftables: {type(error).__name__} {error}"
        raise ConfigError(words, location=Location(origin), hint=HINT) from None


@dataclass(slots=True)
class _Reader:
    """sets: elements of named sets and maps, by family, table and name. family, table: where we are. foreign: tables
    with rules that iptables wrote."""

    sets: dict[tuple[str, str, str], list[Any]] = field(default_factory=dict)
    family: str = ""
    table: str = ""
    marks: bool = False
    foreign: set[tuple[str, str]] = field(default_factory=set)

    def tables(self, objects: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
        rules: dict[tuple[str, str, str], list[Rule]] = {}
        chains: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        tables: list[tuple[str, str]] = []
        for one in objects:
            if (table := one.get("table")) and "dormant" not in table.get("flags", ()):
                tables.append((table["family"], table["name"]))
            elif chain := one.get("chain"):
                chains.setdefault((chain["family"], chain["table"]), []).append(chain)
            elif listed := one.get("set") or one.get("map"):
                self.sets[listed["family"], listed["table"], listed["name"]] = list(listed.get("elem", ()))
            elif added := one.get("element"):
                self.sets.setdefault((added["family"], added["table"], added["name"]), []).extend(added["elem"])
        for one in objects:
            if rule := one.get("rule"):
                self.family, self.table = rule["family"], rule["table"]
                rules.setdefault((self.family, self.table, rule["chain"]), []).extend(self._rules(rule))
        for family, name in tables:
            made = {
                chain["name"]: Chain(chain["name"], tuple(rules.get((family, name, chain["name"]), ())), _base(chain))
                for chain in chains.get((family, name), ())
            }
            yield Table(family, name, made, "iptables" if (family, name) in self.foreign else "nft")

    def _rules(self, rule: Mapping[str, Any]) -> Iterator[Rule]:
        """One rule as one or, where it looks verdicts up in a map, as several."""
        start = f"{self.family} {self.table} {rule['chain']}: "
        comment = f' comment "{rule["comment"]}"' if rule.get("comment") else ""
        conditions: list[Condition] = []
        said: list[str] = []
        for statement in rule.get("expr", ()):
            if not isinstance(statement, dict) or len(statement) != 1:
                conditions.append(Unread(rendered(statement)))
                said.append(rendered(statement))
                continue
            ((kind, value),) = statement.items()
            if kind == "xt":
                self.foreign.add((self.family, self.table))
            if kind in _SILENT:
                self.marks = self.marks or (kind == "mangle" and _is_mark(value.get("key")))
                continue
            if kind == "vmap":
                for condition, verdict, shown in self._looked_up(value):
                    text = start + " ".join([*said, shown]) + comment
                    yield from self._verdict(verdict, (*conditions, *condition), text)
                continue
            said.append(rendered(statement))
            found = list(self._verdict(statement, tuple(conditions), start + " ".join(said) + comment))
            if found:
                yield from found
                return
            conditions += self._conditions(kind, value)

    def _looked_up(self, vmap: Mapping[str, Any]) -> Iterator[tuple[list[Condition], Mapping[str, Any], str]]:
        entries = self._elements(vmap["data"])
        if entries is None:
            yield [Unread(rendered(vmap["data"]))], {"queue": None}, rendered({"vmap": vmap})
            return
        for entry in entries:
            key, verdict = entry
            # An element of a map may carry a timeout or comment of its own around it.
            key = key["elem"]["val"] if isinstance(key, dict) and "elem" in key else key
            yield (
                self._match(vmap["key"], "==", key),
                verdict,
                f"{rendered(vmap['key'])} {rendered(key)} {rendered(verdict)}",
            )

    def _verdict(self, statement: Mapping[str, Any], conditions: tuple[Condition, ...], text: str) -> Iterator[Rule]:
        ((kind, value),) = statement.items()
        if kind in ("jump", "goto"):
            yield Rule(conditions, Verb(kind), text, chain=str(value["target"]))
        elif kind in ("dnat", "redirect"):
            yield from self._translation(value or {}, conditions, text)
        elif kind == "xt" and (not isinstance(value, dict) or value.get("type") == "target"):
            name = value.get("name") if isinstance(value, dict) else None
            self.marks = self.marks or name in ("MARK", "CONNMARK")
            if name not in _SILENT_TARGETS:
                yield Rule(conditions, Verb.UNREAD, text)
        elif kind in _VERBS and _VERBS[kind] is not Verb.NOTHING:
            if kind == "reject" and isinstance(value, dict) and value.get("type") in _REJECTS:
                # nft leaves a comparison out of its listing that the way of refusing implies.
                conditions = (*conditions, Named(Field.FAMILY, frozenset((_REJECTS[value["type"]],))))
            yield Rule(conditions, _VERBS[kind], text)

    def _translation(self, value: Mapping[str, Any], conditions: tuple[Condition, ...], text: str) -> Iterator[Rule]:
        address, port = value.get("addr", ""), value.get("port", 0)
        if value.get("family") in ("ip", "ip6"):
            conditions = (*conditions, Named(Field.FAMILY, frozenset((value["family"],))))
        if isinstance(address, dict) and "map" in address and not port:
            entries = self._elements(address["map"]["data"])
            if entries is not None:
                for key, target in entries:
                    met = (*conditions, *self._match(address["map"]["key"], "==", key))
                    to = target["concat"] if isinstance(target, dict) and "concat" in target else [target, 0]
                    yield self._translated(met, to[0], to[1], text)
                return
        yield self._translated(conditions, address, port, text)

    def _translated(self, conditions: tuple[Condition, ...], address: Any, port: Any, text: str) -> Rule:
        known = isinstance(address, str) and (not address or address_span(address) is not None) and "-" not in address
        if not known or not isinstance(port, int):
            return Rule(conditions, Verb.UNREAD, text)
        return Rule(conditions, Verb.TRANSLATE, text, address=address, port=port)

    def _conditions(self, kind: str, value: Any) -> list[Condition]:
        match kind:
            case "match":
                return self._match(value["left"], value["op"], value["right"])
            case "limit" | "ct count":
                # One connection of a stranger stays within any limit there is.
                return [Known(not (isinstance(value, dict) and value.get("inv")))]
            case "set" | "meter":
                inner = value.get("stmt")
                found = inner if isinstance(inner, list) else [inner] if isinstance(inner, dict) else []
                out: list[Condition] = []
                for one in found:
                    ((name, said),) = one.items()
                    out += [] if name in _SILENT else self._conditions(name, said)
                return out
            case "xt" if isinstance(value, dict) and value.get("name") == "comment":
                return []
            case _:
                return [] if kind in _VERBS else [Unread(rendered({kind: value}))]

    def _match(self, left: Any, operator: str, right: Any) -> list[Condition]:
        """A comparison as conditions that must all hold."""
        unread: list[Condition] = [Unread(f"{rendered(left)} {operator} {rendered(right)}")]
        if not isinstance(left, dict) or len(left) != 1:
            return unread
        if "&" in left:
            return self._masked(left["&"], operator, right) or unread
        elements = self._elements(right)
        if elements is None:
            return unread
        if operator in ("<", ">", "<=", ">="):
            if len(elements) != 1 or not isinstance(elements[0], int):
                return unread
            elements, operator = [_beyond(operator, elements[0])], "=="
        if operator not in ("==", "!=", "in"):
            return unread
        negated = operator == "!="
        if "concat" in left:
            parts = left["concat"]
            rows = []
            for element in elements:
                values = element.get("concat") if isinstance(element, dict) else None
                if not isinstance(values, list) or len(values) != len(parts):
                    return unread
                rows.append(
                    tuple(
                        one for part, said in zip(parts, values, strict=True) for one in self._match(part, "==", said)
                    )
                )
            needed = [one for part in parts for one in _implied(part)]
            return [*needed, AnyOf(tuple(rows), negated)]
        read = _read(left, elements, negated)
        return unread if read is None else [*_implied(left), read]

    def _masked(self, parts: Any, operator: str, right: Any) -> list[Condition] | None:
        """`tcp flags & (fin|syn|rst|ack) == syn`: a first packet has syn alone; no mark is none under any mask.

        `ip6 saddr & ffff:ffff:ffff:ffff:: == @set`: a prefix in place of each address of the set.
        """
        if not isinstance(parts, list) or len(parts) != 2:
            return None
        left, mask = parts
        if _kind(left) in _ADDRESSES:
            length, elements = _length(mask), self._elements(right)
            if length is None or elements is None or not all(isinstance(one, str) for one in elements):
                return None
            # As hash sets of prefixes are asked, our own among them.
            prefixes = [{"prefix": {"addr": one, "len": length}} for one in elements]
            return self._match(left, operator, {"set": prefixes})
        if _is_mark(left):
            values = _numbers(self._elements(right) or ["?"])
            return None if values is None else [Numbered(Field.MARK, values, operator == "!=")]
        if _kind(left) != ("tcp", "flags"):
            return None
        masked, wanted = _flags(mask), _flags(right)
        if masked is None or wanted is None or operator not in ("==", "!="):
            return None
        return [*_implied(left), Known((_NEW_FLAGS & masked == wanted) == (operator == "=="))]

    def _elements(self, right: Any) -> list[Any] | None:
        """What a right side may be equal to, one by one; None where that cannot be told."""
        if isinstance(right, str) and right.startswith("@"):
            found = self.sets.get((self.family, self.table, right[1:]))
            return None if found is None else [_bare(one) for one in found]
        if isinstance(right, dict) and "set" in right:
            inside = right["set"]
            return [_bare(one) for one in inside] if isinstance(inside, list) else self._elements(inside)
        if isinstance(right, dict) and "|" in right:
            return list(right["|"])
        return list(right) if isinstance(right, list) else [_bare(right)]


def _bare(element: Any) -> Any:
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def _beyond(operator: str, number: int) -> Any:
    match operator:
        case "<":
            return {"range": [0, number - 1]}
        case "<=":
            return {"range": [0, number]}
        case ">":
            return {"range": [number + 1, 2**32 - 1]}
        case _:
            return {"range": [number, 2**32 - 1]}


def _base(chain: Mapping[str, Any]) -> Base | None:
    if "hook" not in chain:
        return None
    devices = chain.get("dev", ())
    return Base(
        _HOOKS.get(chain["hook"], Hook.OTHER),
        int(chain.get("prio", 0)),
        chain.get("type", "filter"),
        chain.get("policy", "accept") == "accept",
        frozenset([devices] if isinstance(devices, str) else devices),
    )


def _kind(left: Any) -> tuple[str, str]:
    payload = left.get("payload") if isinstance(left, dict) else None
    return (payload.get("protocol", ""), payload.get("field", "")) if isinstance(payload, dict) else ("", "")


def _length(mask: Any) -> int | None:
    """The length of the prefix that a mask stands for, None where it stands for none."""
    try:
        address = ip_address(mask)
    except ValueError:
        return None
    inverted = int(address) ^ ((1 << address.max_prefixlen) - 1)
    return None if inverted & (inverted + 1) else address.max_prefixlen - inverted.bit_length()


def _is_mark(left: Any) -> bool:
    """Whether it is the mark of a packet or its connection."""
    inner = next(iter(left.values()), None) if isinstance(left, dict) else None
    return isinstance(inner, dict) and inner.get("key") == "mark" and "dir" not in inner


def _implied(left: Any) -> list[Condition]:
    """What must hold for a packet to have such a field at all, negated comparison or not."""
    protocol, _ = _kind(left)
    if protocol in ("ip", "ip6"):
        return [Named(Field.FAMILY, frozenset((protocol,)))]
    if protocol in _TRANSPORTS:
        return [Named(Field.PROTOCOL, frozenset((_OF_PROTOCOL.get(protocol, protocol),)))]
    return []


def _flags(value: Any) -> frozenset[str] | None:
    if isinstance(value, dict) and "|" in value:
        value = value["|"]
    if value == 0:
        return frozenset()
    if isinstance(value, str):
        return frozenset((value,))
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return frozenset(value)
    return None


def _read(left: Mapping[str, Any], elements: Sequence[Any], negated: bool) -> Condition | None:
    """The comparison of one field with some values; None where it is not understood."""
    ((kind, value),) = left.items()
    if _is_mark(left):
        values = _numbers(elements)
        return None if values is None else Numbered(Field.MARK, values, negated)
    if kind == "payload":
        return _payload(_kind(left), elements, negated)
    if not isinstance(value, dict):
        return None
    key = value.get("key")
    if kind == "meta":
        if key in _NAMED_FIELDS:
            return _names(_NAMED_FIELDS[key], elements, negated)
        if key in ("nfproto", "protocol"):
            families = [_FAMILIES.get(one, "other") if isinstance(one, str) else "other" for one in elements]
            return Named(Field.FAMILY, frozenset(families), negated)
        if key == "pkttype":
            return Known(("host" in elements or "unicast" in elements) != negated)
        return None
    if kind == "ct" and "dir" not in value:
        if key in ("state", "status"):
            return _names(Field(key), elements, negated)
        return Known(("original" in elements) != negated) if key == "direction" else None
    if kind == "fib":
        flags = value.get("flags")
        flags = {flags} if isinstance(flags, str) else set(flags or ())
        if value.get("result") == "type" and "daddr" in flags:
            return _names(Field.DESTINATION_TYPE, elements, negated)
        if value.get("result") in ("oif", "oifname") and "saddr" in flags:
            # The reverse path filter: a stranger who can be answered has a way back.
            missing = all(one in (False, 0, "") for one in elements)
            return Known(missing == negated) if missing else None
    return None


def _payload(kind: tuple[str, str], elements: Sequence[Any], negated: bool) -> Condition | None:
    match kind:
        case ("ip" | "ip6" as family, "saddr" | "daddr" as which):
            version = 4 if family == "ip" else 6
            found = _addresses(elements, version)
            where = Field.SOURCE if which == "saddr" else Field.DESTINATION
            return None if found is None else Numbered(where, found, negated, version)
        case ("tcp" | "udp" | "th", "dport" | "sport" as which):
            ports = _numbers(elements)
            where = Field.DESTINATION_PORT if which == "dport" else Field.SOURCE_PORT
            return None if ports is None else Numbered(where, ports, negated)
        case ("ip", "protocol") | ("ip6", "nexthdr"):
            return _names(Field.PROTOCOL, elements, negated)
        case ("tcp", "flags"):
            wanted = _flags(list(elements))
            return None if wanted is None else Known(("syn" in wanted) != negated)
        case (protocol, _) if protocol in _TRANSPORTS and protocol not in ("tcp", "udp"):
            return Known(False)  # what is asked about is TCP or UDP
        case _:
            return None


def _names(where: Field, elements: Sequence[Any], negated: bool) -> Condition | None:
    out = set()
    for one in elements:
        if isinstance(one, int) and where is Field.PROTOCOL:
            out.add(_PROTOCOLS.get(one, str(one)))
        elif isinstance(one, str):
            out.add(_OF_PROTOCOL.get(one, one))
        else:
            return None
    return Named(where, frozenset(out), negated)


def _numbers(elements: Iterable[Any]) -> Spans | None:
    out = []
    for one in elements:
        pair = one.get("range") if isinstance(one, dict) else [0, 2**32 - 1] if one == "*" else [one, one]
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(end, int) for end in pair):
            return None
        out.append((pair[0], pair[1]))
    return spans(out)


def _addresses(elements: Iterable[Any], version: int) -> Spans | None:
    out = []
    for one in elements:
        if one == "*":
            return ALL[version]
        if isinstance(one, dict) and isinstance(one.get("prefix"), dict):
            one = f"{one['prefix'].get('addr')}/{one['prefix'].get('len')}"
        elif isinstance(one, dict) and isinstance(one.get("range"), list):
            one = "-".join(str(end) for end in one["range"])
        found = address_span(one) if isinstance(one, str) else None
        if found is None or found[0] != version:
            return None
        out.append(found[1])
    return spans(out)
