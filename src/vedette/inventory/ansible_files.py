"""Files of an Ansible inventory on their way to hosts, groups and variables: text alone, no program, no plug-in.
Counterpart: `ansible` says whose value counts and what it means."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_letters
from typing import Any

from vedette.inventory.reading import entries_trusted, read_trusted
from vedette.model.errors import ConfigError, InventoryError, Location
from vedette.model.ports import InventoryProblem
from vedette.model.reasons import InventoryReason
from vedette.text.addresses import canonical
from vedette.text.documents import Document, Path_, parse_documents

ENCRYPTED = "$ANSIBLE_VAULT"
_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:[#;].*)?")
_RANGE = re.compile(r"\[(?:([0-9]{0,9}):([0-9]{1,9})|([A-Za-z]):([A-Za-z]))(?::([0-9]{1,9}))?\]")
_PORT = re.compile(r":[0-9]+$")
_TAG = re.compile(rb"(?<=[:\-] )!(?:vault|vault-encrypted|unsafe)(?=\s)")
_IGNORED = ("~", ".orig", ".bak", ".ini.swp", ".cfg", ".retry", ".pyc", ".pyo", ".md", ".txt", ".rst", ".rpm", ".swp")
_OF_YAML = (".yml", ".yaml", ".json")
_BESIDE = ("group_vars", "host_vars")
_DEPTH = 8
"""Of folders."""


@dataclass(frozen=True, slots=True)
class Said:
    """The value of a variable, and where it stands: in a document at `path`, or on a line."""

    value: Any
    place: Document | Location
    path: Path_

    def at(self, *rest: str | int) -> Location:
        """The place of what stands at `rest` in it."""
        return self.place if isinstance(self.place, Location) else self.place.at(*self.path, *rest)


Variables = dict[str, Said]


@dataclass(slots=True)
class Group:
    """A group. parents: groups whose hosts its own are too; origin: where it was first named."""

    origin: Location
    declared: bool = False
    parents: list[str] = field(default_factory=list)
    variables: Variables = field(default_factory=dict)


@dataclass(slots=True)
class Member:
    """A host as the inventory names it."""

    origin: Location
    groups: list[str] = field(default_factory=list)
    variables: Variables = field(default_factory=dict)


@dataclass(slots=True)
class AnsibleFiles:
    """Everything that was read. group_vars, host_vars: by name of the group or host; depths: of groups, below `all`."""

    wanted: Collection[str]
    most_hosts: int
    hosts: dict[str, Member] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    group_vars: dict[str, Variables] = field(default_factory=dict)
    host_vars: dict[str, Variables] = field(default_factory=dict)
    problems: list[InventoryProblem] = field(default_factory=list)
    depths: dict[str, int] = field(default_factory=dict)

    def group(self, name: str, origin: Location) -> Group:
        return self.groups.setdefault(name, Group(origin))

    def members(self, pattern: str, group: str, origin: Location) -> list[Member]:
        """The hosts that a pattern stands for, as members of a group."""
        out = []
        for name in host_names(pattern, origin, self.most_hosts):
            if name not in self.hosts and len(self.hosts) >= self.most_hosts:
                raise _too_many(self.most_hosts, origin)
            member = self.hosts.setdefault(name, Member(origin))
            if group not in member.groups:
                member.groups.append(group)
            out.append(member)
        return out

    def child(self, parent: str, name: str, origin: Location) -> None:
        parents = self.group(name, origin).parents
        if parent not in parents:
            parents.append(parent)

    def keep(self, into: Variables, name: str, said: Said) -> None:
        if name in self.wanted:
            into[name] = said

    def check(self) -> None:
        """ConfigError where a group is only ever named, or lies within itself."""
        for name, group in self.groups.items():
            if not group.declared and name not in ("all", "ungrouped"):
                raise ConfigError(f"there is no group {name}", location=group.origin, hint=f"a section [{name}]")
        below: dict[str, list[str]] = {name: [] for name in self.groups}
        for name, group in self.groups.items():
            for parent in group.parents:
                below[parent].append(name)
        waiting = {name: len(group.parents) for name, group in self.groups.items()}
        ready = [name for name, parents in waiting.items() if not parents]
        self.depths.update({name: 0 if name == "all" else 1 for name in ready})
        while ready:
            name = ready.pop()
            for child in below[name]:
                self.depths[child] = max(self.depths.get(child, 0), self.depths[name] + 1)
                waiting[child] -= 1
                ready += [child] if not waiting[child] else []
        for name, parents in waiting.items():
            if parents:
                raise ConfigError(f"group {name} lies within itself", location=self.groups[name].origin)


def read_files(path: Path, wanted: Collection[str], most_hosts: int) -> AnsibleFiles:
    """An inventory file or folder, and the variables beside it; ConfigError or InventoryError with file:line.

    wanted: the variables that are kept.
    """
    out = AnsibleFiles(wanted, most_hosts)
    for name in ("all", "ungrouped"):
        out.group(name, Location(str(path)))
    if path.is_dir():
        _read_folder(path, out, 0)
        _read_variables(path, out)
    else:
        _read_file(path, out)
        _read_variables(path.parent, out)
    out.check()
    return out


def _read_folder(folder: Path, out: AnsibleFiles, depth: int) -> None:
    if depth > _DEPTH:
        raise InventoryError(InventoryReason.TOO_MANY, "folders too deep", location=Location(str(folder)))
    for path in entries_trusted(folder):
        if path.name.startswith(".") or path.name in _BESIDE or path.name.endswith(_IGNORED):
            continue
        if path.is_dir():
            _read_folder(path, out, depth + 1)
        else:
            _read_file(path, out)


def _read_file(path: Path, out: AnsibleFiles) -> None:
    raw = read_trusted(path)
    if raw.startswith(b"#!"):
        raise InventoryError(
            InventoryReason.WRONG_SHAPE,
            "is a program, and programs are not run",
            location=Location(str(path)),
            hint="`ansible-inventory --list --yaml --output FILE` writes what it says",
        )
    if raw.startswith(ENCRYPTED.encode()):
        raise InventoryError(InventoryReason.ENCRYPTED, "is encrypted", location=Location(str(path)))
    if path.suffix in _OF_YAML or raw.lstrip().startswith((b"---", b"{")):
        for document in parse_documents(_untagged(raw), str(path), ConfigError):
            _read_yaml(document, out)
    else:
        _read_ini(_text(raw, path), str(path), out)


def _untagged(raw: bytes) -> bytes:
    """Without the tags that Ansible knows; what follows stays in its line and column."""
    return _TAG.sub(lambda found: b" " * len(found[0]), raw)


def _text(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8", location=Location(str(path), line)) from None


# ------------------------------------------------------------------------------------------------ YAML


def _read_yaml(document: Document, out: AnsibleFiles) -> None:
    if "plugin" in document.data:
        raise InventoryError(
            InventoryReason.WRONG_SHAPE, "is for a plug-in, and none is run", location=document.at("plugin")
        )
    for name in document.data:
        _read_group(document, (name,), out, 0)


def _read_group(document: Document, path: Path_, out: AnsibleFiles, depth: int) -> None:
    name = str(path[-1])
    value = _at(document, path)
    group = out.group(name, document.at(*path))
    group.declared = True
    if value is None:
        return
    for key in _mapping(value, document, path):
        if key not in ("hosts", "children", "vars"):
            raise ConfigError(
                f"{key} is not a key of a group", location=document.at(*path, key), hint="hosts, children, vars"
            )
        said = value[key]
        if isinstance(said, str) and key != "vars":
            said = {said: None}
        for one, inner in _mapping(said or {}, document, (*path, key)).items():
            at = document.at(*path, key, one)
            if key == "vars":
                out.keep(group.variables, one, Said(inner, document, (*path, key, one)))
            elif key == "children":
                if inner is not None and not isinstance(inner, dict):
                    raise ConfigError(f"{one} is not a group", location=at)
                out.child(name, one, at)
                _read_child(document, (*path, key, one), inner, out, depth)
            else:
                members = out.members(one, name, at)
                for variable, content in _mapping(inner or {}, document, (*path, key, one)).items():
                    for member in members:
                        out.keep(member.variables, variable, Said(content, document, (*path, key, one, variable)))


def _read_child(document: Document, path: Path_, inner: Any, out: AnsibleFiles, depth: int) -> None:
    if inner is None:
        # Named here, written out elsewhere or nowhere: Ansible takes it either way.
        out.groups[str(path[-1])].declared = True
    else:
        _read_group(document, path, out, depth + 1)


def _at(document: Document, path: Path_) -> Any:
    value: Any = document.data
    for part in path:
        value = value[part]
    return value


def _mapping(value: Any, document: Document, path: Path_) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path[-1]} is not a mapping", location=document.at(*path))
    return value


# ------------------------------------------------------------------------------------------------ INI


def _read_ini(text: str, file: str, out: AnsibleFiles) -> None:
    name, kind = "ungrouped", "hosts"
    for number, raw in enumerate(text.split("\n"), 1):
        line, at = raw.strip(), Location(file, number)
        if not line or line[0] in "#;":
            continue
        found = _SECTION.fullmatch(line)
        if found is not None:
            name, kind = found[1], found[2] or "hosts"
            if kind not in ("hosts", "children", "vars"):
                raise ConfigError(f"[{name}:{kind}] is no section", location=at, hint="children or vars")
            group = out.group(name, at)
            group.declared = group.declared or kind != "vars"
        elif kind == "hosts":
            _read_host_line(line, name, at, out)
        elif kind == "children":
            child = line.split("#")[0].strip()
            out.child(name, child, at)
        else:
            key, equals, value = line.partition("=")
            if not equals:
                raise ConfigError("no `name=value`", location=at)
            out.keep(out.groups[name].variables, key.strip(), _ini_value(key.strip(), value.strip(), at, out))


def _read_host_line(line: str, group: str, at: Location, out: AnsibleFiles) -> None:
    try:
        pattern, *rest = shlex.split(line, comments=True)
    except ValueError as error:
        raise ConfigError(f"cannot be taken apart: {error}", location=at, hint="a quote is missing") from None
    members = out.members(pattern, group, at)
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word} is no `name=value`", location=at, hint="values with blanks are quoted")
        said = _ini_value(key, value, at, out)
        for member in members:
            out.keep(member.variables, key, said)


def _ini_value(name: str, text: str, at: Location, out: AnsibleFiles) -> Said:
    """A value that is read as YAML has it, which the Python literals that Ansible takes are too."""
    if name not in out.wanted or "{{" in text or not text:
        return Said(text, at, (name,))
    try:
        (document,) = parse_documents(f"value: {text}".encode(), at.file, ConfigError)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.message}", location=at, hint=error.hint) from None
    return Said(document.data["value"], at, (name,))


# ------------------------------------------------------------------------------------------------ names of hosts


def host_names(pattern: str, origin: Location, most: int) -> Iterator[str]:
    """The names that `web[01:20].example.org:22` stands for; a port is left out."""
    inner = pattern[1:].partition("]")[0] if pattern.startswith("[") else ""
    if inner and canonical(inner):
        yield inner
        return
    if canonical(pattern) is None and pattern.rpartition("]")[2].count(":") == 1:
        pattern = _PORT.sub("", pattern)
    for count, name in enumerate(_expanded(pattern, origin), 1):
        if count > most:
            raise _too_many(most, origin)
        yield name


def _expanded(pattern: str, origin: Location) -> Iterator[str]:
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    head, tail = pattern[: found.start()], pattern[found.end() :]
    low, high, first, last, step = found.groups()
    if first is not None:
        begin, end = ascii_letters.find(first), ascii_letters.find(last)
    else:
        begin, end = int(low or "0"), int(high)
        if low[:1] == "0" and len(low) > 1 and len(low) != len(high):
            raise ConfigError(f"{found[0]}: both ends have as many digits", location=origin)
    if begin > end or step == "0":
        raise ConfigError(f"{found[0]} is no range", location=origin, hint="[01:20], [a:f], [0:10:2]")
    for at in range(begin, end + 1, int(step or "1")):
        middle = ascii_letters[at] if first is not None else str(at).zfill(len(low) if low[:1] == "0" else 0)
        for rest in _expanded(tail, origin):
            yield f"{head}{middle}{rest}"


def _too_many(most: int, origin: Location) -> InventoryError:
    return InventoryError(InventoryReason.TOO_MANY, f"more than {most} hosts", location=origin, hint="`most_hosts`")


# ------------------------------------------------------------------------------------------------ group_vars, host_vars


def _read_variables(folder: Path, out: AnsibleFiles) -> None:
    for name, names, into in (
        ("group_vars", out.groups, out.group_vars),
        ("host_vars", out.hosts, out.host_vars),
    ):
        where = folder / name
        if where.is_dir():
            entries_trusted(folder)  # where everybody may have made it
        for path in entries_trusted(where) if where.is_dir() else ():
            stem = path.stem if path.suffix in _OF_YAML and not path.is_dir() else path.name
            if stem in names:
                for file in _variable_files(path, 0):
                    _read_variable_file(file, into.setdefault(stem, {}), out)


def _variable_files(path: Path, depth: int) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    elif depth <= _DEPTH:
        for one in entries_trusted(path):
            if not one.name.startswith(".") and (one.is_dir() or one.suffix in ("", *_OF_YAML)):
                yield from _variable_files(one, depth + 1)


def _read_variable_file(path: Path, into: Variables, out: AnsibleFiles) -> None:
    raw = read_trusted(path)
    if raw.startswith(ENCRYPTED.encode()):
        place = Location(str(path))
        out.problems.append(InventoryProblem(InventoryReason.ENCRYPTED, "is encrypted: left out", place))
        return
    for document in parse_documents(_untagged(raw), str(path), ConfigError):
        for name, value in document.data.items():
            out.keep(into, name, Said(value, document, (name,)))
