"""Which files are rules: those named, those in the folders named, and our packs; and which are pipelines.
Counterpart: `loading` reads them; whoever asks whether any changed need not import what compiles them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vedette.model.errors import Location, RuleError
from vedette.rules.problems import did_you_mean

PACKS = Path(__file__).parent / "packs"
PIPELINES = Path(__file__).parent / "pipelines"
SUFFIXES = (".yml", ".yaml")
TREE_SUFFIX = ".xml"
"""Rules and decoders of OSSEC and Wazuh."""
CONFIGURATIONS = ("ossec-server.conf", "ossec.conf")
"""What an installation of OSSEC or Wazuh is configured by."""
_CONFIGURATION_LIMIT = 4 * 1024 * 1024
_INCLUDE = re.compile(r"<include>([^<]+)</include>")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINE_SUFFIXES = (".conf", ".local")
"""Filters and jails of fail2ban."""
_JAILS = ("jail.conf", "jail.local", "jail.d", "filter.d")
_INSTALLED = ("ruleset/decoders", "ruleset/rules", "etc", "decoders", "rules", "etc/decoders", "etc/rules")


def has_lines(path: Path) -> bool:
    """Whether `path` is an installation of fail2ban, a folder of its filters, or a file of it."""
    if path.is_file():
        return path.suffix in LINE_SUFFIXES and path.name not in CONFIGURATIONS
    if any((path / name).exists() for name in _JAILS):
        return True
    return any(is_filter(file) for file in path.glob("*.conf"))


def is_filter(file: Path) -> bool:
    """Whether a file is one of fail2ban's filters."""
    try:
        with file.open("rb") as stream:
            return b"[Definition]" in stream.read(1 << 16)
    except OSError:
        return False


def line_files(path: Path) -> list[Path]:
    """Every file that may say something of fail2ban's rules in a folder, or of one filter."""
    if path.is_file():
        return [file for suffix in LINE_SUFFIXES if (file := path.with_suffix(suffix)).is_file()]
    found = [file for suffix in LINE_SUFFIXES for file in path.rglob(f"*{suffix}") if file.is_file()]
    return sorted(found, key=lambda file: str(file).encode("utf-8", "surrogateescape"))


def rule_files(path: Path) -> list[Path]:
    """The rule files of a path: itself, or those in a folder, recursively, in byte order of their whole names.

    XML is taken from the folder itself and no deeper. A configuration of OSSEC that lies there adds what it includes
    from elsewhere, in its order; one that is named gives its installation's own files in its own order.
    """
    if not path.is_dir():
        if not path.exists():
            raise RuleError("no such file or folder", location=Location(str(path)))
        if path.name in CONFIGURATIONS:
            return _installed(path)
        if path.suffix in LINE_SUFFIXES:
            return line_files(path)
        # What has no suffix is a list that rules look things up in.
        return [path] if path.suffix else []
    found = [file for suffix in SUFFIXES for file in path.rglob(f"*{suffix}") if file.is_file()]
    trees = [file for file in path.glob(f"*{TREE_SUFFIX}") if file.is_file()]
    places = [path] if trees else [path, path / "etc"]
    configurations = [file for place in places for name in CONFIGURATIONS if (file := place / name).is_file()]
    found += trees
    if not configurations and has_lines(path):
        found += line_files(path)
    further: list[Path] = []
    if configurations and not trees:
        further = _installed(configurations[0])
    elif configurations:
        further = _included(configurations[0])
    return list(dict.fromkeys([*_in_order(found), *further]))


def _installed(configuration: Path) -> list[Path]:
    """Decoders, then the rules that are included, as they are: the order decides between rules of one level."""
    files, included = _beside(configuration), _included(configuration)
    if not included:
        return files
    folders = {file.parent for file in included}
    return [*(file for file in files if file.parent not in folders), *included]


def _included(configuration: Path) -> list[Path]:
    """The rules that a configuration includes, in its order."""
    text = configuration.read_bytes()[:_CONFIGURATION_LIMIT].decode("utf-8", "replace")
    names = [Path(one.strip()).name for one in _INCLUDE.findall(_COMMENT.sub("", text))]
    by_name = {file.name: file for file in _beside(configuration)}
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name]


def _beside(configuration: Path) -> list[Path]:
    """The XML of the installation that a configuration is of."""
    here = configuration.parent
    places = [here, *(here / name for name in _INSTALLED)]
    if here.name == "etc":
        places += [here.parent / name for name in _INSTALLED]
    return _in_order(file for place in places for file in place.glob(f"*{TREE_SUFFIX}") if file.is_file())


def _in_order(files: Iterable[Path]) -> list[Path]:
    return sorted(set(files), key=lambda file: str(file).encode("utf-8", "surrogateescape"))


def iter_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files `load` would read for `paths`, in its order."""
    for path in paths:
        yield from rule_files(path)


def pipeline_names() -> list[str]:
    """The pipelines that come with the program."""
    return sorted(file.stem for file in PIPELINES.glob("*.yml"))


def pipeline_files(words: Sequence[str]) -> list[Path]:
    """The file of each: one of ours by name, or a path ending in .yml or .yaml. RuleError where there is none."""
    found = []
    for word in words:
        path = Path(word) if word.endswith(SUFFIXES) else PIPELINES / f"{word}.yml"
        if not path.is_file():
            known = pipeline_names()
            hint = did_you_mean(word, known) or f"ours are {', '.join(known)}; others are files ending in .yml"
            raise RuleError("no such pipeline", location=Location(word), hint=hint)
        found.append(path)
    return found
