"""What is said of ports, in the words that every inventory a person writes shares: the mapping `ports:`.
Counterpart: `yaml` reads it from the policy file, `chef` from attributes; `model.ports.Opening` comes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

from vedette.model.clock import DAY
from vedette.model.errors import ConfigError, Location
from vedette.model.levels import Level
from vedette.model.ports import GATEWAYS, NOBODY, WORLD, Opening, PortRange, Protocol
from vedette.text.addresses import canonical
from vedette.text.documents import Path_
from vedette.text.times import parse_rfc3339

RESERVED = (WORLD, NOBODY, GATEWAYS)
"""Names of sources that have a meaning of their own."""
WORDS = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
"""Of every mapping that a person writes: an unknown key is an error."""
_KEY = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?/(tcp|udp)")
HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def _address(text: str) -> str:
    if canonical(text) is None:
        raise ValueError(f"{text!r} is not an address (hint: names to be resolved stand under `names`)")
    return text


def _host_name(text: str) -> str:
    if not HOST_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a host name")
    return text


def _port_key(text: str) -> str:
    parse_port_key(text)
    return text


def _until(text: str) -> str:
    parse_until(text)
    return text


def _ranges(text: str | int) -> str:
    parse_range(str(text))
    return str(text)


def _shape(value: Any) -> str:
    return "long" if isinstance(value, dict | PortWords) else "list" if isinstance(value, list) else "short"


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}$")]
Word = Annotated[str, StringConstraints(max_length=500)]
PortKey = Annotated[
    str,
    Field(
        description="22/tcp or 8000-8100/udp",
        # For editors; to a person the validator says more than that a pattern does not match.
        json_schema_extra={"pattern": r"^[0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp)$"},
    ),
    AfterValidator(_port_key),
]
PortsOf = Annotated[str | int, AfterValidator(_ranges), Field(description="22 or 1-1024")]
Address = Annotated[str, AfterValidator(_address)]
HostName = Annotated[str, AfterValidator(_host_name)]
Sources = Annotated[list[Name], Field(min_length=1)]


class PortWords(BaseModel):
    """What is said of a port: from where it may be reached, and who answers for that."""

    model_config = WORDS

    from_: Name | Sources = Field(alias="from", description="world, gateways, nobody, or names of networks")
    must_answer: bool = Field(False, description="a service that has to be up: drift when it does not answer")
    owner: Word = ""
    reason: Word = ""
    until: Annotated[str, AfterValidator(_until)] = Field(
        "", description="last day (UTC) or RFC 3339 time of the opening"
    )
    level: Literal["informational", "low", "medium", "high", "critical"] | None = Field(
        None, description="of a drift here, in place of the usual one"
    )


Allowance = Annotated[
    Annotated[Name, Tag("short")] | Annotated[Sources, Tag("list")] | Annotated[PortWords, Tag("long")],
    Discriminator(_shape),
]
Ports = dict[PortKey, Allowance]


def parse_port_key(text: str) -> tuple[PortRange, Protocol]:
    """`22/tcp`, `8000-8100/udp`; ValueError else."""
    found = _KEY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a port (hint: write 22/tcp, 8000-8100/tcp or 53/udp)")
    return PortRange(int(found[1]), int(found[2] or found[1])), Protocol(found[3])


def parse_range(text: str) -> PortRange:
    """`22`, `1-1024`; ValueError else."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no port or range of ports (hint: write 22 or 1-1024)")
    return PortRange(int(found[1]), int(found[2] or found[1]))


def parse_until(text: str) -> int:
    """The end of an opening in microseconds UTC: the end of a day, or an RFC 3339 time; 0 for no text."""
    if not text:
        return 0
    try:
        if len(text) == len("2026-12-31"):
            return parse_rfc3339(f"{date.fromisoformat(text).isoformat()}T00:00:00Z") + DAY
        return parse_rfc3339(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date (hint: write 2026-12-31, or 2026-12-31T18:00:00Z)") from None


def read_openings(
    ports: Ports, at: Callable[[Path_], Location], known: Callable[[tuple[str, ...], Path_], None] | None = None
) -> tuple[Opening, ...]:
    """What `ports` allows; ConfigError where it contradicts itself.

    at: the place of a path that begins with the key of a port. known: raises for names of sources that lead nowhere;
    without it they are checked when inventories are joined.
    """
    out = []
    for key, said in ports.items():
        span, protocol = parse_port_key(key)
        words = said if isinstance(said, PortWords) else PortWords.model_validate({"from": said})
        sources = tuple(dict.fromkeys([words.from_] if isinstance(words.from_, str) else words.from_))
        if known is not None:
            known(sources, (key, "from") if isinstance(said, PortWords) else (key,))
        if NOBODY in sources and len(sources) > 1:
            raise ConfigError(
                f"{key}: nobody, and others too", location=at((key,)), hint=f"write {NOBODY} alone, or leave it out"
            )
        if NOBODY in sources and words.must_answer:
            raise ConfigError(
                f"{key} must answer, and nobody may reach it",
                location=at((key,)),
                hint="say from where it is reached",
            )
        out.append(
            Opening(
                ports=span,
                protocol=protocol,
                sources=sources,
                must_answer=words.must_answer,
                owner=words.owner,
                reason=words.reason,
                until=parse_until(words.until),
                level=Level.parse(words.level) if words.level else None,
                origin=at((key,)),
            )
        )
    said_once(out)
    return tuple(out)


def said_once(openings: Sequence[Opening]) -> None:
    """ConfigError where two of one place speak of the same port."""
    order = sorted(range(len(openings)), key=lambda at: (openings[at].protocol.value, openings[at].ports))
    for before, after in pairwise(order):
        one, other = openings[min(before, after)], openings[max(before, after)]
        # Sorted and so far apart, each reaches further than all before it: neighbours are enough.
        if one.protocol is other.protocol and one.ports.without(other.ports) != (one.ports,):
            raise ConfigError(
                f"{other.ports}/{other.protocol.value} is already spoken of in {one.origin}",
                location=other.origin,
                hint="say everything about a port once",
            )
