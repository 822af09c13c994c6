"""Which receivers an alert goes to: the routing tree with everything inherited, and inhibitions.
Counterpart: `alerts.settings` is what a person wrote, `alerts.routing` makes groups along these routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from vedette.alerts.settings import InhibitSettings, RouteSettings
from vedette.alerts.silences import all_match, matcher_text, parse_matchers
from vedette.model.alerts import Alert, Matcher
from vedette.model.errors import ConfigError
from vedette.model.rules import NotifyStep
from vedette.text.times import parse_duration

ALL_LABELS = "..."


class ReceiverKind(StrEnum):
    """What a receiver is for; only its kind matters here."""

    PAGE = "page"
    """Opens incidents: is told of acknowledging and resolving, once each."""
    MAIL = "mail"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Route:
    """One node of the tree with nothing left to inherit; times in microseconds.

    id: the path of matchers from the root, as in Alertmanager's group keys.
    """

    id: str
    receiver: str
    kind: ReceiverKind
    matchers: tuple[Matcher, ...]
    group_by: tuple[str, ...]
    group_wait: int
    group_interval: int
    repeat_interval: int
    digest: bool
    resolved: bool
    go_on: bool
    children: tuple[Route, ...] = ()

    def matching(self, labels: Mapping[str, str]) -> list[Route]:
        """The routes an alert takes: the deepest that match, siblings after a match only where it goes on."""
        if not all_match(self.matchers, labels):
            return []
        found: list[Route] = []
        for child in self.children:
            below = child.matching(labels)
            found += below
            if below and not child.go_on:
                break
        return found or [self]

    def group_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels that an alert is grouped by here; those it does not have are left out."""
        names = labels if ALL_LABELS in self.group_by else self.group_by
        return {name: labels[name] for name in sorted(names) if name in labels}

    def up_to(self, step: NotifyStep, mail: str) -> Route | None:
        """This route for an alert that may go no further than `step`; None where nobody may be told.

        What would be a page is a mail to the receiver `mail` ("" = there is none); what would be a mail at once
        is one that may wait. Such routes have groups of their own.
        """
        if step is NotifyStep.STORE:
            return None
        if step is NotifyStep.PAGE or not self.receiver:
            return self
        route = self
        if route.kind is ReceiverKind.PAGE:
            if not mail:
                return None
            route = replace(route, id=f"{route.id}!mail", receiver=mail, kind=ReceiverKind.MAIL)
        if step is NotifyStep.DIGEST and not route.digest:
            route = replace(route, id=f"{self.id}!digest", digest=True, resolved=False)
        return route

    def walk(self) -> Iterator[Route]:
        """This route and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def default_tree(receivers: Mapping[str, ReceiverKind]) -> RouteSettings:
    """The practice where nothing is set: low to a digest, medium by mail, high and critical to the pager.

    The first receiver of a kind is taken; without a pager mail takes its place, without mail another kind.
    Informational alerts, and all of them where there is no receiver, are stored and told nobody.
    """
    by_kind = {kind: name for name, kind in reversed(list(receivers.items()))}
    mail = by_kind.get(ReceiverKind.MAIL, by_kind.get(ReceiverKind.OTHER, ""))
    urgent = by_kind.get(ReceiverKind.PAGE, mail)
    return RouteSettings(
        receiver="",
        routes=(
            RouteSettings(matchers=("level=~high|critical",), receiver=urgent, group_wait="0s"),
            RouteSettings(matchers=("level=medium",), receiver=mail),
            RouteSettings(matchers=("level=low",), receiver=mail, digest=True, repeat_interval="24h", resolved=False),
        ),
    )


_ROOT = RouteSettings(
    receiver="",
    group_by=("rule.id",),
    group_wait="30s",
    group_interval="5m",
    repeat_interval="4h",
    digest=False,
    resolved=True,
)
_INHERITED = ("receiver", "group_by", "group_wait", "group_interval", "repeat_interval", "digest", "resolved")


def build_tree(settings: RouteSettings, receivers: Mapping[str, ReceiverKind]) -> Route:
    """The tree ready for use; ConfigError where it names a receiver that does not exist."""
    if settings.matchers:
        raise ConfigError("alerts.route: the root matches every alert", hint="put the matchers under `routes:`")
    seen: dict[str, int] = {}
    return _build(settings, _ROOT, "", "alerts.route", receivers, seen)


def _build(
    written: RouteSettings,
    above: RouteSettings,
    path: str,
    place: str,
    receivers: Mapping[str, ReceiverKind],
    seen: dict[str, int],
) -> Route:
    inherited = {name: getattr(above, name) for name in _INHERITED if getattr(written, name) is None}
    whole = written.model_copy(update=inherited)
    receiver = whole.receiver or ""
    if receiver and receiver not in receivers:
        known = ", ".join(receivers) or "none"
        raise ConfigError(f"{place}: no receiver is called {receiver!r}", hint=f"receivers: {known}")
    matchers = parse_matchers(written.matchers)
    text = "{" + ",".join(matcher_text(matcher) for matcher in matchers) + "}"
    ident = f"{path}/{text}" if path else text
    # Two routes alike but for what they do: told apart by their order.
    seen[ident] = seen.get(ident, 0) + 1
    if seen[ident] > 1:
        ident += f"#{seen[ident]}"
    route = Route(
        id=ident,
        receiver=receiver,
        kind=receivers.get(receiver, ReceiverKind.OTHER),
        matchers=matchers,
        group_by=whole.group_by or (),
        group_wait=parse_duration(whole.group_wait or "0s"),
        group_interval=parse_duration(whole.group_interval or "5m"),
        repeat_interval=parse_duration(whole.repeat_interval or "4h"),
        digest=bool(whole.digest),
        resolved=bool(whole.resolved),
        go_on=written.go_on,
    )
    children = tuple(
        _build(child, whole, ident, f"{place}.routes[{number}]", receivers, seen)
        for number, child in enumerate(written.routes)
    )
    return replace(route, children=children)


@dataclass(frozen=True, slots=True)
class Sources:
    """Values of the `equal` labels of unresolved sources, apart for those that are targets themselves."""

    alone: frozenset[tuple[str, ...]]
    both: frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Inhibition:
    """Alerts that `target` matches are muted while an unresolved one that `source` matches is `equal` in labels."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...]

    @classmethod
    def of(cls, settings: InhibitSettings) -> Inhibition:
        """The inhibition as written."""
        return cls(parse_matchers(settings.source), parse_matchers(settings.target), settings.equal)

    def sources(self, unresolved: Iterable[Alert]) -> Sources:
        """What mutes at present: the `equal` labels of every source among the unresolved alerts."""
        alone: set[tuple[str, ...]] = set()
        both: set[tuple[str, ...]] = set()
        for alert in unresolved:
            if all_match(self.source, alert.labels):
                (both if all_match(self.target, alert.labels) else alone).add(self._values(alert.labels))
        return Sources(frozenset(alone), frozenset(both))

    def mutes(self, labels: Mapping[str, str], sources: Sources) -> bool:
        """Whether an alert with these labels is muted; one on both sides is not muted by another such one."""
        if not all_match(self.target, labels):
            return False
        values = self._values(labels)
        return values in sources.alone or (values in sources.both and not all_match(self.source, labels))

    def _values(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(labels.get(name, "") for name in self.equal)
