"""Which sources this host has: those of the configuration, else what is found; in words a person reads first.
Counterpart: `sources` read; `app.up` runs what is planned here and prints the lines."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from vedette.app.host import AUDIT_FILE
from vedette.model.clock import Clock, SystemClock
from vedette.model.protocols import Counter, Source
from vedette.sources.audit import AuditSource
from vedette.sources.discover import Lacking, discover
from vedette.sources.file import FileSource
from vedette.sources.integrity.settings import IntegritySettings
from vedette.sources.settings import (
    AttacksSettings,
    HttpSettings,
    Listen,
    ListeningSettings,
    OtlpSettings,
    PortsSettings,
    RelpSettings,
    RootkitSettings,
    SourcesSettings,
)
from vedette.sources.stdin import StdinSource
from vedette.sources.syslog_sockets import Listeners, hint_of
from vedette.system.privileges import keep_from_children

if TYPE_CHECKING:
    from vedette.app.port_inside import Insight
    from vedette.sources.http import HttpSource
    from vedette.sources.integrity.watch import Watching
    from vedette.sources.rootkit.source import LookAround


@dataclass(slots=True)
class Reading:
    """The sources to run. lines: what is read and what is lacking, for people."""

    sources: list[Source] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    def accept_forgeable(self, source: str) -> bool:
        """Whether the operator lets forgeable records of this source cause blocks."""
        return any(fnmatchcase(source, pattern) for pattern in self.accepted)


def _words(lacking: Lacking) -> str:
    what = lacking.lack.value.replace("-", " ")
    return f"lacks: {what}{f' ({lacking.path})' if lacking.path else ''}; {lacking.hint}"


def check_port_policy(settings: PortsSettings) -> None:
    """ConfigError where the source `ports` could not begin with its policy."""
    from vedette.app.port_watch import PortLook

    PortLook(settings, SystemClock()).check()


def check_attack_files(settings: AttacksSettings) -> None:
    """VedetteError where the source `attacks` could not begin with its files."""
    from vedette.app.attack_watch import AttackRun

    AttackRun(settings, SystemClock()).check()


def check_listening(settings: ListeningSettings) -> None:
    """ConfigError where a source that others send to could not speak TLS with its files, or has no tokens."""
    # ssl is loaded only where it is used.
    if isinstance(settings, HttpSettings):
        from vedette.sources.http import check_http

        check_http(settings, "otlp" if isinstance(settings, OtlpSettings) else "http")
        return
    from vedette.sources.syslog import tls_context

    tls_context(settings, "relp" if isinstance(settings, RelpSettings) else "syslog")


def open_listeners(settings: SourcesSettings, listeners: Listeners) -> None:
    """Open every socket that can be; needs the privileges that ports below 1024 need. What cannot is told later."""
    for listen in settings.places:
        with suppress(OSError):
            listeners.open(listen)


def _plan_listening(
    settings: ListeningSettings,
    listeners: Listeners,
    host_id: str,
    clock: Clock,
    counter: Counter,
    reading: Reading,
    kept: Callable[[], Awaitable[None]] | None,
) -> None:
    from vedette.sources.relp import RelpSource, at_once
    from vedette.sources.syslog import SyslogSource

    kept = kept or at_once
    source: SyslogSource
    if isinstance(settings, RelpSettings):
        source = RelpSource(settings, listeners, host_id=host_id, clock=clock, counter=counter, kept=kept)
    elif isinstance(settings, HttpSettings):
        source = _http_source(settings, listeners, host_id, clock, counter, kept)
        if settings.tokens and not settings.certificate and any(not is_loopback(one) for one in settings.places):
            reading.lines.append(f"risk: tokens of {source.name} come unencrypted: listen by tls")
    else:
        source = SyslogSource(settings, listeners, host_id=host_id, clock=clock, counter=counter)
    reading.sources.append(source)
    for listen in settings.places:
        try:
            reading.lines.append(f"listens: {listeners.bound(listen)} ({source.name})")
        except OSError as error:
            where = f"{listen.transport.value} {listen.host} port {listen.port}"
            hint = hint_of(listen, error, source.name)
            reading.lines.append(f"lacks: {source.name} by {where}: {error.strerror}; {hint}")
    if settings.accept_forgeable:
        reading.accepted.append(f"{source.name}:{'token' if isinstance(settings, HttpSettings) else 'tls'}/*")


def _http_source(
    settings: HttpSettings,
    listeners: Listeners,
    host_id: str,
    clock: Clock,
    counter: Counter,
    kept: Callable[[], Awaitable[None]],
) -> HttpSource:
    # What the extra `hub` brings is loaded only where it is used.
    from vedette.sources.http import HttpSource

    made = HttpSource
    if isinstance(settings, OtlpSettings):
        from vedette.sources.otlp import OtlpSource

        made = OtlpSource
    return made(settings, listeners, host_id=host_id, clock=clock, counter=counter, kept=kept)


def is_loopback(listen: Listen) -> bool:
    """Whether only this machine can send there."""
    return ip_address(listen.host).is_loopback


def _plan_ports(
    settings: PortsSettings,
    keep: Path | None,
    inside: Insight,
    host_id: str,
    clock: Clock,
    counter: Counter,
    cursors: Mapping[str, str],
    reading: Reading,
) -> None:
    from vedette.app.port_watch import PortLook
    from vedette.sources.ports.source import NAME, PortsSource

    look = PortLook(settings, clock, keep / NAME if keep is not None else None, inside)
    file = look.check()
    source = PortsSource(
        settings,
        look,
        policy=file.policy,
        host_id=host_id,
        clock=clock,
        counter=counter,
        cursor=cursors.get(NAME, ""),
        begin=keep_from_children,
    )
    reading.sources.append(source)
    more = f" and {len(file.inventories)} inventories" if file.inventories else ""
    reading.lines.append(f"watches: ports of {len(file.policy.hosts)} hosts, as {settings.policy} says{more}")


def _plan_attacks(
    settings: AttacksSettings,
    policy: Path | None,
    host_id: str,
    clock: Clock,
    counter: Counter,
    cursors: Mapping[str, str],
    reading: Reading,
) -> None:
    from vedette.app.attack_watch import AttackRun
    from vedette.sources.attacks.source import NAME, AttacksSource

    run = AttackRun(settings, clock, policy)
    count = run.check()
    source = AttacksSource(
        settings,
        run,
        host_id=host_id,
        clock=clock,
        counter=counter,
        cursor=cursors.get(NAME, ""),
        begin=keep_from_children,
    )
    reading.sources.append(source)
    reading.lines.append(f"attacks: {count} scenarios of {len(settings.files)} files, on schedule")
    if policy is None:
        reading.lines.append("risk: attack files may name any target: no port policy says which networks are own")


def _plan_rootkit(
    settings: RootkitSettings,
    host_id: str,
    clock: Clock,
    counter: Counter,
    cursors: Mapping[str, str],
    look: LookAround | None,
    reading: Reading,
) -> None:
    from vedette.sources.rootkit.source import NAME, RootkitSource, look_here

    reading.sources.append(
        RootkitSource(
            settings,
            host_id=host_id,
            clock=clock,
            counter=counter,
            cursor=cursors.get(NAME, ""),
            look=look or look_here,
        )
    )
    if look is None and os.geteuid() != 0:
        reading.lines.append("lacks: rights to look for rootkits; start as root, whose rights a helper alone keeps")
    known = f", {len(settings.signatures)} files of known rootkits" if settings.signatures else ""
    reading.lines.append(f"watches: what hides on this host, or was made to stay{known}")


def _plan_integrity(
    settings: IntegritySettings,
    keep: Path,
    host_id: str,
    clock: Clock,
    counter: Counter,
    cursors: Mapping[str, str],
    watching: Watching | None,
    reading: Reading,
) -> None:
    from vedette.app.integrity_watch import integrity_source
    from vedette.sources.integrity.known import NAME

    cursor = cursors.get(NAME, "")
    reading.sources.append(
        integrity_source(
            settings, keep, host_id=host_id, clock=clock, counter=counter, cursor=cursor, watching=watching
        )
    )
    how = "as they change, with who did it" if watching is not None else "as they change, but not who did it"
    reading.lines.append(f"watches: files in {len(settings.paths())} trees, {how}")


def plan_sources(
    settings: SourcesSettings,
    host_id: str,
    clock: Clock,
    counter: Counter,
    cursors: Mapping[str, str],
    *,
    keep: Path | None = None,
    inside: Insight | None = None,
    listeners: Listeners | None = None,
    kept: Callable[[], Awaitable[None]] | None = None,
    watching: Watching | None = None,
    rootkit: LookAround | None = None,
) -> Reading:
    """Sources of the configuration, or of this host as it is; StateError for a cursor of a newer version.

    keep: the folder in which sources keep what they know; inside: what this machine says of its own
    sockets, where a policy names it; None = as far as this process may see it. listeners: sockets that are open
    already; they stay the caller's. kept: awaits until what was emitted is safely stored; senders that wait for it are
    answered then. watching: what tells of changed files, opened while that was allowed; it stays the caller's.
    rootkit: who looks for rootkits; None = this process, as far as it may.
    """
    reading = Reading()
    if not settings.names_logs:
        found = discover()
        settings = SourcesSettings(
            journal=found.journal,
            file=found.files,
            ports=settings.ports,
            attacks=settings.attacks,
            integrity=settings.integrity,
            rootkit=settings.rootkit,
        )
        reading.lines += [_words(lacking) for lacking in found.lacking]
    journal = settings.journal
    if journal is not None:
        # libsystemd is loaded only where it is used.
        from vedette.sources.journal import JournalSource

        reading.sources.append(
            JournalSource(journal, host_id=host_id, clock=clock, counter=counter, cursor=cursors.get("journal", ""))
        )
        reading.lines.append(f"reads: the journal{f' in {journal.folder}' if journal.folder else ''}")
        if journal.accept_forgeable:
            reading.accepted.append("journal")
    for files in settings.file:
        reading.sources.append(FileSource(files, host_id=host_id, clock=clock, counter=counter, cursors=cursors))
        reading.lines.append(f"reads: {', '.join(files.paths)}")
        if files.accept_forgeable:
            reading.accepted += [f"file:{path}" for path in files.paths]
    if settings.stdin is not None:
        reading.sources.append(StdinSource(settings.stdin, host_id=host_id, clock=clock, counter=counter))
        reading.lines.append("reads: standard input")
        if settings.stdin.accept_forgeable:
            reading.accepted.append("stdin")
    listeners = listeners or Listeners()
    for listening in settings.listening:
        _plan_listening(listening, listeners, host_id, clock, counter, reading, kept)
    if settings.ports is not None:
        # Whoever watches no ports does not wait for what that needs to be imported.
        from vedette.app.port_inside import inside_of

        _plan_ports(
            settings.ports, keep, inside or partial(inside_of, clock=clock), host_id, clock, counter, cursors, reading
        )
    if settings.attacks is not None:
        policy = settings.ports.policy if settings.ports is not None else None
        _plan_attacks(settings.attacks, policy, host_id, clock, counter, cursors, reading)
    if settings.rootkit is not None:
        _plan_rootkit(settings.rootkit, host_id, clock, counter, cursors, rootkit, reading)
    if settings.integrity is not None and keep is not None:
        _plan_integrity(settings.integrity, keep, host_id, clock, counter, cursors, watching, reading)
    if keep is not None:
        # Without a line: nobody has set it, and where there are no operators the file is not there.
        path = keep / AUDIT_FILE
        reading.sources.append(AuditSource(path, host_id=host_id, clock=clock, counter=counter, cursors=cursors))
    for name in reading.accepted:
        who = "any local user"
        if name.endswith(":tls/*"):
            who = "whoever holds such a certificate"
        elif name.endswith(":token/*"):
            who = "whoever holds such a token"
        reading.lines.append(f"risk: {name} may cause blocks, though {who} can write such records")
    return reading
