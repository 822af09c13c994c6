"""What a run list in an environment, or a policy in its group, comes to: layers of attributes, as chef-client has them.
Counterpart: `chef` says whose run lists count; `chef_client` fetches, each thing once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vedette.inventory.chef_attributes import Layer, Precedence
from vedette.inventory.chef_words import ChefWords
from vedette.model.errors import InventoryError, Location
from vedette.model.reasons import InventoryReason
from vedette.text.escape import shorten, terminal

if TYPE_CHECKING:
    from vedette.inventory.chef_client import ChefClient

NO_ENVIRONMENT = "_default"
DEPTH_LIMIT = 32
_ROLE = re.compile(r"role\[([A-Za-z0-9_-]{1,255})\]")
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,255}")


@dataclass(frozen=True, slots=True)
class Has:
    """What Chef gives a host: a run list in an environment, or a policy of a policy group."""

    run_list: tuple[str, ...] = ()
    environment: str = NO_ENVIRONMENT
    policy_name: str = ""
    policy_group: str = ""


@dataclass(slots=True)
class Expanded:
    """The layers that come of it, the roles in it, and what in it does not exist (`role[wbe]`)."""

    defaults: list[Layer] = field(default_factory=list)
    overrides: list[Layer] = field(default_factory=list)
    roles: dict[str, None] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those that win last."""
        return (*self.defaults, *self.overrides)


class RunLists:
    """Roles, environments and policies of one server, each asked for once and only where the server lists it."""

    def __init__(self, words: ChefWords, name: str, client: ChefClient) -> None:
        self._words = words
        self._name = name
        self._client = client
        self._objects: dict[str, dict[str, Any]] = {}
        self._expanded: dict[tuple[Has, int], Expanded] = {}

    async def object(self, path: str) -> dict[str, Any]:
        """What stands at `path`; TOO_MANY past `limits.objects`."""
        if path not in self._objects:
            most = self._words.limits.objects
            if len(self._objects) >= most:
                raise InventoryError(
                    InventoryReason.TOO_MANY,
                    f"more than {most} roles, environments, policies and items",
                    location=Location(self._words.url),
                    hint="`limits.objects` takes more",
                )
            self._objects[path] = await self._client.mapping(path)
        return self._objects[path]

    async def expand(self, has: Has, most: int) -> Expanded:
        """Everything that comes of `has`, not to be changed; TOO_MANY past `most` roles.

        By default attributes a role comes over its environment, by override attributes the environment over its roles;
        later roles come over earlier ones, and a role over those in its own run list (chef: run_list_expansion.rb).
        """
        if (has, most) not in self._expanded:
            self._expanded[has, most] = await self._expand(has, most)
        return self._expanded[has, most]

    async def _expand(self, has: Has, most: int) -> Expanded:
        if has.policy_name:
            return await self._policy(has.policy_name, has.policy_group)
        out = Expanded()
        environment: list[Layer] = []
        if has.environment != NO_ENVIRONMENT and "environments" in self._words.sources:
            if has.environment in await self.object("/environments"):
                origin = f"{self._name}:environment[{has.environment}]"
                default, override = _layers(await self.object(f"/environments/{has.environment}"), origin)
                out.defaults.append(default)
                environment.append(override)
            else:
                out.missing.append(f"environment {has.environment}")
        if "roles" in self._words.sources:
            await self._roles(has.run_list, has.environment, out, most, 0)
        else:
            out.roles.update(dict.fromkeys(_roles_in(has.run_list)))
        out.overrides += environment
        return out

    async def _roles(self, run_list: Sequence[str], environment: str, out: Expanded, most: int, depth: int) -> None:
        """Depth first, each role once."""
        for name in _roles_in(run_list):
            if name in out.roles:
                continue
            if len(out.roles) >= most:
                raise InventoryError(InventoryReason.TOO_MANY, f"more than {most} roles in one run list")
            out.roles[name] = None
            if name not in await self.object("/roles"):
                out.missing.append(f"role[{name}]")
                continue
            origin = f"{self._name}:role[{name}]"
            if depth > DEPTH_LIMIT:
                raise wrong_shape(f"stands in roles in roles deeper than {DEPTH_LIMIT}", origin)
            role = await self.object(f"/roles/{name}")
            of_environments = _mapping(role, "env_run_lists", origin)
            inner = of_environments.get(environment, role.get("run_list"))
            await self._roles(_run_list(inner, origin), environment, out, most, depth + 1)
            default, override = _layers(role, origin)
            out.defaults.append(default)
            out.overrides.append(override)

    async def _policy(self, name: str, group: str) -> Expanded:
        """A policyfile as it stands in a group; what stands under the group's name comes up, and wins (hoisting)."""
        out = Expanded()
        if "policyfiles" not in self._words.sources:
            return out
        of_group = (await self.object("/policy_groups")).get(group)
        there = of_group.get("policies") if isinstance(of_group, dict) else None
        if not isinstance(there, dict) or name not in there:
            out.missing.append(f"policy {name} in policy group {group}")
            return out
        found = await self.object(f"/policy_groups/{group}/policies/{name}")
        for layer, of_one in zip(
            _layers(found, f"{self._name}:policy[{name}/{group}]"), (out.defaults, out.overrides), strict=True
        ):
            of_one.append(layer)
            hoisted = layer.attributes.get(group)
            if isinstance(hoisted, dict):
                of_one.append(Layer(layer.precedence, f"{layer.origin}.{group}", hoisted))
        return out


def is_name(text: str) -> bool:
    """Whether `text` may be the name of something in Chef, and stand in a URL as it is."""
    return _NAME.fullmatch(text) is not None and text not in (".", "..")


def wrong_shape(message: str, origin: str) -> InventoryError:
    """The error about something that has not the form it should have."""
    return InventoryError(
        InventoryReason.WRONG_SHAPE, message, location=Location(shorten(terminal(origin), 300)), hint=""
    )


def _roles_in(run_list: Sequence[str]) -> Iterator[str]:
    for item in run_list:
        found = _ROLE.fullmatch(item)
        if found is not None:
            yield found[1]


def _run_list(value: Any, origin: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong_shape("its run list is no list of text", origin)
    return value


def _mapping(of: Mapping[str, Any], key: str, origin: str) -> dict[str, Any]:
    value = of.get(key) or {}
    if not isinstance(value, dict):
        raise wrong_shape(f"its {key} is no mapping", origin)
    return value


def _layers(of: Mapping[str, Any], origin: str) -> tuple[Layer, Layer]:
    """The default and the override attributes of a role, environment or policy."""
    keys = {Precedence.DEFAULT: "default_attributes", Precedence.OVERRIDE: "override_attributes"}
    default, override = (Layer(level, f"{origin} {key}", _mapping(of, key, origin)) for level, key in keys.items())
    return default, override
