"""`vedette doctor`: what is wrong on this host and how to mend it.
Counterpart: `app.diagnosis` looks; here it is printed and becomes an exit code."""

from __future__ import annotations

from vedette.cli.options import Config, Data, Output
from vedette.cli.output import FOUND, OK, WRONG, Format, errors_said, note, say, write_json
from vedette.config.load import load_with_places
from vedette.model.clock import SystemClock

_MARKS = {"ok": "ok     ", "warning": "WARNING", "problem": "PROBLEM"}


def doctor(config: Config = None, data: Data = None, output: Output = Format.TEXT) -> None:
    """Say what is wrong and how to mend it; exit 0 = nothing, 1 = warnings, 2 = problems."""
    with errors_said():
        from vedette.app.diagnosis import diagnose
        from vedette.app.soundness import Verdict

        settings, places = load_with_places(config)
        if data is not None:
            settings = settings.model_copy(update={"data": data})
        verdicts = []
        for one in diagnose(settings, places, SystemClock()):
            verdicts.append(one.verdict)
            if output is Format.JSON:
                write_json(
                    [
                        {
                            "check": one.name,
                            "verdict": one.verdict.value,
                            "message": one.words,
                            "hint": one.hint or None,
                            "file": one.location.file if one.location else None,
                            "line": one.location.line if one.location else None,
                        }
                    ]
                )
                continue
            place = f"{one.location}: " if one.location else ""
            say(f"{_MARKS[one.verdict.value]}  {one.name:<12}  {place}{one.words}")
            if one.hint and one.verdict is not Verdict.OK:
                say(f"{'':23}-> {one.hint}")
        problems, warnings = verdicts.count(Verdict.PROBLEM), verdicts.count(Verdict.WARNING)
        note(f"{len(verdicts)} checks, {problems} problems, {warnings} warnings")
        raise SystemExit(WRONG if problems else FOUND if warnings else OK)
