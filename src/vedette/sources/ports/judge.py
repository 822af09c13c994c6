"""Policy against what was seen from outside and inside: each disagreement a drift with its level and advice. Pure.
Counterpart: `prober` and `nmap` see, `inventory` expects; `app.ports` tells people and the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vedette.model.levels import Level
from vedette.model.ports import (
    DRIFT_LEVELS,
    LOCAL_VANTAGE,
    WORLD,
    Drift,
    DriftKind,
    FirewallVerdict,
    HostExpectation,
    InsideView,
    Listener,
    Observation,
    Opening,
    PortPolicy,
    PortState,
    Protocol,
    SeenWhy,
    Survey,
    TargetCondition,
    Vantage,
)
from vedette.sources.ports.listeners import absent, candidates, described, firewall_said, recent

_UNKNOWN_ADVICE: Mapping[SeenWhy, str] = {
    SeenWhy.NO_ANSWER_AT_ALL: "the address says nothing at all: is the host up, and may this vantage reach it?",
    SeenWhy.NAME_UNRESOLVED: "the name has no address: mend the zone, or the policy",
    SeenWhy.HOST_UNREACHABLE: "no way to the address: is the host up, is there a route?",
    SeenWhy.NETWORK_UNREACHABLE: "this vantage has no route there: give it one, or look from another",
    SeenWhy.LOCAL_LIMIT: "the vantage itself ran short: raise its limits, or ask less of it at once",
    SeenWhy.OUTSIDE_OWN_NETWORKS: "not in own_networks, so it was left alone: correct the name, or own_networks",
    SeenWhy.NO_TOOL: "install nmap where the check runs, or leave these ports out of `probe`",
    SeenWhy.NOT_PERMITTED: "UDP and `--syn` are for root: run the check as root, or do without them",
    SeenWhy.NO_RESPONSE: "UDP that is silent is open or filtered: ask for a service that answers, or look from inside",
}

_WIDE = 64
"""An opening of more ports is one hole where nobody uses it, and not as many drifts."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What policy says of one port from one vantage. state: OPEN must be, CLOSED nothing may answer, None either."""

    state: PortState | None
    opening: Opening | None
    expired: Opening | None


def expected(policy: PortPolicy, host: HostExpectation, survey: Survey, port: int, vantage: Vantage) -> Expected:
    """What policy wants seen of a port at the time of the survey."""
    covering = [one for one in host.covering(port, survey.protocol) if policy.admits(one, vantage)]
    valid = [one for one in covering if not one.expired(survey.ended_at)]
    expired = next((one for one in covering if one.expired(survey.ended_at)), None)
    if not valid:
        return Expected(PortState.CLOSED, None, expired)
    needed = next((one for one in valid if one.must_answer), None)
    return Expected(PortState.OPEN if needed else None, needed or valid[0], expired)


@dataclass(frozen=True, slots=True)
class _Inside:
    """A view, and its listeners by port: whoever lives on a host may make it listen on all of them."""

    view: InsideView
    by_port: Mapping[tuple[int, Protocol], tuple[Listener, ...]]

    @classmethod
    def of(cls, view: InsideView) -> _Inside:
        by_port: dict[tuple[int, Protocol], list[Listener]] = {}
        for one in view.listeners:
            by_port.setdefault((one.port, one.protocol), []).append(one)
        return cls(view, {key: tuple(found) for key, found in by_port.items()})

    def at(self, seen: Observation) -> InsideView:
        """The view of one port alone."""
        return replace(self.view, listeners=self.by_port.get((seen.port, seen.protocol), ()))


def judge(policy: PortPolicy, surveys: Iterable[Survey], inside: Iterable[InsideView] = ()) -> list[Drift]:
    """Every disagreement, ordered by host, address, port, vantage. inside: at most one view a host."""
    views = {one.host: _Inside.of(one) for one in inside}
    out: list[Drift] = []
    all_of = list(surveys)
    for survey in all_of:
        host = policy.host(survey.host)
        if host is not None:
            vantage = policy.vantage(survey.vantage) or Vantage(survey.vantage, LOCAL_VANTAGE.network)
            out += _of_survey(policy, host, survey, vantage, views.get(host.name))
    out += _one_vantage_only(policy, all_of, views)
    return sorted(
        out, key=lambda one: (one.host, one.address, one.protocol.value, one.port, one.vantage, one.kind.value)
    )


def _of_survey(
    policy: PortPolicy, host: HostExpectation, survey: Survey, vantage: Vantage, inside: _Inside | None
) -> list[Drift]:
    view = inside.view if inside is not None else None
    if survey.condition is TargetCondition.ANSWERS_EVERYTHING:
        advice = (
            "ports picked at random accept too: a tarpit, a proxy or a provider's front answers for it; look past it "
            "(another address, from inside), until then nothing can be told"
        )
        return [_whole(DriftKind.ANSWERS_EVERYTHING, survey, SeenWhy.ANSWERS_EVERYTHING, advice)]
    if survey.condition is not TargetCondition.ANSWERS:
        advice = _unknown(survey.rest_why)
        if view is not None and recent(view, survey.started_at) and survey.condition is TargetCondition.DOWN:
            advice = f"its own agent says that it is up, {len(view.listeners)} listeners: look at the way there"
        return [_whole(DriftKind.COULD_NOT_TELL, survey, survey.rest_why, advice)]
    out: list[Drift] = []
    for seen in _of_interest(host, survey):
        view = inside.at(seen) if inside is not None else None
        drift = _of_port(seen, expected(policy, host, survey, seen.port, vantage), survey, vantage, view)
        out += [drift] if drift is not None else []
    unknown = sum(one.state is PortState.UNKNOWN for one in survey.observations)
    if survey.rest is PortState.UNKNOWN or unknown > 64:
        why = survey.rest_why
        if survey.rest is not PortState.UNKNOWN:
            why = next(one.why for one in survey.observations if one.state is PortState.UNKNOWN)
        # A service that must be up is asked after by itself, whatever else is silent.
        alone = [one for one in out if one.why is SeenWhy.NO_RESPONSE and one.expected is PortState.OPEN]
        out = [one for one in out if one.kind is not DriftKind.COULD_NOT_TELL or one in alone]
        out.append(_whole(DriftKind.COULD_NOT_TELL, survey, why, _unknown(why)))
    return out


def _of_interest(host: HostExpectation, survey: Survey) -> list[Observation]:
    """What was seen apart, and what policy speaks of; ports that look like the rest and are in no opening are not."""
    found = {one.port: one for one in survey.observations}
    for opening in host.openings:
        wide = len(opening.ports) > _WIDE and not opening.must_answer
        if opening.protocol is not survey.protocol or (wide and survey.rest is not PortState.OPEN):
            continue
        for port in range(opening.ports.first, opening.ports.last + 1):
            if port not in found and any(port in asked for asked in survey.asked):
                found[port] = Observation(
                    survey.host, survey.address, port, survey.protocol, survey.rest, survey.vantage, survey.ended_at,
                    why=survey.rest_why,
                )  # fmt: skip
    wanted = [one for one in found.values() if one.protocol is survey.protocol]
    if survey.rest is PortState.OPEN:
        for asked in survey.asked:
            wanted += [
                one
                for port in range(asked.first, asked.last + 1)
                if port not in found and (one := survey.observed(port)) is not None
            ]
    return sorted(wanted, key=lambda one: one.port)


def _of_port(
    seen: Observation, want: Expected, survey: Survey, vantage: Vantage, view: InsideView | None
) -> Drift | None:
    found = candidates(view, survey.address, seen.port, seen.protocol) if view is not None else []
    listener = next((one.listener for one in found if not one.hindrance), None)
    match seen.state:
        case PortState.UNKNOWN if seen.why is SeenWhy.NO_RESPONSE and not found and absent(view, survey.started_at):
            # Silent from outside, and nothing there to answer: as good as closed.
            if want.state is not PortState.OPEN:
                return None
            advice = "nothing listens on the host: start the service"
            return _port(DriftKind.MUST_ANSWER, seen, want, vantage, advice, None)
        case PortState.UNKNOWN:
            inside = f"; from inside: {described(listener)} listens, {firewall_said(listener)}" if listener else ""
            return _port(DriftKind.COULD_NOT_TELL, seen, want, vantage, _unknown(seen.why) + inside, listener)
        case PortState.OPEN:
            nobody = listener is None and absent(view, survey.started_at)
            if want.state is PortState.CLOSED:
                return _open_against_policy(seen, want, vantage, listener, nobody)
            if nobody:
                advice = "something in front of the host answers for it (a balancer, DNAT): find it, write it down"
                return _port(DriftKind.OPEN_WITHOUT_LISTENER, seen, want, vantage, advice, None)
            return None
        case _:
            if want.state is PortState.CLOSED or want.opening is None:
                return None
            if not recent(view, survey.started_at):
                # What listened long ago may have ended: that it does not answer is then all that is known.
                found, listener = [], None
            if listener is not None:
                advice = f"{described(listener)} listens, and cannot be reached: {_shut(seen, listener)}"
                return _port(DriftKind.LISTENING_BUT_FILTERED, seen, want, vantage, advice, listener)
            if want.state is PortState.OPEN:
                how = "refuses" if seen.state is PortState.CLOSED else "does not answer"
                near = found[0] if found else None
                advice = f"it {how} ({seen.why.value}, {seen.attempts} attempts): "
                if near is not None:
                    advice += f"{described(near.listener)} listens, but {near.hindrance}"
                elif absent(view, survey.started_at):
                    advice += "nothing listens on the host: start the service"
                else:
                    advice += "start the service, or look at the firewall"
                hindered = near.listener if near is not None else None
                return _port(DriftKind.MUST_ANSWER, seen, want, vantage, advice, hindered)
            advice = "nothing uses this opening now: take it out of the policy, or say `must_answer: true`"
            return _port(DriftKind.ALLOWED_BUT_CLOSED, seen, want, vantage, advice, None)


def _answering(view: InsideView | None, address: str, seen: Observation) -> Listener | None:
    found = candidates(view, address, seen.port, seen.protocol) if view is not None else []
    return next((one.listener for one in found if not one.hindrance), None)


def _shut(seen: Observation, listener: Listener) -> str:
    """Where a listener that policy lets this vantage reach is kept from it."""
    said = firewall_said(listener)
    match listener.firewall:
        case FirewallVerdict.ACCEPTED if seen.state is PortState.CLOSED:
            return f"{said}; something on the way refuses, or it ended meanwhile"
        case FirewallVerdict.ACCEPTED:
            return f"{said}; a firewall on the way, or a full queue"
        case FirewallVerdict.LIMITED_TO_SOURCES:
            return f"{said}; this vantage is none of them, or something on the way is shut"
        case FirewallVerdict.UNKNOWN:
            return f"a firewall, or a full queue; {said}"
        case _:
            return said


def _open_against_policy(
    seen: Observation, want: Expected, vantage: Vantage, listener: Listener | None, nobody: bool
) -> Drift:
    name = f"{seen.port}/{seen.protocol.value}"
    who = f": it calls itself {seen.service}" if seen.service else ""
    who = f": {described(listener)}" if listener is not None else who
    who = ": nothing on the host itself listens, something in front of it answers" if nobody else who
    if want.expired is not None:
        advice = (
            f"the opening of {name} has ended, and it still answers{who}; close it, or give it a new end and a reason"
        )
        return _port(DriftKind.OPENING_EXPIRED, seen, want, vantage, advice, listener)
    bind = "" if nobody or (listener is not None and listener.published) else ", or bind it to loopback"
    advice = f"close {name}{bind}{who}; if it is meant to be reached, add it to the policy with an owner"
    return _port(DriftKind.OPEN_NOT_ALLOWED, seen, want, vantage, advice, listener)


def _one_vantage_only(policy: PortPolicy, surveys: Sequence[Survey], views: Mapping[str, _Inside]) -> list[Drift]:
    """Ports open from some vantages of one network and not from others of it, which no policy explains."""
    groups: dict[tuple[str, str, str, str], list[Survey]] = {}
    for one in surveys:
        if one.condition is TargetCondition.ANSWERS:
            vantage = policy.vantage(one.vantage) or Vantage(one.vantage)
            groups.setdefault((one.host, one.address, one.protocol.value, vantage.network), []).append(one)
    kind = DriftKind.ONE_VANTAGE_ONLY
    out = []
    for alike in groups.values():
        ports = set[int]().union(*(one.ports_in(PortState.OPEN) for one in alike)) if len(alike) > 1 else ()
        for port in sorted(ports):
            looks = [(one, seen) for one in alike if (seen := one.observed(port)) is not None]
            open_at = [one.vantage for one, seen in looks if seen.state is PortState.OPEN]
            shut = [(one, seen) for one, seen in looks if seen.state in (PortState.CLOSED, PortState.FILTERED)]
            for survey, seen in shut:
                advice = (
                    f"open from {', '.join(open_at)}, {seen.state.value} from {survey.vantage}, which stand alike: "
                    "look for a firewall or a route that tells them apart"
                )
                inside = views.get(survey.host)
                view = inside.at(seen) if inside is not None else None
                listener = _answering(view, survey.address, seen)
                if listener is not None and listener.firewall is FirewallVerdict.LIMITED_TO_SOURCES:
                    advice += f"; {firewall_said(listener)}"
                out.append(
                    Drift(
                        kind, DRIFT_LEVELS[kind], survey.host, survey.address, port, survey.protocol,
                        survey.vantage, PortState.OPEN, seen.state, seen.why, advice, seen.at, None, listener,
                    )
                )  # fmt: skip
    return out


def _port(
    kind: DriftKind, seen: Observation, want: Expected, vantage: Vantage, advice: str, listener: Listener | None
) -> Drift:
    opening = want.opening or want.expired
    level = DRIFT_LEVELS[kind]
    if kind is DriftKind.OPEN_NOT_ALLOWED and vantage.network != WORLD:
        level = Level(level - 1)
    if kind is DriftKind.LISTENING_BUT_FILTERED and want.state is PortState.OPEN:
        # The reason is known, and the service that must be up is no less away for it.
        level = DRIFT_LEVELS[DriftKind.MUST_ANSWER]
    if opening is not None and opening.level is not None and kind is not DriftKind.ALLOWED_BUT_CLOSED:
        level = opening.level
    return Drift(
        kind, level, seen.host, seen.address, seen.port, seen.protocol, seen.vantage, want.state, seen.state, seen.why,
        advice, seen.at, opening, listener,
    )  # fmt: skip


def _whole(kind: DriftKind, survey: Survey, why: SeenWhy, advice: str) -> Drift:
    return Drift(
        kind, DRIFT_LEVELS[kind], survey.host, survey.address, 0, survey.protocol, survey.vantage, None,
        PortState.UNKNOWN, why, advice, survey.ended_at,
    )  # fmt: skip


def _unknown(why: SeenWhy) -> str:
    return _UNKNOWN_ADVICE.get(why, "look again; if it stays so, look from another vantage")


UNTOLD = frozenset({DriftKind.COULD_NOT_TELL, DriftKind.COULD_NOT_TELL_TOO_LONG, DriftKind.ANSWERS_EVERYTHING})


def exit_code(drifts: Iterable[Drift]) -> int:
    """0 = as policy says, 1 = drift, 2 = could not tell. Drift that is known outweighs what is not; informational
    ones (an opening nobody uses) are no drift from policy."""
    found = list(drifts)
    if any(one.kind not in UNTOLD and one.level > Level.INFORMATIONAL for one in found):
        return 1
    return 2 if any(one.kind in UNTOLD for one in found) else 0
