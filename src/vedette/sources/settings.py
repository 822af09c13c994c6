"""What an operator may say about each source, and what holds when nothing is said.
Counterpart: `config` composes these into the one file; each source is constructed from its own class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, model_validator

from vedette.model.batch import RecordFormat
from vedette.sources.integrity.settings import IntegritySettings
from vedette.system.secrets import Secret
from vedette.text.regex import compile_re2
from vedette.text.times import parse_duration, positive_duration


def _pattern(text: str) -> str:
    try:
        compile_re2(text)
    except ValueError as error:
        raise ValueError(f"not a pattern RE2 can run: {error}") from None
    return text


def _zone(text: str) -> str:
    if text != "local":
        try:
            ZoneInfo(text)
        except (ValueError, OSError, KeyError):
            raise ValueError(f"no such time zone: {text!r}") from None
    return text


Duration = Annotated[str, AfterValidator(positive_duration)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Zone = Annotated[str, AfterValidator(_zone)]


def seconds(duration: str) -> float:
    """A settings duration as seconds, for the event loop's timers."""
    return parse_duration(duration) / 1e6


def zone_name(zone: str) -> str:
    """The IANA name of `zone`; "local" is looked up ($TZ, /etc/localtime), and is UTC where that says nothing."""
    if zone != "local":
        return zone
    named = os.environ.get("TZ", "").lstrip(":")
    if not named:
        _, _, named = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")
    for prefix in ("posix/", "right/"):
        named = named.removeprefix(prefix)
    try:
        ZoneInfo(named)
    except (ValueError, OSError, KeyError):
        return "UTC"
    return named


class Settings(BaseModel):
    """Frozen, and a word it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MultilineSettings(Settings):
    """Joins lines that belong together into one record.

    continuation: a line it matches belongs to the record before it (RE2, unanchored); the default joins
    lines that begin with white space. start: the other way round, a line it does NOT match belongs to the
    record before. A record is closed at `max_lines` or `max_bytes` (counted), and `flush` after its last line.
    """

    continuation: Pattern = r"^[ \t]"
    start: Pattern = ""
    max_lines: PositiveInt = 500
    max_bytes: PositiveInt = 262_144
    flush: Duration = "1s"


class LineSettings(Settings):
    """What holds for every source of lines.

    format, timezone: how the header is read; "local" is this host's zone. max_record: bytes; a longer line is
    cut there (counted). accept_forgeable: whether records of this source, which any local user can forge, may
    cause a block.
    """

    format: RecordFormat = RecordFormat.SYSLOG
    timezone: Zone = "local"
    max_record: Annotated[int, Field(ge=1024, le=1_048_576)] = 1_048_576
    multiline: MultilineSettings | None = None
    accept_forgeable: bool = False

    @model_validator(mode="after")
    def _joined_fit(self) -> Self:
        if self.multiline and self.multiline.max_bytes >= self.max_record:
            raise ValueError("multiline.max_bytes must be below max_record")
        if self.multiline and self.format is RecordFormat.AUDIT:
            raise ValueError("multiline is not for the format audit: its lines are joined by event")
        return self


class FileSettings(LineSettings):
    """Follows files through rotation.

    paths: absolute, may hold globs (`*`, `?`, `[...]`, `**`). begin: where a file is begun that has no cursor and is
    there at the start; one that appears later is read whole. rotated_quiet: how long nothing must have been
    written to a rotated file before it is let go. poll: how often files are looked at where inotify is blind
    (network file systems, links into other folders).
    """

    paths: tuple[str, ...]
    begin: Literal["end", "beginning"] = "end"
    rotated_quiet: Duration = "10s"
    poll: Duration = "1s"

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        if not self.paths:
            raise ValueError("paths: at least one is needed")
        for path in self.paths:
            if not path.startswith("/"):
                raise ValueError(f"paths: {path!r} is not absolute")
        return self


class StdinSettings(LineSettings):
    """Reads standard input to its end."""


class JournalSettings(Settings):
    """Reads the systemd journal.

    folder: journal files there instead of this machine's own ("" = own). reader: `auto` takes the library where it
    works and the program `journalctl` where it does not. poll_busy, poll_idle: how often the journal is looked
    at while records come and while none do: journald tells inotify only 250 ms after it has written. busy: how long
    after the last record it still counts as busy. accept_forgeable: whether records that are not attested may
    cause a block. executables, units: what is attested as sshd when it runs as root.
    """

    folder: str = ""
    reader: Literal["auto", "library", "journalctl"] = "auto"
    begin: Literal["end", "beginning"] = "end"
    poll_busy: Duration = "1ms"
    poll_idle: Duration = "5ms"
    busy: Duration = "10s"
    accept_forgeable: bool = False
    executables: tuple[str, ...] = (
        "/usr/sbin/sshd",
        "/usr/lib/openssh/sshd-session",
        "/usr/lib/openssh/sshd-auth",
        "/usr/libexec/openssh/sshd-session",
        "/usr/libexec/openssh/sshd-auth",
    )
    units: tuple[str, ...] = ("ssh.service", "sshd.service", "ssh@*.service", "sshd@*.service")


class Transport(StrEnum):
    """How syslog comes."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class Listen:
    """One place to listen. host: an address as text; port: 0 = one that is free."""

    transport: Transport
    host: str
    port: int


def _listen(transport: Transport, text: str) -> Listen:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r}: write ADDRESS:PORT, as 0.0.0.0:514 or [::]:514")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return Listen(transport, str(ip_address(host)), int(port))
    except ValueError:
        raise ValueError(f"{text!r}: {host!r} is no address (names are not looked up)") from None


class ListenSettings(Settings):
    """One place to listen on, `udp`, `tcp` or `tls` with ADDRESS:PORT. Port 0 takes one that is free, and says it."""

    udp: str = ""
    tcp: str = ""
    tls: str = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len([text for text in (self.udp, self.tcp, self.tls) if text]) != 1:
            raise ValueError("write one of udp, tcp and tls, with ADDRESS:PORT")
        self.place  # noqa: B018 (what cannot be read is said here)
        return self

    @property
    def place(self) -> Listen:
        """The same, taken apart."""
        transport = Transport.UDP if self.udp else Transport.TCP if self.tcp else Transport.TLS
        return _listen(transport, self.udp or self.tcp or self.tls)


class ListeningSettings(Settings):
    """Listens for what others send.

    listen: where. certificate, key: PEM files of this server, for `tls`. client_ca: whoever shows a certificate of
    these authorities is known by its name; require_client: others are refused. accept_forgeable: whether records of
    senders known so may cause a block; those of others never do. timezone: of header times without a zone.
    max_record: bytes; a longer record is cut there (counted). max_connections: above it who says nothing gives way, or
    the newcomer is refused; max_connections_per_address: what is above is refused (all counted). idle: after so long
    without a byte a connection is closed; handshake: how long TLS may take to begin.
    """

    listen: Annotated[tuple[ListenSettings, ...], Field(min_length=1)]
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    require_client: bool = False
    accept_forgeable: bool = False
    timezone: Zone = "local"
    max_record: Annotated[int, Field(ge=1024, le=1_048_576)] = 65_536
    max_connections: PositiveInt = 500
    max_connections_per_address: PositiveInt = 100
    idle: Duration = "1h"
    handshake: Duration = "10s"

    @property
    def places(self) -> tuple[Listen, ...]:
        """Where to listen, in order."""
        return tuple(one.place for one in self.listen)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        tls = any(one.tls for one in self.listen)
        if len(set(self.places)) != len(self.listen):
            raise ValueError("listen: the same place twice")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key belong together")
        if tls != bool(self.certificate):
            raise ValueError("tls needs certificate and key" if tls else "certificate and key are for `listen: tls`")
        if self.client_ca and not tls:
            raise ValueError("client_ca is for `listen: tls`")
        if self.require_client and not self.client_ca:
            raise ValueError("require_client needs client_ca")
        for file in (self.certificate, self.key, self.client_ca):
            if file and not file.startswith("/"):
                raise ValueError(f"{file!r} is not absolute")
        return self


class SyslogSettings(ListeningSettings):
    """Listens for syslog."""

    @model_validator(mode="after")
    def _known_by_certificate(self) -> Self:
        if self.accept_forgeable and not self.client_ca:
            raise ValueError("accept_forgeable needs client_ca: senders without a verified identity never block")
        return self


class RelpSettings(SyslogSettings):
    """Listens for RELP, by `tcp` and `tls`; everything else is as for syslog."""

    @model_validator(mode="after")
    def _no_datagrams(self) -> Self:
        if any(one.udp for one in self.listen):
            raise ValueError("listen: RELP goes by tcp or tls")
        return self


class TokenSettings(Settings):
    """A sender that is known by a bearer token. name: what it is called in record ids."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    token: Secret


class HttpSettings(ListeningSettings):
    """Takes JSON by HTTP (`tcp`) and HTTPS (`tls`).

    tokens: the senders; accept_forgeable: whether their records may cause a block. anonymous: those without a token
    may send, too; their records never cause one. client_ca with require_client: nobody else is listened to at all.
    max_body: bytes of a request as it comes; max_unpacked: of what gzip makes of it. request: how long a request's
    header may take, and its body; idle: how long a connection may wait for its next one. bad_tokens: within a minute
    from one address; further ones are answered late.
    """

    tokens: tuple[TokenSettings, ...] = ()
    anonymous: bool = False
    max_body: Annotated[int, Field(ge=1024, le=67_108_864)] = 4_194_304
    max_unpacked: Annotated[int, Field(ge=1024, le=67_108_864)] = 16_777_216
    request: Duration = "30s"
    idle: Duration = "2m"
    bad_tokens: PositiveInt = 20

    @model_validator(mode="after")
    def _known_by_token(self) -> Self:
        if any(one.udp for one in self.listen):
            raise ValueError("listen: HTTP goes by tcp or tls")
        if not self.tokens and not self.anonymous:
            raise ValueError("tokens: name the senders, or write `anonymous: true` to listen to anybody")
        if len({one.name for one in self.tokens}) != len(self.tokens):
            raise ValueError("tokens: the same name twice")
        if self.accept_forgeable and not self.tokens:
            raise ValueError("accept_forgeable needs tokens: senders without a verified identity never block")
        if self.client_ca and not self.require_client:
            raise ValueError("client_ca needs require_client here: senders are known by their tokens")
        return self


class OtlpSettings(HttpSettings):
    """Takes OTLP/HTTP log records (`/v1/logs`), as protobuf and JSON; everything else is as for http."""


class PortsSettings(Settings):
    """Looks at what answers, against a port policy.

    policy: its file. vantage: which of its vantages this machine is ("" = the first that names no agent). every: how
    often everything is looked at; critical_every: services that must answer, and what drifts now. confirm_after: how
    long after something new it is looked at a second time, before it is said. could_not_tell_limit: how long it may
    be that nothing can be told of a target. rate: connections begun in a second, 0 = as fast as is answered.
    """

    policy: Path
    vantage: str = ""
    every: Duration = "15m"
    critical_every: Duration = "1m"
    confirm_after: Duration = "3s"
    could_not_tell_limit: Duration = "1h"
    rate: Annotated[float, Field(ge=0)] = 5_000.0

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        if not self.policy.is_absolute():
            raise ValueError(f"policy: {str(self.policy)!r} is not absolute")
        return self


class AttacksSettings(Settings):
    """Runs attack files on schedule, and where there is a source `ports` within its policy's own networks alone.

    files: absolute paths. tags: as `vedette attack run --tags`. confirm_after: how long after a scenario that did not
    pass it is run a second time, before it is said. timeout: of programs of scenarios whose tags say nothing of it.
    """

    files: Annotated[tuple[Path, ...], Field(min_length=1)]
    tags: tuple[str, ...] = ()
    every: Duration = "1h"
    confirm_after: Duration = "10s"
    timeout: Duration = "30s"

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        for file in self.files:
            if not file.is_absolute():
                raise ValueError(f"files: {str(file)!r} is not absolute")
        return self


class RootkitSettings(Settings):
    """Looks for what hides on this host, runs without a file, or was made to stay (docs/rootkit.md).

    every: how often processes, ports, interfaces, modules, keys and the ways people are let in are looked at;
    files_every: the file trees. trees: those, absolute; () = all but /proc and /sys. most_files: entries looked at,
    what is above is said. signatures: files in the format of OSSEC's rootcheck, absolute.
    """

    every: Duration = "15m"
    files_every: Duration = "6h"
    trees: tuple[str, ...] = ()
    most_files: PositiveInt = 3_000_000
    signatures: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        for path in (*self.trees, *map(str, self.signatures)):
            if not path.startswith("/"):
                raise ValueError(f"{path!r} is not absolute")
        return self


class LivenessSettings(Settings):
    """How long a hub waits before it says that something of the watching is missing (docs/completeness.md).

    absent: without a report; stopped: the same after an agent said that it ends. group: from so many at once they are
    one fault. missing: batches that do not come while later ones did. behind: what was read and is not stored, or not
    read yet, more than lag bytes. silent: the least, of streams that used to speak more often; learn: how long they are
    listened to first. logger: that ended and does not run again. clock: how far off a host's clock may be.
    """

    absent: Duration = "20s"
    stopped: Duration = "2m"
    group: Annotated[int, Field(ge=2)] = 5
    missing: Duration = "15s"
    behind: Duration = "1m"
    lag: PositiveInt = 64 << 20
    silent: Duration = "10m"
    learn: Duration = "1d"
    logger: Duration = "1m"
    clock: Duration = "1m"

    @model_validator(mode="after")
    def _longer_than_a_report(self) -> Self:
        if parse_duration(self.absent) < 10_000_000:
            raise ValueError(f"absent: {self.absent!r} is less than two reports take (10s)")
        return self


class SourcesSettings(Settings):
    """Every source of a host. Where no source of log records is named, those are found by `discover`."""

    journal: JournalSettings | None = None
    file: tuple[FileSettings, ...] = ()
    stdin: StdinSettings | None = None
    syslog: SyslogSettings | None = None
    relp: RelpSettings | None = None
    http: HttpSettings | None = None
    otlp: OtlpSettings | None = None
    ports: PortsSettings | None = None
    attacks: AttacksSettings | None = None
    integrity: IntegritySettings | None = None
    rootkit: RootkitSettings | None = None
    liveness: LivenessSettings = LivenessSettings()

    @property
    def names_logs(self) -> bool:
        """Whether it says where log records come from."""
        return any((self.journal, self.file, self.stdin, *self.listening))

    @property
    def listening(self) -> tuple[ListeningSettings, ...]:
        """Those that others send to."""
        return tuple(one for one in (self.syslog, self.relp, self.http, self.otlp) if one is not None)

    @property
    def places(self) -> tuple[Listen, ...]:
        """Where others may send to, of all sources."""
        return tuple(place for one in self.listening for place in one.places)

    @model_validator(mode="after")
    def _own_places(self) -> Self:
        if len(set(self.places)) != len(self.places):
            raise ValueError("two of syslog, relp, http and otlp listen at the same place")
        return self
