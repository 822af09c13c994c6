"""Matchers as in Alertmanager, and the silences made of them.
Counterpart: `alerts.routing` matches routes, inhibitions and silences with these; `cli` and settings write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

import re2

from vedette.model.alerts import Matcher, MatchKind, Silence
from vedette.model.errors import VedetteError
from vedette.model.ids import uuid7
from vedette.model.protocols import Transaction
from vedette.text.regex import compile_re2

_FORM = re.compile(r"\s*([A-Za-z_@][A-Za-z0-9_.@-]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
_HINT = 'label=value, label!=value, label=~regex or label!~regex; "value" is taken literally, else * matches anything'


class SilenceError(VedetteError):
    """A matcher or silence that cannot be used as written."""


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re2._Regexp[str]:
    # As Alertmanager has it: a label's value may have several lines, and `.` stands for each character of it.
    return compile_re2(pattern, dot_newline=True)


def parse_matcher(text: str) -> Matcher:
    """One matcher as people write it; SilenceError where it is none.

    A value in double quotes is a JSON string and taken as it is. Without quotes `*` in a value of `=` or
    `!=` stands for any text, so `rule.id=ssh-*` is `rule.id=~"ssh-.*"`.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise SilenceError(f"{text!r} is not a matcher", hint=_HINT)
    label, operator, value = form.groups()
    kind = MatchKind(operator)
    if value.startswith('"'):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise SilenceError(f"{text!r}: the quoted value does not end, or is no JSON string", hint=_HINT) from None
        if not isinstance(value, str):
            raise SilenceError(f"{text!r}: the value is not a text", hint=_HINT)
    elif "*" in value and kind in (MatchKind.EQUAL, MatchKind.NOT_EQUAL):
        kind = MatchKind.REGEX if kind is MatchKind.EQUAL else MatchKind.NOT_REGEX
        value = ".*".join(re2.escape(part) for part in value.split("*"))
    if kind in (MatchKind.REGEX, MatchKind.NOT_REGEX):
        try:
            _compiled(value)
        except ValueError as error:
            raise SilenceError(f"{text!r}: not a regular expression: {error}", hint="RE2 syntax") from None
    return Matcher(label, kind, value)


def parse_matchers(texts: Iterable[str]) -> tuple[Matcher, ...]:
    """Each of `texts` as a matcher; SilenceError names the first that is none."""
    return tuple(parse_matcher(text) for text in texts)


def matcher_text(matcher: Matcher) -> str:
    """As Alertmanager writes it, value quoted: `level=~"high|critical"`."""
    return f"{matcher.label}{matcher.kind}{json.dumps(matcher.value, ensure_ascii=False)}"


def matches(matcher: Matcher, labels: Mapping[str, str]) -> bool:
    """Whether the label (absent = empty text) passes; regular expressions cover the whole value."""
    value = labels.get(matcher.label, "")
    match matcher.kind:
        case MatchKind.EQUAL:
            return value == matcher.value
        case MatchKind.NOT_EQUAL:
            return value != matcher.value
        case MatchKind.REGEX:
            return _compiled(matcher.value).fullmatch(value) is not None
        case MatchKind.NOT_REGEX:
            return _compiled(matcher.value).fullmatch(value) is None


def all_match(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether every matcher passes (none: true)."""
    return all(matches(matcher, labels) for matcher in matchers)


def is_active(silence: Silence, now: int) -> bool:
    """Whether it mutes at `now`: from its start, until just before its end."""
    return silence.starts_at <= now < silence.ends_at


def silenced_by(silences: Iterable[Silence], labels: Mapping[str, str], now: int) -> Silence | None:
    """The first active silence that mutes an alert with these labels."""
    return next((s for s in silences if is_active(s, now) and all_match(s.matchers, labels)), None)


def add(
    tx: Transaction,
    matchers: tuple[Matcher, ...],
    by: str,
    comment: str,
    now: int,
    duration: int,
    *,
    longest: int,
    starts_at: int = 0,
) -> Silence:
    """Make a silence of `duration` microseconds from `starts_at` (0 = now); SilenceError where it mutes too much.

    At least one matcher must refuse the empty value, as in Alertmanager: a silence of everything, new
    kinds of alert included, is never meant.
    """
    if not any(not matches(matcher, {}) for matcher in matchers):
        raise SilenceError("this silence would mute every alert", hint="name at least one label, rule.id for example")
    if not 0 < duration <= longest:
        raise SilenceError("a silence has an end, and not later than the settings allow", hint="silences.longest")
    begins = max(starts_at, now)
    silence = Silence(uuid7(now), matchers, begins, begins + duration, by, comment, now)
    tx.save_silence(silence)
    return silence


def expire(tx: Transaction, silence_id: str, now: int) -> Silence:
    """End a silence at `now`, one not yet begun too; SilenceError where none of this id is left to end."""
    for silence in tx.silences(now):
        if silence.id == silence_id:
            ended = replace(silence, starts_at=min(silence.starts_at, now), ends_at=now)
            tx.save_silence(ended)
            return ended
    raise SilenceError(f"there is no silence {silence_id!r} to end", hint="`vedette alerts silence list` names them")
