"""What each step of an attack file means: Gauntlt's own steps and those of aruba that attack files use, as data.
Counterpart: `feature` reads the steps, `run` carries out what they mean, `expect` judges what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from vedette.model.errors import Location
from vedette.sources.attacks.actions import (
    EXPECTATIONS,
    Action,
    Cookies,
    Ends,
    ExitStatus,
    FileText,
    FileThere,
    FileXml,
    How,
    Installed,
    Launch,
    Output,
    Profile,
    SetVariables,
    Stream,
    VariableSet,
    Wait,
)
from vedette.sources.attacks.aliases import ALIASES
from vedette.sources.attacks.css import selector
from vedette.sources.attacks.feature import Problem, Scenario, Step
from vedette.sources.attacks.patterns import compiled
from vedette.sources.attacks.words import split_words

ADAPTERS = (
    "nmap", "arachni", "curl", "dirb", "garmr", "generic", "sqlmap", "sslyze", "Heartbleed", "zap-cli", "zap-api-scan",
)  # fmt: skip
PATHS: Mapping[str, str] = {"sslyze": "SSLYZE_PATH", "sqlmap": "SQLMAP_PATH", "zap-api-scan": "ZAP-API-SCAN_PATH"}
"""Programs that Gauntlt runs as scripts, and the variables of the environment that say where they are."""
BUILT_IN = {"sslyze": ("sslyze_path",), "sqlmap": ("sqlmap_path",), "dirb": ("dirb_wordlists_path",)}
"""Names that an adapter puts into the profile by itself."""
LONGEST_WAIT = 600


class StepError(ValueError):
    """A step that cannot be meant as written. at: a place within it, None = the step's own."""

    def __init__(self, message: str, hint: str = "", at: Location | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.at = at


@dataclass(frozen=True, slots=True)
class Meant:
    """A step with what it means."""

    step: Step
    action: Action


# ------------------------------------------------------------------------------------------- what stands under a step


def _doc(step: Step) -> str:
    if step.doc is None:
        raise StepError("nothing stands under this step", 'put the text under it between two lines of """')
    return step.doc


def _table(step: Step, *columns: str) -> list[dict[str, str]]:
    if step.table is None:
        raise StepError("no table stands under this step", f"add one with columns | {' | '.join(columns)} |")
    header, *rows = step.table
    missing = [name for name in columns if name not in header]
    if missing or len(set(header)) < len(header):
        wrong = f"no column {missing[0]!r}" if missing else "a column twice"
        raise StepError(f"bad table: {wrong}", f"its first row is | {' | '.join(columns)} |", step.rows_at[0])
    if not rows:
        raise StepError("bad table: no rows under its header", at=step.rows_at[0])
    for row, at in zip(rows, step.rows_at[1:], strict=True):
        for name, cell in zip(header, row, strict=True):
            if name == columns[0] and not cell:
                raise StepError(f"bad table: {name} is empty", at=at)
    return [dict(zip(header, row, strict=True)) for row in rows]


def _pairs(step: Step, value: str) -> dict[str, str]:
    return {row["name"]: row[value] for row in _table(step, "name", value)}


def _without(step: Step) -> None:
    if step.doc is not None or step.table is not None:
        raise StepError("this step takes nothing under it", "a step that does ends with a colon")


def _matched(pattern: str) -> str:
    try:
        compiled(unescape(pattern))
    except ValueError as error:
        raise StepError(f"no regular expression: {error}") from None
    return pattern


def _selectors(step: Step) -> tuple[str, ...]:
    found = tuple(row["css"] for row in _table(step, "css"))
    for one, at in zip(found, step.rows_at[1:], strict=True):
        try:
            selector(one)
        except ValueError as error:
            raise StepError(f"no CSS selector: {error}", at=at) from None
    return found


def unescape(text: str) -> str:
    r"""Expected text as aruba reads it: `\n`, `\e` and `\"` stand for newline, escape and the quote."""
    return text.replace("\\n", "\n").replace('\\"', '"').replace("\\e", "\x1b")


# ------------------------------------------------------------------------------------------- the steps

Build = Callable[[re.Match[str], Step], Action]


@dataclass(frozen=True, slots=True)
class Definition:
    """A step: its words, what they mean, and an example to show to who mistyped it."""

    pattern: re.Pattern[str]
    build: Build
    example: str


_INSTALLED = "|".join(re.escape(one) for one in ADAPTERS if one != "generic")
_LAUNCHED = "|".join(re.escape(one) for one in ADAPTERS)
_NEGATIONS = {"should": False, "should not": True}


def _plain(build: Callable[[re.Match[str]], Action]) -> Build:
    def made(found: re.Match[str], step: Step) -> Action:
        _without(step)
        return build(found)

    return made


def _launch(found: re.Match[str], step: Step) -> Action:
    return Launch(found[1], _doc(step), step.doc_at)


def _alias(found: re.Match[str], step: Step) -> Action:
    _without(step)
    command = ALIASES.get(found[1])
    if command is None:
        near = get_close_matches(found[1], ALIASES, 1, 0.3)
        raise StepError(f"unknown attack alias {found[1]!r}", f"did you mean {near[0]!r}?" if near else "")
    return Launch(found[2], command, step.at)


def _zap_api(found: re.Match[str], step: Step) -> Action:
    _without(step)
    *host, documentation = found.groups()
    where = f' -O "{host[0]}"' if host else ""
    return Launch("zap-api-scan", f'zap-api-scan -f openapi{where} -t "{documentation}"', step.at)


def _i_run(found: re.Match[str], step: Step) -> Action:
    _without(step)
    return Launch("generic", found[1], step.at)


def _i_successfully_run(found: re.Match[str], step: Step) -> Action:
    _without(step)
    seconds = int(found[2]) if found[2] else None
    return Launch("generic", found[1], step.at, must_succeed=True, seconds=seconds)


def _wait(found: re.Match[str], step: Step) -> Action:
    _without(step)
    if int(found[1]) > LONGEST_WAIT:
        raise StepError(f"waits longer than {LONGEST_WAIT} seconds")
    return Wait(int(found[1]))


def _output_inline(found: re.Match[str], step: Step) -> Action:
    _without(step)
    return _of_output(found, found["text"])


def _output_below(found: re.Match[str], step: Step) -> Action:
    return _of_output(found, _doc(step))


def _of_output(found: re.Match[str], text: str) -> Action:
    groups = found.groupdict()
    stream = Stream(groups.get("stream") or "output")
    how = How.EXACTLY if groups.get("exactly") else How.CONTAINS
    return Output(stream, how, text, _NEGATIONS[found["should"]], groups.get("of"))


def _match_inline(found: re.Match[str], step: Step) -> Action:
    _without(step)
    return Output(Stream.OUTPUT, How.MATCHES, _matched(found["text"]), _NEGATIONS[found["should"]])


def _match_below(found: re.Match[str], step: Step) -> Action:
    return Output(Stream.OUTPUT, How.MATCHES, _matched(_doc(step)), _NEGATIONS[found["should"]])


def _ends(found: re.Match[str], step: Step) -> Action:
    how = {"": How.CONTAINS, "exactly": How.EXACTLY, "regex": How.MATCHES, "regexp": How.MATCHES}[found[2] or ""]
    text = _matched(_doc(step)) if how is How.MATCHES else _doc(step)
    return Ends(found[1] == "pass", how, text)


def _xml(found: re.Match[str], step: Step) -> Action:
    return FileXml(found[1], _selectors(step), _NEGATIONS[found[2]])


def _cookies(_: re.Match[str], step: Step) -> Action:
    return Cookies(tuple(_table(step, "name")))


def _define(pattern: str, build: Build, example: str) -> Definition:
    return Definition(re.compile(pattern), build, example)


DEFINITIONS: Sequence[Definition] = (
    _define(rf'"({_INSTALLED})" is installed', _plain(lambda m: Installed(m[1])), '"nmap" is installed'),
    _define(r'"(\w+)" is installed in my path', _plain(lambda m: Installed(m[1])), '"nmap" is installed in my path'),
    _define(
        r'the "(.*?)" command line binary is installed',
        _plain(lambda m: Installed(m[1])),
        'the "nmap" command line binary is installed',
    ),
    _define(
        r"the DIRB_WORDLISTS environment variable is set",
        _plain(lambda _: VariableSet("DIRB_WORDLISTS")),
        "the DIRB_WORDLISTS environment variable is set",
    ),
    _define("the following profile:", lambda _, s: Profile(_pairs(s, "value")), "the following profile:"),
    _define(
        "the following environment variables:",
        lambda _, s: Profile(_pairs(s, "environment_variable_name"), secret=True),
        "the following environment variables:",
    ),
    _define(
        "I set the environment variables to:",
        lambda _, s: SetVariables({row["variable"]: row["value"] for row in _table(s, "variable", "value")}),
        "I set the environment variables to:",
    ),
    _define(rf'I launch an? "({_LAUNCHED})" attack with:', _launch, 'I launch a "nmap" attack with:'),
    _define(r'I launch an? "((nmap|arachni|dirb)-.*?)" attack', _alias, 'I launch an "nmap-fast" attack'),
    _define(
        r'I launch an? "zap-api-scan" attack on the host "(.*)" whose documentation is available in "(.*)"',
        _zap_api,
        'I launch a "zap-api-scan" attack on the host "" whose documentation is available in ""',
    ),
    _define(
        r'I launch an? "zap-api-scan" attack on a web service whose documentation is available in "(.*)"',
        _zap_api,
        'I launch a "zap-api-scan" attack on a web service whose documentation is available in ""',
    ),
    _define(r"I wait for (\d{1,9}) seconds?", _wait, "I wait for 5 seconds"),
    _define(r"I run `([^`]*)`", _i_run, "I run `nmap -F localhost`"),
    _define(
        r"I successfully run `(.*?)`(?: for up to (\d{1,9}) seconds)?", _i_successfully_run, "I successfully run `ls`"
    ),
    _define(
        r'the (?P<stream>output) (?P<should>should(?: not)?) contain "(?P<text>[^"]*)"',
        _output_inline,
        'the output should contain ""',
    ),
    _define(
        r"the (?P<stream>output) (?P<should>should(?: not)?) contain:", _output_below, "the output should contain:"
    ),
    _define(
        r'the (?P<stream>output)(?: from "(?P<of>.*?)")? (?P<should>should) contain (?P<exactly>exactly) '
        r'"(?P<text>.*?)"',
        _output_inline,
        'the output should contain exactly ""',
    ),
    _define(
        r'the (?P<stream>output)(?: from "(?P<of>.*?)")? (?P<should>should) contain (?P<exactly>exactly):',
        _output_below,
        "the output should contain exactly:",
    ),
    _define(
        r"the output (?P<should>should(?: not)?) match /(?P<text>[^/]*)/",
        _match_inline,
        "the output should match /open/",
    ),
    _define(r"the output (?P<should>should(?: not)?) match:", _match_below, "the output should match:"),
    _define(
        r"the exit status (should|should not) be (\d{1,9})",
        _plain(lambda m: ExitStatus(int(m[2]), _NEGATIONS[m[1]])),
        "the exit status should be 0",
    ),
    _define(r"it should (pass|fail) with(?: (exactly|regexp?))?:", _ends, "it should pass with:"),
    _define(
        r'the (?P<stream>stderr|stdout)(?: from "(?P<of>.*?)")? (?P<should>should) contain(?P<exactly> exactly)? '
        r'"(?P<text>.*?)"',
        _output_inline,
        'the stdout should contain ""',
    ),
    _define(
        r'the (?P<stream>stderr|stdout)(?: from "(?P<of>.*?)")? (?P<should>should) contain(?P<exactly> exactly)?:',
        _output_below,
        "the stdout should contain:",
    ),
    _define(
        r"the (stderr|stdout) should not contain anything",
        _plain(lambda m: Output(Stream(m[1]), How.EMPTY, "")),
        "the stderr should not contain anything",
    ),
    _define(
        r'the (?P<stream>stderr|stdout)(?: from "(?P<of>.*?)")? (?P<should>should not) contain "(?P<text>[^"]*)"',
        _output_inline,
        'the stdout should not contain ""',
    ),
    _define(
        r'the (?P<stream>stderr|stdout)(?: from "(?P<of>.*?)")? (?P<should>should not) contain:',
        _output_below,
        "the stdout should not contain:",
    ),
    _define(r'the file "(.*?)" (should|should not) contain XML:', _xml, 'the file "" should contain XML:'),
    _define("the following cookies should be received:", _cookies, "the following cookies should be received:"),
    _define(
        r'(?:a|the) file "([^"]*)" (should|should not) contain "([^"]*)"',
        _plain(lambda m: FileText(m[1], m[3], _NEGATIONS[m[2]])),
        'the file "" should contain ""',
    ),
    _define(
        r'(?:a|the) file(?: named)? "([^"]*)" (should|should not) exist',
        _plain(lambda m: FileThere(m[1], _NEGATIONS[m[2]])),
        'the file "" should exist',
    ),
)


def meant(step: Step) -> Action:
    """What a step means; StepError where it means nothing."""
    for one in DEFINITIONS:
        found = one.pattern.fullmatch(step.text)
        if found is not None:
            return one.build(found, step)
    raise StepError(f"unknown step: {step.text}", _nearest(step.text))


def _lost(remark: Step) -> Problem | None:
    """A line of a description that is a step but for its first word: Gherkin would leave it out and say nothing."""
    word, _, rest = remark.text.partition(" ")
    if not any(one.pattern.fullmatch(rest.strip()) for one in DEFINITIONS):
        return None
    near = get_close_matches(word, ("Given", "When", "Then", "And", "But"), 1, 0.5)
    return Problem(remark.at, f"unknown keyword {word!r}", f"did you mean {near[0]!r}?" if near else "")


def _nearest(text: str) -> str:
    """The known step nearest to `text`, what stands between quotes left alone."""
    quoted = re.findall(r'"([^"]*)"', text)
    bare = {
        re.sub(r'"[^"]*"', '""', words): words
        for one in DEFINITIONS
        for words in (one.example, one.example.replace(" should ", " should not "))
        if one.pattern.fullmatch(words)
    }
    near = get_close_matches(re.sub(r'"[^"]*"', '""', text), bare, 1, 0.6)
    if not near:
        return "docs/attacks.md lists the steps"
    parts = near[0].split('""')
    whole = bare[near[0]].split('"')[1::2]
    pieces = [parts[0]]
    for number, part in enumerate(parts[1:]):
        kept = quoted[number] if number < len(quoted) else ""
        example = whole[number]
        if example in ADAPTERS or example in ALIASES:
            kept = (get_close_matches(kept, [*ADAPTERS, *ALIASES], 1, 0.6) or [example])[0]
        pieces.append(f'"{kept}"{part}')
    return f"did you mean: {''.join(pieces)}"


def recognise(scenario: Scenario) -> tuple[list[Meant], list[Problem]]:
    """Every step of a scenario with its meaning, and what is wrong with those that have none.

    Commands are looked at with the names that steps before them give; values of the environment are not read.
    """
    out: list[Meant] = []
    problems = [lost for remark in scenario.remarks if (lost := _lost(remark))]
    known: dict[str, str] = {}
    for step in scenario.steps:
        try:
            action = meant(step)
            if isinstance(action, Profile):
                known |= dict.fromkeys(action.values, "x") if action.secret else action.values
            elif isinstance(action, Launch):
                _check_command(action, known)
        except StepError as error:
            problems.append(Problem(error.at or step.at, str(error), error.hint))
            continue
        out.append(Meant(step, action))
    return out, problems


def _check_command(launch: Launch, known: Mapping[str, str]) -> None:
    given = {**dict.fromkeys(BUILT_IN.get(launch.adapter, ()), "x"), **known}
    try:
        words = split_words(launch.command, given)
    except ValueError as error:
        message = str(error)
        hint = "give it in `the following profile:`" if message.startswith("no value") else ""
        raise StepError(message, hint, launch.at) from None
    if not words:
        raise StepError("no command", at=launch.at)


def notes(steps: Iterable[Meant]) -> list[tuple[Step, str]]:
    """What a person should know of steps that are right and may not say what they seem to."""
    steps = list(steps)
    said = []
    for one in steps:
        action = one.action
        lines = action.wanted.strip().splitlines() if isinstance(action, Output) and action.how is How.CONTAINS else []
        if isinstance(action, Output) and action.negative and len(lines) > 1:
            said.append((one.step, f"holds unless all {len(lines)} lines stand together; write a step for each"))
    if not any(isinstance(one.action, EXPECTATIONS) or _expects(one.action) for one in steps) and steps:
        said.append((steps[-1].step, "nothing is expected in this scenario: it cannot pass"))
    return said


def _expects(action: Action) -> bool:
    return isinstance(action, Launch) and action.must_succeed
