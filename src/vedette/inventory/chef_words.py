"""What is said of a Chef server in a policy file: where it is, who asks, and whose word counts there.
Counterpart: `chef` reads a server by it; docs/ports.md, "From a Chef server", explains every key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from vedette.inventory.port_words import WORDS, Address, HostName, Name, Ports
from vedette.model.clock import SECOND
from vedette.model.ports import WORLD
from vedette.system.secrets import Secret
from vedette.text.times import parse_duration

_SECRETIVE = ConfigDict(**WORDS, hide_input_in_errors=True)
"""An error never repeats what was written: it may be a secret in the wrong place."""


def _duration(text: str) -> str:
    if not 0 < parse_duration(text) <= 3600 * SECOND:
        raise ValueError(f"{text!r} is not between 0 and an hour")
    return text


def _version(value: Any) -> Any:
    # `version: 1.3` is a number to YAML.
    return str(value) if isinstance(value, float) else value


def _path(value: Any) -> Any:
    return tuple(value.split(".")) if isinstance(value, str) else value


def _paths(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _plain_list(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(one, bool) for one in value):
        raise ValueError("true and false are no ports")
    return value


Duration = Annotated[str, AfterValidator(_duration)]
ChefName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,255}$")]
"""Of roles, environments, nodes, bags and their items; nothing in it needs escaping in a URL."""
_PATH_SCHEMA = {
    "description": "vedette.ports, or a list of keys where one of them has a dot",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 16}],
}
AttributePath = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=255)], ...],
    Field(min_length=1, max_length=16),
    BeforeValidator(_path),
    WithJsonSchema(_PATH_SCHEMA),
]
AttributePaths = Annotated[
    list[AttributePath],
    Field(max_length=16),
    BeforeValidator(_paths),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _PATH_SCHEMA, "maxItems": 16}]}),
]
PlainPorts = Annotated[list[str | int], BeforeValidator(_plain_list)]


class AttributeWords(BaseModel):
    """At which attribute paths something is said of ports. Those that are nowhere say nothing."""

    model_config = WORDS

    ports: AttributePaths = [("vedette", "ports")]
    open: AttributePaths = [("vedette", "open_ports")]
    closed: AttributePaths = [("vedette", "closed_ports")]
    gateway: AttributePath = ("vedette", "gateway")
    open_from: Name = Field(
        default=WORLD, description="from where the ports of the plain lists at `open` may be reached"
    )

    def paths(self) -> Iterator[tuple[str, AttributePath]]:
        """Every path with a name of its own, as a partial search wants them."""
        for kind, paths in (("ports", self.ports), ("open", self.open), ("closed", self.closed)):
            yield from ((f"{kind}-{at}", path) for at, path in enumerate(paths))
        yield "gateway", self.gateway


class ListedHost(BaseModel):
    """A host, and what Chef's roles, environments and policies it has, by word of somebody who may say so."""

    model_config = WORDS

    roles: list[ChefName] = []
    environment: ChefName = "_default"
    policy_name: ChefName | Literal[""] = ""
    policy_group: ChefName | Literal[""] = ""
    addresses: list[Address] = []
    names: list[HostName] = []
    ports: Ports = {}
    open_ports: PlainPorts = []
    closed_ports: PlainPorts = []
    gateway: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> ListedHost:
        if bool(self.policy_name) != bool(self.policy_group):
            raise ValueError("a policy is policy_name and policy_group, both of them")
        if self.policy_name and (self.roles or self.environment != "_default"):
            raise ValueError("a policyfile stands in place of roles and environment, not beside them")
        return self


class HostsBag(BaseModel):
    """A data bag with an item for each host, in the words of `hosts`."""

    model_config = WORDS

    bag: ChefName
    at: AttributePath | None = Field(None, description="where in an item our words stand; without it, at its top")


class LimitWords(BaseModel):
    """How much of a server is taken."""

    model_config = WORDS

    answer_bytes: int = Field(default=8 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    nodes: int = Field(default=10_000, ge=1, le=1_000_000)
    objects: int = Field(
        default=5_000, ge=1, le=100_000, description="roles, environments, policies and items of data bags"
    )
    openings: int = Field(default=1_000, ge=1, le=10_000, description="of one host")
    page: int = Field(default=1_000, ge=1, le=1_000, description="rows asked for at once in a search")


class ChefWords(BaseModel):
    """A Chef server as an inventory."""

    model_config = _SECRETIVE

    url: str = Field(description="https://chef.example.org/organizations/shop")
    organization: ChefName | Literal[""] = Field("", description="where `url` names the server alone")
    user: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@-]{1,255}$", description="name of the user or client")]
    key: Secret = Field(description="its private key (RSA, PEM)")
    version: Annotated[
        Literal["1.0", "1.1", "1.3"],
        BeforeValidator(_version),
        WithJsonSchema({"description": "of the signatures", "enum": ["1.0", "1.1", "1.3", 1.0, 1.1, 1.3]}),
    ] = "1.3"
    ca_file: str = Field("", description="authority to trust in place of the system's")
    plain_http: bool = Field(False, description="accept http://: anybody on the way writes the policy")
    sources: list[Literal["roles", "environments", "policyfiles"]] = ["roles", "environments", "policyfiles"]
    hosts: dict[Name, ListedHost] = Field({}, description="which host has what, where no data bag says so")
    hosts_bag: HostsBag | None = None
    node_writable: Literal["hints", "accept"] = Field(
        "hints", description="what nodes write about themselves: compared with policy, or a part of it"
    )
    nodes: Literal["search", "each", "none"] = Field(
        "search", description="how nodes are read: by partial search (may lag a minute), one by one, or not at all"
    )
    search: str = Field("*:*", max_length=1_000, description="which nodes")
    attributes: AttributeWords = AttributeWords()
    limits: LimitWords = LimitWords()
    timeout: Duration = Field("10s", description="of one request")
    longest: Duration = Field("2m", description="of the whole reading")
    attempts: int = Field(3, ge=1, le=10)

    @model_validator(mode="after")
    def _reachable(self) -> ChefWords:
        self.base()
        if self.node_writable == "accept" and self.nodes == "none":
            raise ValueError("node_writable: accept, and nodes: none")
        return self

    def base(self) -> tuple[str, str]:
        """The server (`https://chef.example.org`) and the path of the organization; ValueError where that is none."""
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            raise ValueError("url is none (hint: https://chef.example.org/organizations/shop)") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("url is none of a Chef server (hint: https://chef.example.org/organizations/shop)")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url holds a user (hint: `user` and `key`)")
        if parts.scheme == "http" and not self.plain_http:
            raise ValueError("url is not https (hint: `plain_http: true` where anybody on the way may write policy)")
        path = parts.path.rstrip("/")
        if self.organization:
            if path:
                raise ValueError("url holds a path, and organization is there too (hint: one of them)")
            path = f"/organizations/{self.organization}"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{parts.scheme}://{host}{f':{port}' if port else ''}", path

    @property
    def timeout_seconds(self) -> float:
        """Of one request, seconds."""
        return parse_duration(self.timeout) / SECOND

    @property
    def longest_seconds(self) -> float:
        """Of the whole reading, seconds."""
        return parse_duration(self.longest) / SECOND
