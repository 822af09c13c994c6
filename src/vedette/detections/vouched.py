"""Firings that rest on records nobody vouches for, told again once those that are vouched for are enough alone.
Counterpart: `correlate` asks after each run of a rule whose response hangs on trust; docs/decisions/0013 says why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vedette.detections.columnar import RuleRun
from vedette.detections.entries import Entry, Fired
from vedette.detections.keying import group_lists
from vedette.detections.plans import WindowPlan
from vedette.detections.stretch import Firing, Key
from vedette.detections.windows import KeyWindow
from vedette.model.batch import Trust


def vouched(run: RuleRun, found: Sequence[Firing]) -> list[Firing]:
    """The firings of vouched records, of keys whose own firing rests on others and lasts. found: what `run` gave."""
    state = run.state
    low = [firing for firing in found if firing.fired.trust < Trust.ATTESTED]
    if not low and not state.doubted:
        return []
    if not bool((run.trust >= Trust.ATTESTED).any()):
        for firing in low:
            _doubt(run, tuple(firing.key.values()), _begin(run.plan, firing.fired))
        return []
    at_row = {(firing.index, tuple(firing.key.values())): firing for firing in found}
    wanted = state.doubted | {tuple(firing.key.values()) for firing in low}
    out: list[Firing] = []
    for key, own in group_lists(*run.keyed(state.bases)):
        if key not in wanted or (main := state.windows.get(key)) is None:
            continue
        window = main.vouched
        for at in own:
            if (at, key) in at_row:
                window = _begin(run.plan, at_row[at, key].fired)
            elif window is not None and run.trust[at] >= Trust.ATTESTED:
                fired = window.add(run.plan, run.entry(at))
                if fired is not None:
                    window = None
                    out.append(Firing(at, state.index, run.named(key), fired))
        _doubt(run, key, window)
    return out


def vouched_window(plan: WindowPlan, entries: Iterable[Entry]) -> KeyWindow:
    """A window of those entries that somebody vouches for; they are not enough to fire."""
    window = KeyWindow()
    for entry in entries:
        if entry.trust >= Trust.ATTESTED:
            window.add(plan, entry)
    return window


def _begin(plan: WindowPlan, fired: Fired) -> KeyWindow | None:
    """The window of what is vouched for among the records that fired; None where that was enough."""
    return None if fired.trust >= Trust.ATTESTED else vouched_window(plan, fired.entries)


def _doubt(run: RuleRun, key: Key, window: KeyWindow | None) -> None:
    """Keep what is vouched for of a key, as long as its firing lasts; None where nothing is in doubt any more."""
    state = run.state
    main = state.windows.get(key)
    if main is None:
        return
    main.vouched = window if main.fired else None
    (state.doubted.discard if main.vouched is None else state.doubted.add)(key)
    if run.track:
        state.changed.add(key)
