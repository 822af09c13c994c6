"""What a configuration promises and the host does not hold: rules, receivers, secrets, files that are not there.
Counterpart: `config.load` finds what is written wrongly; `cli config check` and `app.diagnosis` show both."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vedette.alerts.routes import build_tree, default_tree
from vedette.alerts.settings import RouteSettings
from vedette.app.reading import check_attack_files, check_listening, check_port_policy
from vedette.app.receivers import receiver_kinds
from vedette.config.settings import Settings
from vedette.model.errors import ConfigError, Location, VedetteError
from vedette.model.rules import Rule
from vedette.notify.settings import AppriseSettings, EmailSettings, PagerDutySettings, WebhookSettings
from vedette.respond.enforcers import make_guard
from vedette.rules.loading import load
from vedette.rules.problems import did_you_mean
from vedette.system.secrets import Secret

Places = Mapping[tuple[str | int, ...], Location]


class Verdict(StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. name: what, stable. words: a sentence. hint: how to mend it."""

    name: str
    verdict: Verdict
    words: str
    hint: str = ""
    location: Location | None = None

    @classmethod
    def of(cls, name: str, error: VedetteError) -> Check:
        """The problem an error stands for."""
        return cls(name, Verdict.PROBLEM, error.message, error.hint, error.location)


def place_of(places: Places, *path: str | int) -> Location | None:
    """Where `path` was written, or the nearest part of it that was."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return None


def check_settings(settings: Settings, places: Places) -> tuple[list[Check], Sequence[Rule]]:
    """Everything wrong with the settings on this host, problems and warnings only; and the rules they load."""
    loaded = load(settings.rules.paths, packs=settings.rules.packs, keep_going=True, settings=settings.rules)
    found = [
        Check("rules", Verdict.PROBLEM, problem.message, problem.hint, problem.location) for problem in loaded.errors
    ]
    found += _responses(settings, places, loaded.rules)
    found += _steps(settings, places, loaded.rules)
    found += _routes(settings, places)
    found += _secrets(settings, places)
    found += _certificates(settings, places)
    found += _sources(settings, places)
    try:
        make_guard(settings.responding)
    except ConfigError as error:
        found.append(Check.of("allowlist", error))
    return found, loaded.rules


def _responses(settings: Settings, places: Places, rules: Sequence[Rule]) -> Iterator[Check]:
    known = {rule.id: rule for rule in rules}
    able = [rule.id for rule in rules if rule.response is not None]
    for rule_id in settings.respond:
        where = place_of(places, "respond", rule_id)
        if rule_id not in known:
            hint = did_you_mean(rule_id, known) or "`vedette rules list` names them"
            yield Check("respond", Verdict.PROBLEM, f"respond: there is no rule {rule_id!r}", hint, where)
        elif rule_id not in able:
            words = f"respond: rule {rule_id!r} asks for no block, so no rung makes it one"
            yield Check("respond", Verdict.PROBLEM, words, f"rules that do: {', '.join(able)}", where)


def _steps(settings: Settings, places: Places, rules: Sequence[Rule]) -> Iterator[Check]:
    known = {rule.id for rule in rules}
    for rule_id in settings.rules.steps:
        if rule_id not in known:
            hint = did_you_mean(rule_id, known) or "`vedette rules list` names them"
            where = place_of(places, "rules", "steps", rule_id)
            yield Check("steps", Verdict.WARNING, f"rules: steps: there is no rule {rule_id!r}", hint, where)


def _routes(settings: Settings, places: Places) -> Iterator[Check]:
    kinds = receiver_kinds(settings.notify)
    unknown = list(_unknown_receivers(settings.alerts.route, kinds, ("alerts", "route")))
    for path, name in unknown:
        hint = did_you_mean(name, kinds) or f"receivers: {', '.join(kinds) or 'none'}"
        words = f"{_written(path)}: there is no receiver {name!r}"
        yield Check("routes", Verdict.PROBLEM, words, hint, place_of(places, *path))
    if not unknown:
        try:
            build_tree(settings.alerts.route or default_tree(kinds), kinds)
        except ConfigError as error:
            where = error.location or place_of(places, "alerts", "route")
            yield Check("routes", Verdict.PROBLEM, error.message, error.hint, where)


def _unknown_receivers(
    route: RouteSettings | None, known: Mapping[str, object], path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if route is None:
        return
    if route.receiver and route.receiver not in known:
        yield (*path, "receiver"), route.receiver
    for number, child in enumerate(route.routes):
        yield from _unknown_receivers(child, known, (*path, "routes", number))


def _written(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def secrets_of(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], Secret]]:
    """Every secret that is named, and where."""
    notify = settings.notify
    for name, receiver in notify.receivers.items():
        path = ("notify", "receivers", name)
        match receiver:
            case EmailSettings():
                named = {"password": receiver.password}
            case PagerDutySettings():
                named = {"routing_key": receiver.routing_key}
            case WebhookSettings():
                named = {"url": receiver.url if isinstance(receiver.url, Secret) else None, "secret": receiver.secret}
            case AppriseSettings():
                named = {"url": receiver.url}
        for key, secret in named.items():
            if secret is not None:
                yield (*path, key), secret
    if notify.heartbeat is not None and isinstance(notify.heartbeat.url, Secret):
        yield ("notify", "heartbeat", "url"), notify.heartbeat.url
    if notify.pagerduty_webhook is not None:
        for number, secret in enumerate(notify.pagerduty_webhook.secrets):
            yield ("notify", "pagerduty_webhook", "secrets", number), secret


def _secrets(settings: Settings, places: Places) -> Iterator[Check]:
    for path, secret in secrets_of(settings):
        where = place_of(places, *path)
        try:
            if not secret.read():
                words, hint = f"{_written(path)}: the secret is empty", "write it there"
                yield Check("secrets", Verdict.PROBLEM, words, hint, where)
        except ConfigError as error:
            # The service may get its environment from elsewhere; a file is the same for everybody.
            verdict = Verdict.WARNING if secret.env else Verdict.PROBLEM
            yield Check("secrets", verdict, f"{_written(path)}: {error.message}", error.hint, where)


def _certificates(settings: Settings, places: Places) -> Iterator[Check]:
    named: list[tuple[tuple[str | int, ...], str]] = []
    for name, receiver in settings.notify.receivers.items():
        if not isinstance(receiver, AppriseSettings):
            named.append((("notify", "receivers", name, "trust", "ca_file"), receiver.trust.ca_file))
    if settings.notify.heartbeat is not None:
        named.append((("notify", "heartbeat", "trust", "ca_file"), settings.notify.heartbeat.trust.ca_file))
    if (listener := settings.notify.pagerduty_webhook) is not None:
        named += [(("notify", "pagerduty_webhook", key), getattr(listener, key)) for key in ("certificate", "key")]
    for path, file in named:
        if file and not os.access(file, os.R_OK):
            words = f"{_written(path)}: {file} cannot be read"
            yield Check("certificates", Verdict.PROBLEM, words, "name a file that is there", place_of(places, *path))


def _sources(settings: Settings, places: Places) -> Iterator[Check]:
    for number, source in enumerate(settings.sources.file):
        for index, pattern in enumerate(source.paths):
            where = place_of(places, "sources", "file", number, "paths", index)
            yield from check_log_files(pattern, where)
    journal = settings.sources.journal
    if journal is not None and journal.folder and not Path(journal.folder).is_dir():
        where = place_of(places, "sources", "journal", "folder")
        words = f"there is no journal in {journal.folder}"
        yield Check("sources", Verdict.PROBLEM, words, "leave `folder` out to read this machine's own", where)
    for name in ("syslog", "relp", "http", "otlp"):
        listening = getattr(settings.sources, name)
        if listening is None:
            continue
        try:
            check_listening(listening)
        except VedetteError as error:
            yield Check("sources", Verdict.PROBLEM, error.message, error.hint, place_of(places, "sources", name))
    if settings.sources.ports is not None:
        try:
            check_port_policy(settings.sources.ports)
        except VedetteError as error:
            yield Check.of("sources", error)
    if settings.sources.attacks is not None:
        try:
            check_attack_files(settings.sources.attacks)
        except VedetteError as error:
            yield Check.of("sources", error)


def check_log_files(pattern: str, where: Location | None = None) -> Iterator[Check]:
    """Whether the files of a path or glob are there and can be read; nothing where all is well."""
    files = glob.glob(pattern, recursive=True)  # noqa: PTH207 (the pattern is absolute)
    if not files:
        words, hint = f"{pattern}: there is no such file yet", "it is read from its beginning when it appears"
        yield Check("sources", Verdict.WARNING, words, hint, where)
    for file in sorted(files):
        if not Path(file).is_dir() and not os.access(file, os.R_OK):
            hint = "run as root, or as a member of the group the file belongs to (adm)"
            yield Check("sources", Verdict.PROBLEM, f"{file} cannot be read", hint, where)
