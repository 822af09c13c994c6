"""What is wrong on this host and how to mend it, one check after the other; reads, changes nothing.
Counterpart: `cli doctor` prints it; `app.soundness` has the checks that need the configuration alone."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vedette.app.host import STATE_FILE, is_running
from vedette.app.soundness import Check, Places, Verdict, check_log_files, check_settings, secrets_of
from vedette.config.settings import Settings
from vedette.model.alerts import AlertState
from vedette.model.clock import DAY, Clock
from vedette.model.decisions import RUNG_WORDS, Rung
from vedette.model.errors import StateError, VedetteError
from vedette.model.levels import Level
from vedette.model.notifications import OutboxItem, OutboxState
from vedette.model.reasons import RefusalReason
from vedette.model.rules import Rule
from vedette.notify.settings import EmailSettings, PagerDutySettings, Receiver, WebhookSettings
from vedette.respond.allowlist import Guard
from vedette.respond.enforcers import refresh_floor
from vedette.respond.ladder import rung_of
from vedette.respond.nftables import CHAIN, TABLE
from vedette.sources.discover import Lack, discover
from vedette.sources.settings import SourcesSettings
from vedette.system.exec import run
from vedette.system.timekeeping import synchronised
from vedette.text.addresses import parse
from vedette.text.times import duration_text
from vedette.text.urls import is_loopback

if TYPE_CHECKING:
    from vedette.store.state import State

HUB = ("sqlalchemy", "alembic", "aiosmtplib", "httpx", "apprise", "jinja2")
"""What the extra `hub` brings and `up` needs."""
_LITTLE, _ENOUGH = 100 << 20, 1 << 30
"""Bytes left on the disk of the data folder: below the first nothing can be kept for long."""
_REFUSED_SINCE = 30 * DAY
_CAP_NET_ADMIN = 12
_BACKLOG = 100
_JOURNALS = (Path("/var/log/journal"), Path("/run/log/journal"))

_BEARABLE = {Lack.JOURNAL_ABSENT, Lack.JOURNAL_LIBRARY_MISSING, Lack.FORGEABLE_ONLY}
"""Something is read all the same."""

_LACKING = {
    Lack.JOURNAL_ABSENT: "there is no journal",
    Lack.JOURNAL_UNREADABLE: "the journal cannot be read",
    Lack.JOURNAL_LIBRARY_MISSING: "the journal is read through a program",
    Lack.JOURNAL_NO_READER: "nothing here can read the journal",
    Lack.AUTH_LOG_ABSENT: "there is no log of logins",
    Lack.FILE_UNREADABLE: "a log cannot be read",
    Lack.FORGEABLE_ONLY: "only files are read",
    Lack.NOTHING_TO_READ: "there is nothing to read",
}

OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM


def missing_libraries() -> list[str]:
    """Libraries of the extra `hub` that are not installed."""
    return [name for name in HUB if find_spec(name) is None]


def diagnose(settings: Settings, places: Places, clock: Clock) -> Iterator[Check]:
    """Every check, those that need the state last. places: as `config.load.load_with_places` gives them."""
    folder = settings.data_folder()
    running = is_running(folder) if folder.is_dir() else False
    problems, rules = check_settings(settings, places)
    yield from _program(settings, folder, running)
    yield from problems
    if not any(one.name == "rules" for one in problems):
        yield Check("rules", OK, f"{len(rules)} rules load")
    yield from _folder(folder)
    yield _clock()
    yield from _sources(settings)
    yield from _ladder(settings, rules)
    yield from _enforcers(settings, running)
    yield from _receivers(settings)
    yield from _floor(settings)
    yield from _stored(settings, folder, clock)


# ---------------------------------------------------------------------------------------------------- program
def _program(settings: Settings, folder: Path, running: bool) -> Iterator[Check]:
    uid = os.geteuid()
    try:
        me = pwd.getpwuid(uid).pw_name
    except KeyError:
        me = str(uid)
    if uid == 0:
        yield Check("runs-as", OK, f"root; `up` becomes {settings.user} and keeps the right to read logs")
        try:
            pwd.getpwnam(settings.user)
        except KeyError:
            if settings.user != "nobody":
                yield Check("runs-as", PROBLEM, f"there is no user {settings.user!r}", "make it, or set `user:`")
    else:
        words = f"{me}: sees what this user may read, and cannot block in the kernel"
        yield Check("runs-as", WARNING, words, "run it as root, as the service is started")
    missing = missing_libraries()
    if missing:
        words = f"the base install: `replay`, `explain` and `rules` run; `up` does not ({', '.join(missing)} missing)"
        yield Check("install", PROBLEM, words, "pip install 'vedette[hub]'")
    else:
        yield Check("install", OK, "the extra `hub` is installed")
    if running:
        yield Check("up", OK, f"`vedette up` runs on {folder}")
    else:
        words = f"no `vedette up` runs on {folder}: nothing is read, told or blocked"
        yield Check("up", WARNING, words, "systemctl start vedette, or `vedette up`; --data names another folder")


def _folder(folder: Path) -> Iterator[Check]:
    there = folder if folder.exists() else next(one for one in folder.parents if one.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Check("data-folder", PROBLEM, f"{folder} cannot be written", "run as root, or name one with --data")
        return
    if there is folder and there.stat().st_mode & 0o077:
        yield Check("data-folder", WARNING, f"{folder} is open to other users", f"chmod 700 {folder}")
    free = shutil.disk_usage(there).free
    words = f"{folder}: {free >> 20} MiB free"
    if free < _LITTLE:
        yield Check("data-folder", PROBLEM, words, "make room: nothing is kept, told or blocked on a full disk")
    else:
        yield Check("data-folder", WARNING if free < _ENOUGH else OK, words, "make room" if free < _ENOUGH else "")


def _clock() -> Check:
    match synchronised():
        case True:
            return Check("clock", OK, "the clock is kept right")
        case False:
            words = "nothing keeps this host's clock right: times and windows of other hosts do not fit"
            return Check("clock", WARNING, words, "install systemd-timesyncd or chrony")
        case None:
            return Check(
                "clock", WARNING, "the kernel does not say whether the clock is right", "look at `timedatectl`"
            )


# ---------------------------------------------------------------------------------------------------- sources
def _sources(settings: Settings) -> Iterator[Check]:
    sources = settings.sources
    if not sources.names_logs:
        found = discover()
        for lacking in found.lacking:
            verdict = WARNING if lacking.lack in _BEARABLE else PROBLEM
            words = _LACKING[lacking.lack] + (f": {lacking.path}" if lacking.path else "")
            yield Check("sources", verdict, words, lacking.hint)
        sources = SourcesSettings(journal=found.journal, file=found.files)
    if sources.journal is not None:
        yield _journal(Path(sources.journal.folder) if sources.journal.folder else None)
        if sources.journal.accept_forgeable:
            yield _forgeable("the journal")
    for files in sources.file:
        for pattern in files.paths:
            # What is wrong with one is said above: by its place in the settings, or as lacking.
            if not list(check_log_files(pattern)):
                yield Check("sources", OK, f"{pattern} can be read")
        if files.accept_forgeable:
            yield _forgeable(", ".join(files.paths), _WRITERS)
    if sources.stdin is not None and sources.stdin.accept_forgeable:
        yield _forgeable("standard input")
    for name, what in (("syslog", "syslog"), ("relp", "RELP"), ("http", "JSON by HTTP"), ("otlp", "OTLP")):
        listening = getattr(sources, name)
        if listening is None:
            continue
        places = ", ".join(f"{one.transport.value} {one.host} port {one.port}" for one in listening.places)
        yield Check("sources", OK, f"others may send {what} to {places}")
        if listening.accept_forgeable:
            by_token = name in ("http", "otlp")
            who = "whoever holds a sender's token" if by_token else "whoever holds a client's certificate"
            yield _forgeable(what if by_token else f"{what} by TLS", who)
    if not sources.names_logs:
        yield Check("sources", PROBLEM, "nothing is read", "name a source under `sources:`")


def _journal(named: Path | None) -> Check:
    folders = [one for one in ([named] if named else _JOURNALS) if one.is_dir()]
    files = [file for folder in folders for file in folder.rglob("*.journal")]
    if any(os.access(file, os.R_OK) for file in files):
        return Check("sources", OK, "the journal can be read")
    if files:
        return Check("sources", PROBLEM, "the journal cannot be read", "run as root or in the group systemd-journal")
    return Check(
        "sources", PROBLEM, "there is no journal on this host", "leave it out of `sources:`, or start journald"
    )


# A line break in a path or a user name stands in these logs as it came.
_WRITERS = "any local user, and any stranger where it is an error log of nginx, PostgreSQL or MariaDB,"


def _forgeable(source: str, who: str = "any local user") -> Check:
    words = f"RISK: {source} may cause blocks (accept_forgeable), though {who} can write such records"
    return Check("forgeable", WARNING, words, "prefer the journal, whose records name their sender")


# ---------------------------------------------------------------------------------------------------- responses
def _ladder(settings: Settings, rules: Sequence[Rule]) -> Iterator[Check]:
    for rule in rules:
        if rule.response is not None:
            rung = rung_of(settings.respond, rule.id)
            yield Check("ladder", OK, f"{rule.id} {RUNG_WORDS[rung]}")


def _enforcers(settings: Settings, running: bool) -> Iterator[Check]:
    # A person may block where no rule does, so the enforcers matter there too.
    wrong = PROBLEM if Rung.ENFORCE in settings.respond.values() else WARNING
    for name in settings.blocking.enforcers:
        if name == "nftables":
            yield _nftables(running, wrong)
        else:
            yield _hosts_deny(Path(settings.blocking.hosts_deny.path), settings.user, wrong)


def _nftables(running: bool, wrong: Verdict) -> Check:
    try:
        done = run(["nft", "list", "chain", "inet", TABLE, CHAIN])
    except FileNotFoundError:
        return Check("enforcers", wrong, "nftables: the program nft is not installed", "apt install nftables")
    if not _may_change_the_kernel():
        return Check("enforcers", WARNING, "nftables: cannot be looked at without CAP_NET_ADMIN", "run doctor as root")
    if done.returncode == 0 and b"hook prerouting" in done.stdout:
        return Check("enforcers", OK, f"nftables: table inet {TABLE} stands at prerouting")
    if running:
        words = f"nftables: there is no table inet {TABLE} at prerouting, so nothing is blocked"
        return Check("enforcers", wrong, words, "restart vedette; its log says what the kernel refused")
    return Check("enforcers", OK, "nftables: usable; `up` makes the table")


def _may_change_the_kernel() -> bool:
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


def _hosts_deny(path: Path, user: str, wrong: Verdict) -> Check:
    if path.parent.is_dir() and _will_write(path.parent, user) and (not path.exists() or _will_write(path, user)):
        return Check("enforcers", OK, f"hosts_deny: {path} can be written")
    words = f"hosts_deny: {path} and its folder cannot be written by the engine, which has no privileges"
    return Check("enforcers", wrong, words, f"prefer nftables, or give the user {user} the right")


def _will_write(path: Path, user: str) -> bool:
    """Whether `up` may write: as `user` where root starts it, else as we are."""
    if os.geteuid() != 0:
        return os.access(path, os.W_OK)
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return False
    status = path.stat()
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & 0o200)
    return bool(status.st_mode & (0o020 if status.st_gid == account.pw_gid else 0o002))


# ---------------------------------------------------------------------------------------------------- receivers
def _receivers(settings: Settings) -> Iterator[Check]:
    notify = settings.notify
    if not notify.receivers:
        hint = "name one under notify.receivers; docs/paging.md shows how"
        yield Check("receivers", WARNING, "nobody is told: there is no receiver, alerts are only kept", hint)
    for name, receiver in notify.receivers.items():
        yield Check("receivers", OK, f"{name}: {receiver.type}")
    for path, secret in secrets_of(settings):
        owner = notify.receivers.get(str(path[2])) if len(path) > 3 else None
        if not isinstance(owner, PagerDutySettings):
            continue
        try:
            key = secret.read()
        except VedetteError:
            continue  # said already, with its place
        if key and not (len(key) == 32 and key.isascii() and key.isalnum()):
            words = f"{path[2]}: the routing key has {len(key)} characters, PagerDuty's have 32 letters and digits"
            yield Check("receivers", WARNING, words, "copy the integration key of an Events API v2 integration")
    if notify.heartbeat is None:
        words = "no heartbeat: if this host or Vedette dies, nobody notices"
        yield Check("heartbeat", WARNING, words, "set notify.heartbeat.url to a service that expects a call")
    else:
        yield Check("heartbeat", OK, f"every {notify.heartbeat.interval}")


def _floor(settings: Settings) -> Iterator[Check]:
    """Servers through which people are told, and which a block could cut off."""
    guard = Guard()
    refresh_floor(guard, settings.responding)
    for name, receiver in settings.notify.receivers.items() if settings.blocking.enforcers else ():
        server = _server_of(receiver)
        if not server or is_loopback(server):
            continue
        address = parse(server)
        if address is None and not settings.blocking.floor:
            words = f"{name}: {server} is told by its name, and names are never resolved: its addresses can be blocked"
        elif address is not None and guard.refuses(ip_network(address)) is not RefusalReason.HARD_FLOOR:
            words = f"{name}: {server} is not on the hard floor: it can be blocked, and then nobody is told"
        else:
            continue
        yield Check("floor", WARNING, words, "name the addresses it has under blocking.floor")


def _server_of(receiver: Receiver) -> str:
    """The host that is called, "" where that is a secret."""
    match receiver:
        case EmailSettings():
            return receiver.host.strip("[]")
        case PagerDutySettings(url=str(url)) | WebhookSettings(url=str(url)):
            return urlsplit(url).hostname or ""
        case _:
            return ""


# ---------------------------------------------------------------------------------------------------- state
def _stored(settings: Settings, folder: Path, clock: Clock) -> Iterator[Check]:
    if missing_libraries():
        return
    if not settings.state_url and not (folder / STATE_FILE).exists():
        yield Check("state", WARNING, f"there is no state in {folder} yet", "it is made when `up` first runs")
        return
    from vedette.store.state import State

    try:
        state = State(settings.state_url or folder / STATE_FILE)
    except StateError as error:
        yield Check.of("state", error)
        return
    try:
        yield Check("state", OK, f"{state.place} can be read and written")
        yield from _deliveries(state, clock.now())
        yield from _alerts(state)
        yield from _decisions(state, clock.now())
    except StateError as error:
        yield Check.of("state", error)
    finally:
        state.close()


def _deliveries(state: State, now: int) -> Iterator[Check]:
    counts = state.outbox_counts()
    pending, failed = counts.get(OutboxState.PENDING, 0), counts.get(OutboxState.FAILED, 0)
    if pending:
        oldest = min((item.created_at for item in state.outbox([OutboxState.PENDING], limit=10_000)), default=now)
        tried = [item for item in state.outbox([OutboxState.PENDING], limit=_BACKLOG) if item.last_reason]
        words = f"{pending} notifications wait, the oldest since {duration_text(max(now - oldest, 0))}"
        if tried:
            words += f"; last: {tried[0].notification.receiver} {tried[0].last_reason} {tried[0].last_detail}".rstrip()
        yield Check(
            "deliveries",
            WARNING if tried or pending > _BACKLOG else OK,
            words,
            "look at the receiver; everything is tried again, most urgent first" if tried else "",
        )
    for item in _last_of_each(state.outbox([OutboxState.FAILED], limit=1000)):
        reason = item.last_reason.value if item.last_reason else "unknown"
        words = f"{item.notification.receiver}: a delivery failed for good: {reason} {item.last_detail}".rstrip()
        yield Check("deliveries", WARNING, words, "the alert is kept; mend the receiver so that the next one arrives")
    if not pending and not failed:
        yield Check("deliveries", OK, f"{counts.get(OutboxState.DELIVERED, 0)} delivered, none waits, none failed")


def _last_of_each(items: Iterable[OutboxItem]) -> Iterable[OutboxItem]:
    """Of each receiver the newest item; `items` are newest first."""
    found: dict[str, OutboxItem] = {}
    for item in items:
        found.setdefault(item.notification.receiver, item)
    return found.values()


def _alerts(state: State) -> Iterator[Check]:
    counts = state.alert_counts()
    unresolved = {
        level: sum(counts.get((where, level), 0) for where in (AlertState.OPEN, AlertState.ACKNOWLEDGED))
        for level in sorted(Level, reverse=True)
    }
    words = ", ".join(f"{count} {level.label}" for level, count in unresolved.items() if count)
    urgent = sum(counts.get((AlertState.OPEN, level), 0) for level in (Level.HIGH, Level.CRITICAL))
    if urgent:
        hint = "`vedette alerts list --level high`"
        yield Check("alerts", WARNING, f"not resolved: {words}; {urgent} of them high or critical and open", hint)
    else:
        yield Check("alerts", OK, f"not resolved: {words or 'none'}")


def _decisions(state: State, now: int) -> Iterator[Check]:
    yield Check("blocks", OK, f"{len(state.active_decisions(now))} in force")
    reasons: dict[str, int] = {}
    for one in state.refusal_counts(now - _REFUSED_SINCE):
        reasons[one.reason.value] = reasons.get(one.reason.value, 0) + one.count
    if reasons:
        words = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        yield Check("blocks", OK, f"not blocked in {duration_text(_REFUSED_SINCE)}: {words}")
