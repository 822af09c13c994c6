"""A scenario, run: profile filled in, programs started in a folder of its own, expectations asked one by one.
Counterpart: `steps` says what the steps mean, `judge` whether a pass means anything, `outcomes` keeps the result."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

from vedette.model.clock import Clock
from vedette.model.ports import NOWHERE, Network
from vedette.sources.attacks.actions import EXPECTATIONS, Installed, Launch, Profile, SetVariables, VariableSet, Wait
from vedette.sources.attacks.evidence import Ran, known_as, proof, with_evidence
from vedette.sources.attacks.expect import Held, Seen, Signature, files_of, holds, signature
from vedette.sources.attacks.feature import Scenario, Step
from vedette.sources.attacks.judge import Met, vacuity
from vedette.sources.attacks.outcomes import AttackOutcome, Reason, Verdict
from vedette.sources.attacks.steps import PATHS, Meant, notes
from vedette.sources.attacks.targets import Resolve, refused
from vedette.sources.attacks.words import split_words
from vedette.system.bounded import run_bounded
from vedette.text.escape import shorten

SHORT, SLOW, REALLY_SLOW = 3.0, 30.0, 600.0
"""Seconds a program may take: without a tag, with `@slow`, with `@reallyslow`."""
OUTPUT_LIMIT = 8 * 1024 * 1024
FILE_LIMIT = 64 * 1024 * 1024
_SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXY = re.compile(r"\w+_proxy", re.IGNORECASE)
_DEBIAN_WORDLISTS = Path("/usr/share/dirb/wordlists")
_TOLD = re.compile(r"(?im)^([<>* ]*(?:proxy-)?(?:authorization|cookie|set-cookie)\s*:).*$")
"""Headers that hold secrets, or secrets in another spelling."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What runs of scenarios may do. own_networks: the only targets that may be looked at, None = whatever is written.

    environment: where variables are read from. timeout: seconds for a program without a tag. stop: set from another
    thread, ends the run.
    """

    environment: Mapping[str, str]
    resolve: Resolve
    own_networks: Sequence[Network] | None = None
    timeout: float = SHORT
    stop: threading.Event | None = None
    sleep: Callable[[float], None] = time.sleep


class _OverError(Exception):
    """The scenario is at its end before its last step."""

    def __init__(self, verdict: Verdict, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.verdict = verdict
        self.reason = reason


def _untold(reason: Reason, words: str) -> _OverError:
    return _OverError(Verdict.COULD_NOT_TELL, reason, words)


@dataclass(slots=True)
class _Running:
    """One scenario while it runs."""

    bounds: Bounds
    timeout: float
    seen: Seen
    values: dict[str, str] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)
    """Values of the environment that no output may show, with the names they are shown by."""
    variables: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    met: list[Met] = field(default_factory=list)
    asserting: bool = False

    # ------------------------------------------------------------------------------------------- steps

    def do(self, one: Meant) -> None:
        if self.bounds.stop is not None and self.bounds.stop.is_set():
            raise _untold(Reason.STOPPED, "ended before its last step")
        action = one.action
        match action:
            case Installed():
                self._need(action.program)
            case VariableSet():
                if not self.bounds.environment.get(action.variable):
                    raise _untold(Reason.ENVIRONMENT_NOT_SET, f"{action.variable} is not set in the environment")
            case Profile(secret=False):
                self.values |= action.values
            case Profile():
                self._take_from_environment(action.values)
            case SetVariables():
                self.variables |= action.values
            case Wait():
                if self.bounds.stop is not None:
                    self.bounds.stop.wait(action.seconds)
                else:
                    self.bounds.sleep(action.seconds)
            case Launch():
                self._launch(action)
            case _:
                self._expect(one.step, action)

    def _take_from_environment(self, names: Mapping[str, str]) -> None:
        for name, variable in names.items():
            value = self.bounds.environment.get(variable)
            if value is None:
                raise _untold(Reason.ENVIRONMENT_NOT_SET, f"{variable} is not set in the environment")
            self.values[name] = value
            # Outside quotes its words go separate ways.
            for piece in (value, *(one for one in value.split() if len(one) > 2)):
                if piece.strip():
                    self.hidden[piece] = f"<{name}>"

    def _need(self, program: str) -> None:
        path = self.bounds.environment.get(PATHS.get(program, ""))
        if path and Path(path).is_file():
            return
        names = (program, program.lower(), f"{program}.py")
        if not any(self._which(name) for name in names):
            where = f", and {PATHS[program]} does not say where it is" if program in PATHS else ""
            raise _untold(Reason.NOT_INSTALLED, f"{program} is not installed{where}")

    def _which(self, name: str) -> str | None:
        return shutil.which(name, path=self._path())

    def _path(self) -> str:
        given = self.variables.get("PATH", self.bounds.environment.get("PATH", ""))
        return f"{given}:{_SEARCHED}" if given else _SEARCHED

    # ------------------------------------------------------------------------------------------- programs

    def _launch(self, launch: Launch) -> None:
        argv = self._words(launch)
        if self.bounds.own_networks is not None:
            # A proxy is where the program goes, whatever its command names.
            proxies = [
                value for name, value in self.variables.items() if _PROXY.fullmatch(name) and name.lower() != "no_proxy"
            ]
            why = refused(argv, self.bounds.own_networks, self.bounds.resolve) or refused(
                ["curl", *proxies], self.bounds.own_networks, self.bounds.resolve
            )
            if why is not None:
                reason, host, words = why
                if self.hidden and host not in launch.command:
                    # It may be a part of what came from the environment, and so may its address.
                    host, words = "a host it names", words.partition(" (")[0]
                raise _untold(reason, f"{host} {words}")
        program = self._which(argv[0])
        if program is None:
            raise _untold(Reason.NOT_INSTALLED, f"{self.masked(argv[0])} is not installed")
        name = known_as(argv, launch.adapter)
        command = " ".join(argv)
        argv, extra = with_evidence(argv, name)
        seconds = max(self.timeout, launch.seconds or 0.0)
        before = signature(self.seen.folder / extra) if extra else None
        try:
            ended = run_bounded(
                [program, *argv[1:]],
                folder=self.seen.folder,
                environment=self._environment(),
                timeout=seconds,
                output_limit=OUTPUT_LIMIT,
                file_limit=FILE_LIMIT,
                stop=self.bounds.stop,
            )
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else "a word of it holds a null byte"
            raise _untold(Reason.COMMAND_UNUSABLE, f"{self.masked(argv[0])} cannot be started: {said}") from None
        ran = Ran(
            name,
            launch.command,
            command,
            tuple(argv),
            ended.returncode,
            ended.stdout.decode("utf-8", "replace"),
            ended.stderr.decode("utf-8", "replace"),
            ended.cut,
            self._evidence(extra, before),
        )
        self.seen.runs.append(ran)
        if ended.stopped:
            raise _untold(Reason.STOPPED, "ended while a program ran")
        if ended.timed_out:
            raise _untold(
                Reason.TIMED_OUT, f"did not end within {seconds:g} seconds (@slow allows 30, @reallyslow 600)"
            )
        if launch.must_succeed:
            self.asserting = True
            if ran.status != 0:
                raise self.failed(f"the exit status is {ran.status}")

    def _words(self, launch: Launch) -> list[str]:
        for adapter, variable in PATHS.items():
            script = self.bounds.environment.get(variable) or self._which(adapter) or self._which(f"{adapter}.py")
            self.scripts[f"{adapter}_path"] = script or adapter
        wordlists = self.bounds.environment.get("DIRB_WORDLISTS")
        if launch.adapter == "dirb":
            if not wordlists and _DEBIAN_WORDLISTS.is_dir():
                wordlists = str(_DEBIAN_WORDLISTS)
            if wordlists:
                self.values["dirb_wordlists_path"] = wordlists
        try:
            argv = split_words(launch.command, {**self.scripts, **self.values})
        except ValueError as error:
            raise _untold(Reason.COMMAND_UNUSABLE, self.masked(str(error))) from None
        if len(argv) > 1 and argv[0] == "python" and argv[1] in self.scripts.values():
            # Where a distribution installed the script as a program, its first line knows its own Python.
            variable = PATHS.get(launch.adapter, "")
            argv = argv[1:] if not self.bounds.environment.get(variable) else ["python3", *argv[1:]]
        if not argv:
            raise _untold(Reason.COMMAND_UNUSABLE, "no command is left when its values are filled in")
        return argv

    def _environment(self) -> dict[str, str]:
        """Little: what the service was given in its environment is none of these programs' business."""
        home = str(self.seen.folder)
        return {"PATH": self._path(), "HOME": home, "TMPDIR": home, "LC_ALL": "C.UTF-8", **self.variables}

    def _evidence(self, name: str, before: Signature | None) -> bytes:
        """What the program wrote there; nothing where it is what stood there before."""
        path = self.seen.folder / name
        if not name or signature(path) in (None, before) or not path.is_file():
            return b""
        try:
            with path.open("rb") as file:
                return file.read(OUTPUT_LIMIT)
        except OSError:
            return b""

    # ------------------------------------------------------------------------------------------- expectations

    def _expect(self, step: Step, expectation: object) -> None:
        assert isinstance(expectation, EXPECTATIONS)
        held, words = holds(expectation, self.seen)
        match held:
            case Held.YES:
                self.met.append(Met(step, expectation, len(self.seen.runs) - 1))
            case Held.NO:
                raise self.failed(words)
            case Held.STALE:
                raise _OverError(
                    Verdict.VACUOUS, Reason.STALE_FILE, "the file was there before, and nothing wrote it since"
                )
            case Held.CUT:
                raise _untold(Reason.OUTPUT_CUT, f"more than {OUTPUT_LIMIT} bytes were written, and the rest not kept")
            case Held.UNDECIDED:
                raise _untold(Reason.PATTERN_UNDECIDED, "the pattern takes too many steps on this output")
            case Held.UNREADABLE:
                raise _untold(Reason.FILE_UNREADABLE, words)

    def failed(self, words: str) -> _OverError:
        """It is not so; with why, where the last program says it."""
        if self.seen.runs:
            last = self.seen.runs[-1]
            shown = proof(last)
            if shown.reason is not None:
                words += f"; {shown.words}"
            said = (last.stderr if last.stderr.strip() else last.stdout).strip().splitlines()
            if said:
                words += f"; it said: {shorten(self.masked(said[-1].strip()), 200)}"
        return _OverError(Verdict.FAILED, Reason.NOT_AS_EXPECTED, self.masked(words))

    def masked(self, text: str) -> str:
        """`text` without any value that came from the environment."""
        if not self.hidden:
            return text
        text = _TOLD.sub(r"\1 <not shown>", text)
        for value in sorted(self.hidden, key=len, reverse=True):
            for spelt in {value, quote(value, safe=""), quote(value), quote_plus(value)}:
                text = text.replace(spelt, self.hidden[value])
        return text


def run_scenario(scenario: Scenario, steps: Sequence[Meant], bounds: Bounds, clock: Clock) -> AttackOutcome:
    """Run one scenario to its verdict, in a folder that is deleted afterwards."""
    at = clock.now()
    began = time.monotonic()
    try:
        folder = tempfile.TemporaryDirectory(prefix="vedette-attack-", ignore_cleanup_errors=True)
    except OSError as error:
        words = f"there is no folder to run it in: {error.strerror}"
        untold = Verdict.COULD_NOT_TELL, Reason.COMMAND_UNUSABLE, words, at
        return AttackOutcome(scenario.at, scenario.feature, scenario.name, scenario.tags, *untold)
    with folder as name:
        seen = Seen(Path(name), ansi="@ansi" in scenario.tags)
        watched = [
            path for one in steps if isinstance(one.action, EXPECTATIONS) for path in files_of(one.action, seen.folder)
        ]
        seen.before = {path: found for path in watched if (found := signature(path)) is not None}
        running = _Running(bounds, _timeout(scenario.tags, bounds.timeout), seen)
        said = [f"{step.at.line}: {words}" for step, words in notes(steps)]
        deciding: Step | None = None
        run: int | None = None
        try:
            for one in steps:
                deciding = one.step
                running.do(one)
            vacuous, more = vacuity(seen, running.met, running.asserting)
            deciding = None
            if vacuous is None:
                said += map(running.masked, more)
                verdict, reason = Verdict.PASSED, Reason.AS_EXPECTED
                words = f"{len(running.met)} expectations met" if running.met else "every program succeeded"
            else:
                verdict, reason, words = Verdict.VACUOUS, vacuous.reason, running.masked(vacuous.words)
                deciding, run = vacuous.step, vacuous.run
        except _OverError as over:
            verdict, reason, words = over.verdict, over.reason, str(over)
    last = seen.runs[run if run is not None else -1] if seen.runs else None
    launched = next((one.step for one in steps if last is not None and _is(one, last)), None)
    return AttackOutcome(
        scenario.at,
        scenario.feature,
        scenario.name,
        scenario.tags,
        verdict,
        reason,
        words,
        at,
        round(time.monotonic() - began, 3),
        str(deciding) if deciding is not None else "",
        deciding.at if deciding is not None else (launched.at if launched is not None else NOWHERE),
        _shown(last, steps, deciding),
        last.status if last is not None else None,
        tuple(said),
    )


def _is(one: Meant, ran: Ran) -> bool:
    return isinstance(one.action, Launch) and one.action.command == ran.template


def _shown(last: Ran | None, steps: Sequence[Meant], deciding: Step | None) -> str:
    """The command as it is written, no value filled in: of the program that was run, or was to be."""
    at_it = next((one.action for one in steps if one.step is deciding and isinstance(one.action, Launch)), None)
    template = at_it.command if at_it is not None else (last.template if last is not None else "")
    return shorten(" ".join(template.split()), 500)


def _timeout(tags: Sequence[str], short: float) -> float:
    allowed = {"@slow": SLOW, "@reallyslow": REALLY_SLOW}
    return max([short, *(allowed[tag] for tag in tags if tag in allowed)])


def environment_now() -> Mapping[str, str]:
    """The environment of this process, as it is now."""
    return dict(os.environ)
