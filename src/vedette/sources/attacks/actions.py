"""What a step of an attack file can mean, as data: what is to be there, to be run, and to be expected.
Counterpart: `steps` recognises them in files, `run` carries them out, `expect` and `judge` look at what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from vedette.model.errors import Location


class Stream(StrEnum):
    """What of a program is looked at; OUTPUT is both, as aruba puts them together."""

    OUTPUT = "output"
    STDOUT = "stdout"
    STDERR = "stderr"


class How(Enum):
    """How text is compared."""

    CONTAINS = 1
    EXACTLY = 2
    MATCHES = 3
    EMPTY = 4


@dataclass(frozen=True, slots=True)
class Installed:
    """A program must be there."""

    program: str


@dataclass(frozen=True, slots=True)
class VariableSet:
    """A variable of the environment must be set."""

    variable: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Values for `<name>` in commands; with secret the values are names of variables of the environment."""

    values: Mapping[str, str]
    secret: bool = False


@dataclass(frozen=True, slots=True)
class SetVariables:
    """Variables for the programs that are run afterwards."""

    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Launch:
    """Run a command. at: where it is written. must_succeed: exit status 0 is expected. seconds: its own time-out."""

    adapter: str
    command: str
    at: Location
    must_succeed: bool = False
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Output:
    """What the programs of this scenario wrote. of: of that command alone."""

    stream: Stream
    how: How
    wanted: str
    negative: bool = False
    of: str | None = None


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How the last program ended."""

    status: int
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Ends:
    """The last program ended well (or not), and the output has this."""

    well: bool
    how: How
    wanted: str


@dataclass(frozen=True, slots=True)
class FileText:
    """A file has (or has not) this text."""

    path: str
    wanted: str
    negative: bool = False


@dataclass(frozen=True, slots=True)
class FileThere:
    """A file is there, or is not."""

    path: str
    negative: bool = False


@dataclass(frozen=True, slots=True)
class FileXml:
    """A file has an element for each of these CSS selectors (or for none)."""

    path: str
    selectors: tuple[str, ...]
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Cookies:
    """The last curl was sent these cookies, each with the attributes that are not empty."""

    rows: tuple[Mapping[str, str], ...]


Expectation = Output | ExitStatus | Ends | FileText | FileThere | FileXml | Cookies
Action = Installed | VariableSet | Profile | SetVariables | Launch | Wait | Expectation
EXPECTATIONS = (Output, ExitStatus, Ends, FileText, FileThere, FileXml, Cookies)
