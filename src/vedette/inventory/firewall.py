"""A host's firewall as an inventory: what it lets through, as claims to be compared with policy.
Counterpart: `nftables` and `iptables` read rulesets, `verdicts` asks them; a policy names it under `inventories`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from vedette.inventory.iptables import parse_iptables
from vedette.inventory.nftables import parse_nftables
from vedette.inventory.rulesets import EMPTY, Place, Ruleset, Spans, Table, networks
from vedette.inventory.verdicts import fate, most_of_the_world, port_borders
from vedette.model.clock import Clock
from vedette.model.errors import ConfigError, Location
from vedette.model.ports import (
    WORLD,
    Expectations,
    FirewallVerdict,
    HostExpectation,
    InventoryProblem,
    NamedNetwork,
    Opening,
    PortRange,
    Protocol,
    joined,
)
from vedette.model.reasons import InventoryReason
from vedette.system import bound_sockets
from vedette.system.exec import run
from vedette.text.addresses import canonical

NFT = ("nft", "-j", "list", "ruleset")
SAVE = {"ip": ("iptables-save",), "ip6": ("ip6tables-save",)}
LEGACY = {"ip": ("iptables-legacy-save",), "ip6": ("ip6tables-legacy-save",)}
_LEGACY_TABLES = {"ip": "ip_tables_names", "ip6": "ip6_tables_names"}
_LARGEST = 64 * 1024 * 1024
_SECONDS = 30.0
_SHOWN = 8
_KILLED = -9

Run = Callable[[Sequence[str]], bytes]
"""Runs a program to its end and gives what it printed; ConfigError says what is wrong with it, FileNotFoundError that
it is not installed."""
_INCOMPATIBLE = b"is incompatible, use 'nft' tool"


def _address(text: str) -> str:
    found = canonical(text)
    if found is None:
        raise ValueError(f"{text!r} is not an address")
    return found


class FirewallWords(BaseModel):
    """A host's ruleset, from a file or, on the host itself, live."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(description="a host of the policy")
    file: str = Field("", description="what `nft -j list ruleset`, or iptables-save and ip6tables-save, printed")
    live: bool = Field(False, description="read it from the kernel of the machine that runs the check")
    format: Literal["nftables", "iptables"] = "nftables"
    interfaces: list[Annotated[str, StringConstraints(min_length=1, max_length=15)]] = Field(
        [], description="devices that strangers come in by; without, a rule of a file that names one cannot be decided"
    )
    addresses: list[Annotated[str, AfterValidator(_address)]] = Field(
        [], description="the host's own; without, a rule of a file that names one cannot be decided"
    )

    @model_validator(mode="after")
    def _one_of(self) -> FirewallWords:
        if bool(self.file) == self.live:
            raise ValueError("a firewall is read from a `file`, or `live: true` (hint: say one of them)")
        return self


def read_firewall(words: FirewallWords, name: str, clock: Clock) -> Expectations:
    """What the firewall of a host lets through, as claims of the inventory called `name`.

    ConfigError where the file cannot be read or is something else. Ports of which the ruleset does not say for sure
    are left out and among the problems; then the claims are not complete. ConfigError where a program failed.
    """
    if words.live:
        place = Place.of(bound_sockets.addresses(), bound_sockets.routes())
        ruleset = live_ruleset(place) if words.format == "nftables" else iptables_ruleset(place)
    else:
        parse = parse_nftables if words.format == "nftables" else parse_iptables
        ruleset = parse(_read(Path(words.file)), words.file)
    if ruleset.unread:
        # Nothing is sure then, and what it let through when it was last read is more than nothing.
        raise ConfigError("; ".join(ruleset.unread), location=Location(ruleset.origin))
    place = ruleset.place
    if words.interfaces or words.addresses:
        place = replace(
            place,
            arriving=frozenset(words.interfaces) or place.arriving,
            addresses=frozenset(words.addresses) or place.addresses,
        )
        ruleset = replace(ruleset, place=place)
    said = claims(ruleset, name)
    origin = Location(words.file or ruleset.origin)
    problems = [InventoryProblem(InventoryReason.WRONG_WORDS, one, origin) for one in said.said()]
    host = HostExpectation(
        words.host, openings=tuple(replace(one, origin=origin) for one in said.openings), origin=origin
    )
    return Expectations(
        name,
        networks=tuple(replace(one, origin=origin) for one in said.networks),
        claims=(host,),
        read_at=clock.now(),
        problems=tuple(problems),
        claims_complete=not problems,
        claims_versions=tuple(sorted(ruleset.versions)),
    )


@dataclass(slots=True)
class Claims:
    """What a ruleset lets through. networks: those that openings name. unread: what was not read at
    all; untold: ports it does not say for sure, by protocol and rule."""

    openings: list[Opening] = field(default_factory=list)
    networks: list[NamedNetwork] = field(default_factory=list)
    unread: tuple[str, ...] = ()
    untold: dict[tuple[str, str], list[PortRange]] = field(default_factory=dict)

    def said(self) -> tuple[str, ...]:
        """One line for everything that is left out."""
        lines = []
        for (where, text), spans in self.untold.items():
            apart = joined(spans)
            more = f" and {len(apart) - _SHOWN} more" if len(apart) > _SHOWN else ""
            lines.append(f"{', '.join(map(str, apart[:_SHOWN]))}{more} {where}: {text}")
        return (*self.unread, *lines)


def claims(ruleset: Ruleset, name: str) -> Claims:
    """Every port that the ruleset lets somebody reach, listening or not; name: what its networks are called after."""
    out = Claims(unread=ruleset.unread)
    named: dict[tuple[Spans, Spans], str] = {}
    borders = [*port_borders(ruleset), 65_536]
    for protocol in Protocol:
        last: Opening | None = None
        for first, after in pairwise(borders):
            span = PortRange(first, after - 1)
            opening = None if ruleset.unread else _opening(ruleset, protocol, span, out, named, name)
            if opening is not None and last is not None and _alike(last, opening):
                last = replace(last, ports=PortRange(last.ports.first, span.last))
                out.openings[-1] = last
            elif opening is not None:
                out.openings.append(opening)
                last = opening
            else:
                last = None
    return out


def _alike(one: Opening, other: Opening) -> bool:
    return one.ports.last + 1 == other.ports.first and (one.sources, one.reason) == (other.sources, other.reason)


def _opening(
    ruleset: Ruleset,
    protocol: Protocol,
    span: PortRange,
    out: Claims,
    named: dict[tuple[Spans, Spans], str],
    name: str,
) -> Opening | None:
    fates = {version: fate(ruleset, protocol, span.first, version) for version in (4, 6) if version in ruleset.versions}
    told = {version: one.verdict() for version, one in fates.items()}
    for version, (verdict, text) in told.items():
        if verdict is FirewallVerdict.UNKNOWN:
            out.untold.setdefault((f"{protocol.value} over IPv{version}", text), []).append(span)
    admitted = {version: fates[version].admitted() for version in fates}
    wide = [version for version in admitted if most_of_the_world(admitted[version], version)]
    if wide:
        which = "" if len(wide) == len(told) else f"IPv{wide[0]}: "
        return Opening(span, protocol, (WORLD,), reason=which + told[wide[0]][1])
    narrow = [version for version in admitted if admitted[version] and told[version][0] is not FirewallVerdict.UNKNOWN]
    if not narrow:
        return None
    sources = (
        admitted[4] if 4 in narrow else EMPTY,
        admitted[6] if 6 in narrow else EMPTY,
    )
    if sources not in named:
        named[sources] = _network(sources, name, out)
    return Opening(span, protocol, (named[sources],), reason=told[narrow[0]][1].partition(" [from ")[0])


def _network(sources: tuple[Spans, Spans], name: str, out: Claims) -> str:
    prefixes = (*networks(sources[0], 4), *networks(sources[1], 6))
    called = f"{name}:{str(prefixes[0]).replace('/', '-')}"
    called += f"+{len(prefixes) - 1}" if len(prefixes) > 1 else ""
    taken = {one.name for one in out.networks}
    if called in taken:
        called = next(f"{called}.{count}" for count in range(2, len(taken) + 3) if f"{called}.{count}" not in taken)
    out.networks.append(NamedNetwork(called, prefixes))
    return called


# ------------------------------------------------------------------------------------------------ reading


def live_ruleset(place: Place | None = None, *, proc: Path = Path("/proc"), run: Run | None = None) -> Ruleset:
    """What the kernel of this network namespace does: nftables, and the tables that iptables wrote as it saw them.

    Whatever could not be read is in `unread`, and then nothing is sure. Needs CAP_NET_ADMIN; where iptables-legacy has
    rules also CAP_NET_RAW and CAP_DAC_READ_SEARCH.
    """
    run = run or _run
    unread: list[str] = []
    tables: list[Table] = []
    marks = False
    try:
        found = parse_nftables(run(NFT), " ".join(NFT))
    except FileNotFoundError:
        # Where there is no nft, iptables is what is left to have made rules with.
        for family, program in SAVE.items():
            tables, marks = _add(run, program, family, tables, marks, unread)
    except ConfigError as error:
        unread.append(str(error))
    else:
        tables, marks = [one for one in found.tables if not _of_iptables(one)], found.marks
        for family in {one.family for one in found.tables if _of_iptables(one)}:
            # nft shows matches of iptables by their name alone; iptables-save shows what they say.
            tables, marks = _add(run, SAVE[family], family, tables, marks, unread)
    for family, names in _LEGACY_TABLES.items():
        try:
            legacy = (proc / "thread-self" / "net" / names).read_text().split()
        except FileNotFoundError:
            continue
        except OSError as error:
            unread.append(f"whether {family}tables-legacy has rules: {error.strerror or error}")
            continue
        if legacy:
            tables, marks = _add(run, LEGACY[family], family, tables, marks, unread)
    return Ruleset(tuple(tables), " ".join(NFT), place or Place(), marks, unread=tuple(unread))


def iptables_ruleset(place: Place | None = None, *, run: Run | None = None) -> Ruleset:
    """What iptables-save and ip6tables-save print here; as `live_ruleset`."""
    run = run or _run
    unread: list[str] = []
    tables: list[Table] = []
    marks = False
    for family, program in SAVE.items():
        tables, marks = _add(run, program, family, tables, marks, unread)
    return Ruleset(tuple(tables), "iptables-save", place or Place(), marks, unread=tuple(unread))


def _add(
    run: Run, program: Sequence[str], family: str, tables: list[Table], marks: bool, unread: list[str]
) -> tuple[list[Table], bool]:
    try:
        raw = run(program)
        if _INCOMPATIBLE in raw:
            unread.append(f"{program[0]} says that there are rules which nft alone can show (hint: install nft)")
        if not any(line.startswith(b"*") for line in raw.splitlines()):
            return tables, marks  # no table of that family
        found = parse_iptables(raw, " ".join(program), family)
    except FileNotFoundError:
        unread.append(f"{program[0]} is not installed (hint: install it, or nft)")
        return tables, marks
    except ConfigError as error:
        unread.append(str(error))
        return tables, marks
    return [*tables, *found.tables], marks or found.marks


def _of_iptables(table: Table) -> bool:
    """Whether iptables wrote rules of it in words of its own."""
    return table.family in SAVE and table.writer != "nft"


def runner(seconds: float, most: int = _LARGEST) -> Run:
    """Runs programs that take so many seconds together, and print `most` bytes at the longest each."""
    end = time.monotonic() + seconds

    def bounded(program: Sequence[str]) -> bytes:
        raw = _run(program, max(end - time.monotonic(), 0.0))
        if len(raw) > most:
            raise ConfigError(f"{' '.join(program)} prints more than {most} bytes")
        return raw

    return bounded


def _run(program: Sequence[str], seconds: float = _SECONDS) -> bytes:
    done = run(program, timeout=seconds)
    if done.returncode == _KILLED:
        raise ConfigError(f"{' '.join(program)}: took longer than it may")
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ConfigError(
            f"{' '.join(program)}: exit {done.returncode}: {said[0] if said else ''}", hint="needs CAP_NET_ADMIN"
        )
    return done.stdout


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", location=Location(str(path))) from None
    if len(raw) > _LARGEST:
        raise ConfigError("is larger than 64 MiB", location=Location(str(path)))
    return raw
