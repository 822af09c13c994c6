"""Which sources this host has: those of the configuration, else what is found; in words a person reads first.
Counterpart: `sources` read; `app.up` runs what is planned here and prints the lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from vedette.model.clock import Clock, SystemClock
from vedette.model.ports import InsideView, PortPolicy
from vedette.model.protocols import Counter, Source
from vedette.sources.discover import Lacking, discover
from vedette.sources.file import FileSource
from vedette.sources.settings import PortsSettings, SourcesSettings, SyslogSettings
from vedette.sources.stdin import StdinSource
from vedette.sources.syslog_sockets import Listeners, hint_of
from vedette.system.privileges import keep_from_children

Inside = Callable[[PortPolicy], tuple[InsideView, ...]]


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


def check_attack_files(settings: SourcesSettings) -> None:
    """VedetteError where the source `attacks` could not begin with its files."""
    from vedette.app.attack_watch import AttackRun

    assert settings.attacks is not None
    AttackRun(settings.attacks, SystemClock()).check()


def check_syslog(settings: SyslogSettings) -> None:
    """ConfigError where the source `syslog` could not speak TLS with its files."""
    # ssl is loaded only where it is used.
    from vedette.sources.syslog import tls_context

    tls_context(settings)


def open_listeners(settings: SourcesSettings, listeners: Listeners) -> None:
    """Open every socket that can be; needs the privileges that ports below 1024 need. What cannot is told later."""
    if settings.syslog is not None:
        for listen in settings.syslog.places:
            with suppress(OSError):
                listeners.open(listen)


def _plan_syslog(
    settings: SyslogSettings, listeners: Listeners, host_id: str, clock: Clock, counter: Counter, reading: Reading
) -> None:
    from vedette.sources.syslog import SyslogSource

    source = SyslogSource(settings, listeners, host_id=host_id, clock=clock, counter=counter)
    reading.sources.append(source)
    for listen in settings.places:
        try:
            reading.lines.append(f"listens: {listeners.bound(listen)} (syslog)")
        except OSError as error:
            where = f"{listen.transport.value} {listen.host} port {listen.port}"
            reading.lines.append(f"lacks: syslog by {where}: {error.strerror}; {hint_of(listen, error)}")
    if settings.accept_forgeable:
        reading.accepted.append("syslog:tls/*")


def plan_sources(
    settings: SourcesSettings,
    host_id: str,
    clock: Clock,
    counter: Counter,
    cursors: Mapping[str, str],
    *,
    keep: Path | None = None,
    inside: Inside | None = None,
    listeners: Listeners | None = None,
) -> Reading:
    """Sources of the configuration, or of this host as it is; StateError for a cursor of a newer version.

    keep: the folder in which sources keep what they know; inside: what this machine says of its own
    sockets, where a policy names it; None = as far as this process may see it. listeners: sockets that are open
    already; they stay the caller's.
    """
    reading = Reading()
    if not settings.names_logs:
        found = discover()
        settings = SourcesSettings(
            journal=found.journal, file=found.files, ports=settings.ports, attacks=settings.attacks
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
    if settings.syslog is not None:
        _plan_syslog(settings.syslog, listeners or Listeners(), host_id, clock, counter, reading)
    if settings.ports is not None:
        # Whoever watches no ports does not wait for what that needs to be imported.
        from vedette.app.port_inside import inside_of
        from vedette.app.port_watch import PortLook
        from vedette.sources.ports.source import NAME, PortsSource

        inside = inside or partial(inside_of, clock=clock)
        look = PortLook(settings.ports, clock, keep / NAME if keep is not None else None, inside)
        file = look.check()
        cursor = cursors.get(NAME, "")
        reading.sources.append(
            PortsSource(
                settings.ports,
                look,
                policy=file.policy,
                host_id=host_id,
                clock=clock,
                counter=counter,
                cursor=cursor,
                begin=keep_from_children,
            )
        )
        more = f" and {len(file.inventories)} inventories" if file.inventories else ""
        words = f"watches: ports of {len(file.policy.hosts)} hosts, as {settings.ports.policy} says"
        reading.lines.append(f"{words}{more}")
    if settings.attacks is not None:
        from vedette.app.attack_watch import AttackRun
        from vedette.sources.attacks.source import NAME as ATTACKS
        from vedette.sources.attacks.source import AttacksSource

        run = AttackRun(settings.attacks, clock, settings.ports.policy if settings.ports is not None else None)
        count = run.check()
        reading.sources.append(
            AttacksSource(
                settings.attacks,
                run,
                host_id=host_id,
                clock=clock,
                counter=counter,
                cursor=cursors.get(ATTACKS, ""),
                begin=keep_from_children,
            )
        )
        reading.lines.append(f"attacks: {count} scenarios of {len(settings.attacks.files)} files, on schedule")
        if run.policy is None:
            reading.lines.append("risk: attack files may name any target: no port policy says which networks are own")
    for name in reading.accepted:
        who = "whoever holds such a certificate" if name.startswith("syslog:") else "any local user"
        reading.lines.append(f"risk: {name} may cause blocks, though {who} can write such records")
    return reading
