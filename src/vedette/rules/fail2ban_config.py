"""fail2ban's configuration files: layers, includes, `%(name)s` and `<tag>`, each value with where it stands.
Counterpart: `failregex` asks for filters, `fail2ban_jails` for jails; nothing here knows what an option means."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vedette.model.errors import Location, RuleError

LARGEST_FILE = 1 << 20
LONGEST_VALUE = 1 << 18
"""Characters of a value once everything is put in: names that double each other end here."""

_DEEPEST = 10
_MOST_FILES = 200
_PUT_IN = 1_000
_ROUNDS = 30
_INTERPOLATED = re.compile(r"%(?:%|\(([^()]+)\)s)")
_TAG = re.compile(r"<([^ <>]+)>")
_CONDITIONAL = re.compile(r"^(\w+)(\?.+)$")

_DEFAULT = "DEFAULT"
_INCLUDES = "INCLUDES"


@dataclass(slots=True)
class Config:
    """Several files laid over each other. sections: raw values by option; places: where each was written last."""

    sections: dict[str, dict[str, str]] = field(default_factory=dict)
    places: dict[tuple[str, str], Location] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def has(self, section: str) -> bool:
        """Whether there is such a section."""
        return section in self.sections

    def options(self, section: str) -> list[str]:
        """The options of a section itself, without the defaults."""
        return [name for name in self.sections.get(section, {}) if not name.startswith("known/")]

    def place(self, section: str, option: str) -> Location:
        """Where an option was written last; the last file where it was not."""
        found = self.places.get((section, option)) or self.places.get((_DEFAULT, option))
        return found or Location(str(self.files[-1]) if self.files else "<fail2ban>")

    def raw(self, section: str, option: str, over: Mapping[str, str]) -> str | None:
        """The value as written: of `over`, of the section, of the defaults; `section/option` names another one."""
        option = option.lower()
        if option in over:
            return over[option]
        for named in (section, _DEFAULT):
            found = self.sections.get(named, {}).get(option)
            if found is not None:
                return found
        if "/" in option:
            other, _, name = option.partition("/")
            if other == "default":
                return self.sections.get(_DEFAULT, {}).get(name)
            if other == "known":
                return self.sections.get(_DEFAULT, {}).get(name)
            return next(
                (
                    value
                    for named, values in self.sections.items()
                    if named.lower() == other and (value := values.get(name)) is not None
                ),
                None,
            )
        return None

    def get(self, section: str, option: str, over: Mapping[str, str] = {}) -> str | None:
        """The value with every `%(name)s` put in; None where there is none. RuleError where that does not end."""
        raw = self.raw(section, option, over)
        return None if raw is None else self._put_in(section, option, raw, over, 0, [0])

    def _put_in(
        self, section: str, option: str, raw: str, over: Mapping[str, str], depth: int, count: list[int]
    ) -> str:
        place = self.place(section, option)
        if depth > _DEEPEST:
            raise RuleError(f"{option}: names stand in each other without end", location=place)

        def value(match: re.Match[str]) -> str:
            if match[1] is None:
                return "%"
            count[0] += 1
            if count[0] > _PUT_IN:
                raise RuleError(f"{option}: more than {_PUT_IN} names to put in", location=place)
            name = match[1].lower()
            found = section if name == "__name__" else self.raw(section, name, over)
            if found is None:
                raise RuleError(f"{option}: there is no {match[1]!r} to put in", location=place)
            return self._put_in(section, option, found, over, depth + 1, count)

        text = _INTERPOLATED.sub(value, raw)
        if len(text) > LONGEST_VALUE:
            raise RuleError(f"{option}: longer than {LONGEST_VALUE} characters", location=place)
        return text

    def combined(self, values: Mapping[str, str], option: str, over: Mapping[str, str]) -> str:
        """The option of `values` with every `<tag>` put in: of `values`, else of [Definition] and the defaults."""
        text = values[option]
        place = self.place("Definition", option)
        known: dict[str, str | None] = {}

        def tag(match: re.Match[str]) -> str:
            name = match[1]
            if name not in known:
                found = values.get(name)
                if found is None and "/" in name and not name.startswith("/"):
                    other, _, inner = name.partition("/")
                    named = next((one for one in self.sections if one.lower() == other.lower()), None)
                    found = None if named is None else self.get(named, inner, over)
                if found is None and re.fullmatch(r"[\w\-/]+", name):
                    found = self.get("Definition", name, over)
                known[name] = found
            found = known[name]
            if found is not None and found == text:
                raise RuleError(f"{option}: <{name}> is put into itself", location=place)
            return match[0] if found is None else found

        for _ in range(_ROUNDS):
            replaced = _TAG.sub(tag, text)
            if replaced == text:
                return text
            if len(replaced) > LONGEST_VALUE:
                break
            text = replaced
        raise RuleError(f"{option}: tags stand in each other without end", location=place)


# ------------------------------------------------------------------------------------------------------- reading


def read_config(paths: Iterable[Path]) -> Config:
    """Those of `paths` that are there, in order, with what they include. RuleError: the first that cannot be read."""
    config = Config()
    for path in paths:
        if path.is_file():
            _read(config, path, ())
    return config


def layers(folder: Path, name: str) -> list[Path]:
    """The files that make one configuration: NAME.conf, NAME.d/*.conf, NAME.local, NAME.d/*.local."""
    found = []
    for suffix in ("conf", "local"):
        found.append(folder / f"{name}.{suffix}")
        found += sorted((folder / f"{name}.d").glob(f"*.{suffix}"), key=lambda path: path.name.encode())
    return [path for path in found if path.is_file()]


def _read(config: Config, path: Path, seen: tuple[Path, ...]) -> None:
    if len(config.files) >= _MOST_FILES or len(seen) > _DEEPEST:
        raise RuleError("includes stand in each other without end", location=Location(str(path)))
    parser = _parse(path)
    values = dict(parser.items(_INCLUDES)) if parser.has_section(_INCLUDES) else {}
    for included in _included(path, values.get("before", "")):
        if included not in seen:
            _read(config, included, (*seen, path))
    config.files.append(path)
    places = _places(path)
    for section in (_DEFAULT, *parser.sections()):
        own = config.sections.setdefault(section, {})
        pairs = parser.defaults() if section == _DEFAULT else _own(parser, section)
        for name, value in pairs.items():
            if name in own:
                own[f"known/{name}"] = own[name]
            own[name] = value
            config.places[section, name] = Location(str(path), places.get((section, name), 0))
    for included in _included(path, values.get("after", "")):
        if included not in seen:
            _read(config, included, (*seen, path))


def _own(parser: configparser.RawConfigParser, section: str) -> dict[str, str]:
    inherited = parser.defaults()
    # A section's own value may be the same as the inherited one; then it makes no difference which it is.
    return {name: value for name, value in parser.items(section) if name not in inherited or inherited[name] != value}


def _included(path: Path, text: str) -> list[Path]:
    """The files named; each that has a .local beside it goes on with that one."""
    found = []
    for name in text.split("\n"):
        if not name.strip():
            continue
        file = path.parent / name.strip()
        if file.is_file():
            found.append(file)
    return found


def _parse(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise RuleError(f"cannot be read: {error.strerror or error}", location=Location(str(path))) from None
    if len(raw) > LARGEST_FILE:
        raise RuleError(f"larger than {LARGEST_FILE} bytes", location=Location(str(path)))
    try:
        parser.read_string(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RuleError("is not UTF-8", location=Location(str(path), line)) from None
    except configparser.Error as error:
        raise RuleError(_words(error), location=Location(str(path), _line(error))) from None
    return parser


def _line(error: configparser.Error) -> int:
    if errors := getattr(error, "errors", None):
        return int(errors[0][0])
    return int(getattr(error, "lineno", 0) or 0)


def _words(error: configparser.Error) -> str:
    match error:
        case configparser.MissingSectionHeaderError():
            return "stands before the first [section]"
        case configparser.DuplicateOptionError():
            return f"option {error.option!r} is there twice in [{error.section}]"
        case configparser.DuplicateSectionError():
            return f"section [{error.section}] is there twice"
        case configparser.ParsingError():
            return "is neither a section, an option nor a comment"
    return str(error).splitlines()[0]


_HEADER = re.compile(r"\[([^]]+)\]")
_OPTION = re.compile(r"([^\s:=#;][^:=]*?)\s*[:=]")


def _places(path: Path) -> dict[tuple[str, str], int]:
    """Lines of the options of a file."""
    found: dict[tuple[str, str], int] = {}
    section = _DEFAULT
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        if header := _HEADER.match(line):
            section = header[1]
        elif option := _OPTION.match(line):
            found[section, option[1].strip().lower()] = number
    return found


def conditional(name: str) -> bool:
    """Whether an option stands for one family only (`name?family=inet6`), as those of actions may."""
    return _CONDITIONAL.match(name) is not None
