"""Settings of the hub's door: where agents enrol, and the broker they ship to.
Counterpart: `config.settings` composes them; `broker` and `enrolment` are constructed from them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from vedette.system.secrets import Secret
from vedette.text.times import positive_duration

_LISTEN = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):(?:-1|\d{1,5})")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


Duration = Annotated[str, AfterValidator(positive_duration)]


def _listen(text: str) -> str:
    if not _LISTEN.fullmatch(text):
        raise ValueError("an address to listen on is HOST:PORT, [IPv6]:PORT or :PORT")
    return text


class BrokerSettings(BaseModel):
    """nats-server as the hub starts it, or an existing cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = Field(default="0.0.0.0:4222", description="where agents connect to; port -1 takes a free one")
    names: tuple[str, ...] = Field(default=(), description="further DNS names the hub's certificate carries")
    urls: tuple[str, ...] = Field(default=(), description="tls:// URLs of an existing cluster; none: our own server")
    trust: str = Field(default="", description="file with the authority of that cluster; empty: our own")
    credentials: Secret | None = Field(default=None, description="the hub's NATS credentials there; none: certificate")
    replicas: int = Field(default=1, ge=1, le=5, description="how many servers of the cluster keep each message")
    most_bytes: int = Field(default=1 << 30, ge=1 << 24, description="bytes the broker holds before agents must wait")
    most_connections: int = Field(default=4096, ge=2, le=65536)

    _checked = field_validator("listen")(_listen)

    @field_validator("names")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in names if not _NAME.fullmatch(name)]:
            raise ValueError(f"not a DNS name: {wrong[0]!r}")
        return names

    @field_validator("urls")
    @classmethod
    def _urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        if any(not url.startswith("tls://") for url in urls):
            raise ValueError("a cluster is reached by tls:// URLs alone")
        return urls


class BundleSettings(BaseModel):
    """When a bundle of rules is taken back by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise_floor: int = Field(default=20, ge=1, description="findings an hour and host that are never too many")
    noise_factor: float = Field(default=5.0, ge=1, description="how many times as many as with the bundle before are")
    watch: Duration = Field(default="24h", description="how long after it was staged a bundle is watched")


class FleetBlockSettings(BaseModel):
    """Blocks that the hub has its agents carry out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    canary: int = Field(default=1, ge=0, description="hosts that get a block first; 0: all at once")
    canary_for: Duration = Field(default="2m", description="how long those have it before the others")
    gateways: str = Field(default="gateways", description="the group whose hosts' evidence is enough by itself")
    active: int = Field(default=1000, ge=1, le=10_000, description="blocks of the fleet at one time")
    returned_for: Duration = Field(
        default="24h",
        description="how long a rule on canary blocks nothing after one of its blocks was returned",
    )
    per_minute: int = Field(default=20, ge=1, description="blocks that rules may put on the fleet in a minute")


class HubSettings(BaseModel):
    """What the hub offers to agents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enrol: str = Field(default="0.0.0.0:8443", description="where agents enrol (HTTPS); port -1 takes a free one")
    advertise: tuple[str, ...] = Field(
        default=(), description="tls:// URLs agents are told; none: the host they enrolled at, and the broker's port"
    )
    most_connections: int = Field(default=64, ge=1, le=1024, description="enrolling at the same time")
    bad_tokens: int = Field(default=10, ge=1, description="wrong tokens an address may give in a minute")
    broker: BrokerSettings = BrokerSettings()
    bundles: BundleSettings = BundleSettings()
    blocks: FleetBlockSettings = FleetBlockSettings()

    _checked = field_validator("enrol")(_listen)
