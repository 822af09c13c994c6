"""Other programs' installations taken over: what each importer reads, and the files and report it gives back.
Counterpart: `cli.rules.importing` chooses one of IMPORTERS and writes what comes out; nothing here writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from pathlib import Path

import yaml

from vedette.model.errors import Location, VedetteError


class Equal(StrEnum):
    """How near what we have comes to what was configured there."""

    SAME = "same"
    CHANGED = "changed"
    """It is there, and works otherwise; the words say how."""
    NONE = "none"
    """Nothing of ours does this."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What became of one setting. words: for people, in one sentence."""

    equal: Equal
    place: Location
    words: str


@dataclass(slots=True)
class Imported:
    """What an installation becomes.

    settings: our configuration as plain values, which the caller writes as `vedette.yml`; a Path names one of `files`
    or the folder it is in. files: further files by
    their path below the folder (rules, decoders, lists), byte for byte. remarks: one for every setting read.
    """

    settings: dict[str, object] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Importer:
    """One kind of installation. module: has `looks_like(path) -> bool` and `read(path) -> Imported`."""

    name: str
    module: str

    def looks_like(self, path: Path) -> bool:
        """Whether `path` is such an installation."""
        found: Callable[[Path], bool] = import_module(self.module).looks_like
        return found(path)

    def read(self, path: Path) -> Imported:
        """Take it over; VedetteError where nothing can be read."""
        found: Callable[[Path], Imported] = import_module(self.module).read
        return found(path)


IMPORTERS: Mapping[str, Importer] = {
    "ossec": Importer("ossec", "vedette.app.importing_ossec"),
    "fail2ban": Importer("fail2ban", "vedette.app.importing_fail2ban"),
    "denyhosts": Importer("denyhosts", "vedette.app.importing_denyhosts"),
}
"""Every kind in one visible place, in the order in which they are asked."""


def importer_of(path: Path, kind: str = "") -> Importer:
    """The importer called `kind`, or the first that knows `path`; VedetteError where there is none."""
    if kind:
        if kind not in IMPORTERS:
            raise VedetteError(f"nothing imports {kind!r}", hint=f"known are {', '.join(IMPORTERS)}")
        return IMPORTERS[kind]
    if not path.exists():
        raise VedetteError(f"{path}: no such file or folder")
    found = next((importer for importer in IMPORTERS.values() if importer.looks_like(path)), None)
    if found is None:
        raise VedetteError(
            f"{path} is no installation that is known", hint=f"say which with --kind: {', '.join(IMPORTERS)}"
        )
    return found


def written(settings: Mapping[str, object], folder: Path) -> bytes:
    """A configuration as YAML, in the order it was put together. A Path in it lies below `folder`."""
    return yaml.safe_dump(_placed(settings, folder.resolve()), sort_keys=False, allow_unicode=True, width=100).encode()


def _placed(value: object, folder: Path) -> object:
    if isinstance(value, Path):
        return str(folder / value)
    if isinstance(value, Mapping):
        return {str(name): _placed(one, folder) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_placed(one, folder) for one in value]
    return value
