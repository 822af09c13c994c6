"""Attributes of Chef in layers, merged as Chef merges them, and what they say of ports.
Counterpart: `chef` collects the layers of a host; `port_words` knows the words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import groupby
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vedette.inventory.chef_words import AttributePath, AttributeWords
from vedette.inventory.port_words import Ports, PortWords, parse_port_key, parse_range, read_openings, said_once
from vedette.model.errors import ConfigError, InventoryError, Location
from vedette.model.ports import NOBODY, Opening, PortRange, Protocol, effective
from vedette.model.reasons import InventoryReason
from vedette.text.documents import Path_
from vedette.text.escape import shorten, terminal

DEPTH_LIMIT = 16
_PORTS: TypeAdapter[Ports] = TypeAdapter(Ports)


class Precedence(IntEnum):
    """Which attribute wins: the higher one. What a node saved of its cookbooks comes right below what is so now."""

    NODE_DEFAULT = 0
    DEFAULT = 1
    NORMAL = 2
    NODE_OVERRIDE = 3
    OVERRIDE = 4
    AUTOMATIC = 5


@dataclass(frozen=True, slots=True)
class Layer:
    """Attributes of one precedence from one place. origin: `chef:role[web] default_attributes`."""

    precedence: Precedence
    origin: str
    attributes: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Said:
    """What attributes say of a host's ports."""

    openings: tuple[Opening, ...] = ()
    gateway: bool = False


def merged(layers: Sequence[Layer], path: AttributePath) -> Any:
    """The value at `path`, None where nothing stands there.

    Mappings merge key by key. Lists of one precedence unite, a list of a higher one replaces (chef: deep_merge.rb,
    node/attribute.rb). `null` says nothing. layers: by precedence, the last of one precedence wins.
    """
    out: Any = None
    for _, group in groupby(layers, key=lambda layer: layer.precedence):
        of_one: Any = None
        for layer in group:
            of_one = _merge(of_one, value_at(layer, path), unite=True, depth=0)
        out = _merge(out, of_one, unite=False, depth=0)
    return out


def value_at(layer: Layer, path: AttributePath) -> Any:
    """What `layer` has at `path`, or None; InventoryError where something on the way is no mapping."""
    value: Any = layer.attributes
    for at, key in enumerate(path):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise _wrong(f"{'.'.join(path[:at])} is not a mapping", _place(layer, path[:at]))
        value = value.get(key)
    return value


def read_said(layers: Iterable[Layer], words: AttributeWords, most: int) -> Said:
    """What `layers` say of a host's ports together; InventoryError, with the layer and path, for what cannot be meant.

    A port in a list of closed ones is open to nobody, whatever else is said of it; the mapping of ports comes
    before plain lists of open ones. most: openings.
    """
    ordered = sorted(layers, key=lambda layer: layer.precedence)
    mapping = [one for path in words.ports for one in _of_mapping(ordered, path, most)]
    opened = [one for path in words.open for one in _of_list(ordered, path, words.open_from, most)]
    closed = [one for path in words.closed for one in _of_list(ordered, path, NOBODY, most)]
    if len(mapping) + len(opened) + len(closed) > most:
        raise InventoryError(
            InventoryReason.TOO_MANY, f"more than {most} openings", hint="ranges, or `limits.openings`"
        )
    if len(words.ports) > 1:
        _checked(mapping)
    gateway = merged(ordered, words.gateway)
    if gateway is not None and not isinstance(gateway, bool):
        raise _wrong(
            f"{'.'.join(words.gateway)} is true or false", _place(_last(ordered, words.gateway), words.gateway)
        )
    return Said(effective(closed, effective(mapping, opened)), bool(gateway))


def plain_ports(items: Iterable[str | int], source: str, origin: Location) -> list[Opening]:
    """A list of ports as openings: 22, "22", "8000-8100", "53/udp"; TCP where nothing is said."""
    return [_plain(item, source, origin) for item in items]


def _of_mapping(layers: Sequence[Layer], path: AttributePath, most: int) -> tuple[Opening, ...]:
    value = merged(layers, path)
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise _wrong(f"{'.'.join(path)} is not a mapping of ports", _place(_last(layers, path), path))
    _bounded(value, most, layers, path)

    def at(rest: Path_) -> Location:
        key = str(rest[0])
        return _place(_last(layers, (*path, key)), (*path, key))

    try:
        ports = _PORTS.validate_python(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        # A key that is misspelt is also missing: the spelling is what to tell.
        first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
        inside = [str(part) for part in first["loc"][1:] if part not in ("[key]", "short", "list", "long")]
        message, _, hint = str(first["msg"]).removeprefix("Value error, ").partition(" (hint: ")
        if first["type"] == "extra_forbidden":
            message = f"is not a key that stands here; known: {', '.join(_KNOWN)}"
        elif first["type"] == "string_pattern_mismatch" and not inside:
            message, hint = f"{first['loc'][0]!r} is not a port", "write 22/tcp, 8000-8100/tcp or 53/udp"
        where = f"{'.'.join(inside)}: " if inside else ""
        raise _wrong(where + message, at(first["loc"]), hint.removesuffix(")")) from None
    try:
        return read_openings(ports, at)
    except ConfigError as error:
        raise _wrong(error.message, error.location, error.hint) from None


_KNOWN = [one.alias or name for name, one in PortWords.model_fields.items()]


def _of_list(layers: Sequence[Layer], path: AttributePath, source: str, most: int) -> list[Opening]:
    value = merged(layers, path)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(f"{'.'.join(path)} is not a list of ports", _place(_last(layers, path), path))
    _bounded(value, most, layers, path)
    return [_plain(item, source, _place(_holder(layers, path, item), path)) for item in value]


def _plain(item: Any, source: str, origin: Location) -> Opening:
    text = str(item) if isinstance(item, str | int) and not isinstance(item, bool) else ""
    try:
        span, protocol = parse_port_key(text) if "/" in text else (parse_range(text), Protocol.TCP)
    except ValueError as error:
        message, _, hint = str(error).partition(" (hint: ")
        raise _wrong(message, origin, hint.removesuffix(")")) from None
    return _opening(span, protocol, source, origin)


def _opening(span: PortRange, protocol: Protocol, source: str, origin: Location) -> Opening:
    return Opening(span, protocol, (source,), origin=origin)


def _checked(openings: Sequence[Opening]) -> None:
    try:
        said_once(openings)
    except ConfigError as error:
        raise _wrong(error.message, error.location, error.hint) from None


def _bounded(value: Sequence[Any] | Mapping[str, Any], most: int, layers: Sequence[Layer], path: AttributePath) -> None:
    if len(value) > most:
        raise InventoryError(
            InventoryReason.TOO_MANY,
            f"{len(value)} ports at {'.'.join(path)}, {most} are taken",
            location=_place(_last(layers, path), path),
            hint="ranges, or `limits.openings`",
        )


def _merge(onto: Any, value: Any, *, unite: bool, depth: int) -> Any:
    if depth > DEPTH_LIMIT:
        raise _wrong(f"nested deeper than {DEPTH_LIMIT}", None)
    if value is None:
        return onto
    if isinstance(onto, dict) and isinstance(value, dict):
        out = dict(onto)
        for key, inner in value.items():
            out[key] = _merge(out.get(key), inner, unite=unite, depth=depth + 1)
        return out
    if unite and isinstance(onto, list) and isinstance(value, list):
        return onto + [one for one in value if one not in onto]
    return value


def _last(layers: Sequence[Layer], path: tuple[str, ...]) -> Layer:
    """The layer of highest precedence that says something at `path`."""
    return next((one for one in reversed(layers) if _quiet(one, path) is not None), layers[-1])


def _holder(layers: Sequence[Layer], path: AttributePath, item: Any) -> Layer:
    """The layer of highest precedence whose list at `path` holds `item`."""

    def holds(layer: Layer) -> bool:
        value = _quiet(layer, path)
        return isinstance(value, list) and item in value

    return next((one for one in reversed(layers) if holds(one)), layers[-1])


def _quiet(layer: Layer, path: tuple[str, ...]) -> Any:
    value: Any = layer.attributes
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _place(layer: Layer, path: tuple[str, ...]) -> Location:
    return Location(".".join([layer.origin, *path]) if " " in layer.origin else f"{layer.origin} {'.'.join(path)}")


def _wrong(message: str, location: Location | None, hint: str = "") -> InventoryError:
    return InventoryError(
        InventoryReason.WRONG_WORDS,
        shorten(terminal(message), 300),
        location=Location(shorten(terminal(location.file), 300)) if location else None,
        hint=hint,
    )
