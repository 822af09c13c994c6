"""An Ansible inventory (INI or YAML, group_vars and host_vars beside it): hosts, groups and what is said of ports.
Counterpart: `yaml` hands in the section of the policy file; `ansible_files` reads them, `joining` is next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from vedette.inventory.ansible_files import ENCRYPTED, AnsibleFiles, Said, read_files
from vedette.inventory.port_words import HOST_NAME, WORDS, Ports, read_openings
from vedette.model.clock import Clock
from vedette.model.errors import ConfigError, Location
from vedette.model.ports import Expectations, HostExpectation, InventoryProblem, Opening
from vedette.model.reasons import InventoryReason
from vedette.text.addresses import canonical
from vedette.text.escape import shorten, terminal

VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
_PORTS: TypeAdapter[Ports] = TypeAdapter(Ports)
_TEMPLATE = ("{{", "{%", "{#")
_PRIORITY = "ansible_group_priority"


class AnsibleWords(BaseModel):
    """An Ansible inventory, read as it stands: no program is run, no template filled in."""

    model_config = WORDS

    inventory: Annotated[str, Field(min_length=1)] = Field(description="the inventory file, or a folder of them")
    variable: VariableName = Field("vedette_ports", description="what is said of ports, in the words of `ports`")
    gateway_variable: VariableName = Field("vedette_gateway", description="true: the host is a gateway (bastion)")
    address_variable: VariableName = Field("ansible_host", description="address or name of a host")
    most_hosts: int = Field(10_000, ge=1, le=100_000)

    def variables(self) -> frozenset[str]:
        """The only ones that are read."""
        return frozenset((self.variable, self.gateway_variable, self.address_variable, _PRIORITY))


def read_ansible(words: AnsibleWords, name: str, clock: Clock) -> Expectations:
    """What an inventory says, as Ansible would understand it; ConfigError or InventoryError with file:line.

    name: of the inventory in the policy file. Values that are templates or encrypted are left out, and are among the
    problems; variables override each other as they do in Ansible (a mapping as a whole).
    """
    read_at = clock.now()
    files = read_files(Path(words.inventory), words.variables(), words.most_hosts)
    reading = _Reading(words, files)
    hosts = tuple(reading.host(one) for one in files.hosts)
    problems = (*files.problems, *reading.problems.values())
    return Expectations(name, hosts, read_at=read_at, problems=tuple(problems))


@dataclass(slots=True)
class _Reading:
    words: AnsibleWords
    files: AnsibleFiles
    problems: dict[tuple[InventoryReason, Location], InventoryProblem] = field(default_factory=dict)
    _openings: dict[int, tuple[Opening, ...]] = field(default_factory=dict)

    def host(self, name: str) -> HostExpectation:
        """One host, with all that its groups give it."""
        origin = self.files.hosts[name].origin
        groups = self.groups(name)
        if canonical(name) is None and not HOST_NAME.fullmatch(name):
            raise ConfigError(f"{shorten(terminal(name), 100)} is neither address nor host name", location=origin)
        at = self.text(self.value(name, groups, self.words.address_variable)) or name
        address = canonical(at)
        if address is None and not HOST_NAME.fullmatch(at):
            raise ConfigError(
                f"{name}: {self.words.address_variable} is neither address nor host name", location=origin
            )
        gateway = self.value(name, groups, self.words.gateway_variable)
        return HostExpectation(
            name=name,
            addresses=(address,) if address else (),
            names=() if address else (at,),
            groups=tuple(one for one in groups if one not in ("all", "ungrouped")),
            openings=self.openings(self.value(name, groups, self.words.variable)),
            gateway=self.truth(gateway),
            origin=origin,
        )

    # ------------------------------------------------------------------------------------------ whose word counts

    def groups(self, host: str) -> list[str]:
        """The groups of a host, those above them too; the later one's word counts (depth, priority, name)."""
        found: set[str] = {"all"}
        todo = list(self.files.hosts[host].groups)
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo += self.files.groups[one].parents
        return sorted(found, key=lambda one: (self.files.depths[one], self.priority(one), one))

    def priority(self, group: str) -> int:
        said = self.files.groups[group].variables.get(_PRIORITY) if group in self.files.groups else None
        return said.value if said is not None and type(said.value) is int else 1

    def value(self, host: str, groups: list[str], variable: str) -> Said | None:
        """The value that counts; the host's own comes before its groups'."""
        return next((one for one in self._by_weight(host, groups, variable) if one is not None), None)

    def _by_weight(self, host: str, groups: list[str], variable: str) -> Iterator[Said | None]:
        # The strongest first (ansible: vars/manager.py); of groups, what lies beside the inventory beats what is in it.
        files = self.files
        yield files.host_vars.get(host, {}).get(variable)
        yield files.hosts[host].variables.get(variable)
        for of_groups in (files.group_vars, {name: one.variables for name, one in files.groups.items()}):
            for group in reversed(groups):
                yield of_groups.get(group, {}).get(variable)

    # ------------------------------------------------------------------------------------------ what it means

    def text(self, said: Said | None) -> str:
        if said is None or said.value is None or self.left_out(said):
            return ""
        if not isinstance(said.value, str):
            raise ConfigError(f"{self.words.address_variable} is text", location=said.at())
        return said.value.strip().removeprefix("[").removesuffix("]")

    def truth(self, said: Said | None) -> bool:
        if said is None or self.left_out(said):
            return False
        if not isinstance(said.value, bool):
            raise ConfigError(f"{self.words.gateway_variable} is true or false", location=said.at())
        return said.value

    def openings(self, said: Said | None) -> tuple[Opening, ...]:
        """What a value allows; of one that several hosts share once."""
        if said is None or said.value is None or (not isinstance(said.value, dict) and self.left_out(said)):
            return ()
        if id(said) not in self._openings:
            self._openings[id(said)] = self._read_openings(said)
        return self._openings[id(said)]

    def _read_openings(self, said: Said) -> tuple[Opening, ...]:
        if not isinstance(said.value, dict):
            raise ConfigError(
                f"{self.words.variable} is not a mapping of ports", location=said.at(), hint="{22/tcp: {from: world}}"
            )
        value = {
            key: one for key, one in said.value.items() if not self.left_out(Said(one, said.place, (*said.path, key)))
        }
        try:
            ports = _PORTS.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
        else:
            return read_openings(ports, lambda rest: said.at(*rest))
        path = [part for part in first["loc"] if part not in ("[key]", "short", "list", "long")]
        message, _, hint = str(first["msg"]).removeprefix("Value error, ").partition(" (hint: ")
        if first["type"] == "extra_forbidden":
            message = "is not a key that stands here"
        name = ".".join(str(part) for part in (self.words.variable, *path))
        raise ConfigError(f"{name}: {message}", location=said.at(*path), hint=hint.removesuffix(")"))

    def left_out(self, said: Said) -> bool:
        """Whether a value cannot be had without running something or a password; it is noted."""
        reason, path = next(_unreadable(said.value, ()), (None, ()))
        if reason is None:
            return False
        at = said.at(*path)
        what = "is a template" if reason is InventoryReason.TEMPLATED else "is encrypted"
        name = shorten(terminal(".".join(str(part) for part in (*said.path, *path))), 100)
        self.problems.setdefault((reason, at), InventoryProblem(reason, f"{name} {what}: left out", at))
        return True


def _unreadable(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[InventoryReason, tuple[str | int, ...]]]:
    if isinstance(value, str):
        if value.lstrip().startswith(ENCRYPTED):
            yield InventoryReason.ENCRYPTED, path
        elif any(mark in value for mark in _TEMPLATE):
            yield InventoryReason.TEMPLATED, path
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from _unreadable(one, (*path, at))
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _unreadable(key, (*path, key))
            yield from _unreadable(one, (*path, key))
