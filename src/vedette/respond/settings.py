"""What an operator may set about blocking; the defaults observe everything and block nothing.
Counterpart: `config` composes these, `policy`, `allowlist` and the enforcers are constructed from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vedette.model.decisions import Rung
from vedette.text.addresses import parse_network
from vedette.text.times import positive_duration


def _network(text: str) -> str:
    return str(parse_network(text))


NetworkText = Annotated[str, AfterValidator(_network)]
"""An address or network; names are refused, because names are never resolved."""
DurationText = Annotated[str, AfterValidator(positive_duration)]
EnforcerName = Literal["nftables", "hosts_deny"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FuseSettings(_Settings):
    """How much damage rules may do before a person has to look; people's own blocks do not count."""

    per_minute: int = Field(default=100, ge=1, le=100_000)
    """New enforced decisions in any minute."""
    active: int = Field(default=10_000, ge=1, le=50_000)
    """Enforced decisions at one time."""


class AllowEntry(_Settings):
    """A network that rules never block, and why."""

    network: NetworkText
    comment: str = ""


class NftablesSettings(_Settings):
    """The kernel sets."""

    size: int = Field(default=65_536, ge=16, le=1_048_576)
    """Elements one set may hold."""
    end_connections: bool = True
    """End a blocked address' established TCP connections, so that they do not resume when the lease ends."""


class HostsDenySettings(_Settings):
    """The file of TCP wrappers, for services that are built with libwrap."""

    path: str = "/etc/hosts.deny"
    service: str = Field(default="sshd", pattern=r"^[A-Za-z0-9_.@-]+$")


class KnownLoginSettings(_Settings):
    """What a successful login changes for that user and address: their own failures weigh less for a while."""

    window: DurationText = "7d"
    """How long after the login."""
    factor: int = Field(default=3, ge=1, le=10)
    """How many of their failures count as one; 1 forgets logins."""


class RespondSettings(_Settings):
    """Everything about blocking. rungs: what `respond: {RULE-ID: observe|simulate|canary|enforce}` says."""

    rungs: dict[str, Rung] = Field(default_factory=dict)
    canary_hosts: tuple[str, ...] = ()
    """Hosts (names or ids, `*` for any text) on which rules on the rung canary enforce."""
    enforcers: tuple[EnforcerName, ...] = ("nftables",)
    fuse: FuseSettings = FuseSettings()
    floor: tuple[NetworkText, ...] = ()
    """Hard floor besides what the host itself knows: pager, hub, Chef server, own NAT address."""
    allowlist: tuple[AllowEntry, ...] = ()
    allowlist_files: tuple[str, ...] = ()
    """Files with one network a line, `#` begins a comment; what `denyhosts` import and `block` write."""
    override_longest: DurationText = "1h"
    """Longest lease of a person's block that passes the allowlist."""
    known_logins: KnownLoginSettings = KnownLoginSettings()
    widen_at: int = Field(default=2, ge=2, le=1000)
    """Distinct IPv6 offenders within one /64 at which the /64 is blocked instead."""
    nftables: NftablesSettings = NftablesSettings()
    hosts_deny: HostsDenySettings = HostsDenySettings()
