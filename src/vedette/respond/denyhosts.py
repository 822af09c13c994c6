"""Takes over a DenyHosts installation: its configuration, allowed hosts, and the blocks that still run.
Counterpart: `cli` shows the report and writes what it says; Policy.adopt takes the blocks in."""

# The formats are those of DenyHosts 2.x and 3.x: denyhosts.conf, WORK_DIR, and its lines in hosts.deny.
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Address, summarize_address_range
from pathlib import Path
from zoneinfo import ZoneInfo

from vedette.model.clock import DAY, SECOND
from vedette.model.decisions import Decision
from vedette.model.errors import ConfigError, Location
from vedette.model.ids import uuid7
from vedette.respond.active import target_of
from vedette.respond.allowlist import Entry
from vedette.text.addresses import Network, parse, parse_network
from vedette.text.escape import decode, shorten, terminal
from vedette.text.times import duration_text

OWNER = "import:denyhosts"
NEVER = 30 * DAY
"""The lease of a block that DenyHosts would never have purged: every decision of ours has an end."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000, "": 1}
_SPAN = re.compile(r"([0-9]{1,9})\s*([smhdwy]?)")
_RANGE = re.compile(r"([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.)(?:(\*)|\[([0-9]{1,3})-([0-9]{1,3})\])")
_MARK = re.compile(r"#\s*DenyHosts:\s*(.*?)\s*\|\s*(.*\S)\s*")
_DATE = re.compile(r"\w{3}\s+(\w{3})\s+(\d{1,2})\s+(\d{1,2}):(\d\d):(\d\d)\s+(\d{4})")
_COUNT = re.compile(r"(.+?):([0-9]{1,9}):(.*)")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_YES = {"yes", "y", "true", "t", "1"}

_NOT_NEEDED = "nothing of this kind is needed"
_NO_EQUAL = {
    "AGE_RESET_VALID": "failures are counted within one day, not reset after a pause of",
    "AGE_RESET_ROOT": "failures are counted within one day, not reset after a pause of",
    "AGE_RESET_RESTRICTED": "failures are counted within one day, not reset after a pause of",
    "AGE_RESET_INVALID": "failures are counted within one day, not reset after a pause of",
    "RESET_ON_SUCCESS": "a success does not reset the count of failures, because an attacker may have an account",
    "DENY_THRESHOLD_RESTRICTED": "there is no list of restricted users; write a rule for them",
    "PURGE_THRESHOLD": "a repeat offender's lease doubles each time instead",
    "DETECT_DOVECOT_LOGIN_ATTEMPTS": "there is no pack for dovecot yet",
    "USERDEF_FAILED_ENTRY_REGEX": "write a rule with this pattern instead",
    "PLUGIN_DENY": "no program is ever run for a block; use a receiver of kind webhook",
    "PLUGIN_PURGE": "no program is ever run for a block; use a receiver of kind webhook",
    "BLOCKPORT": "every packet of a blocked address is dropped, whatever its port",
    "SYNC_SERVER": "the synchronisation service takes reports from anyone and is not asked",
    "SYNC_UPLOAD": "the synchronisation service takes reports from anyone and is not told",
    "SYNC_DOWNLOAD": "the synchronisation service takes reports from anyone and is not asked",
    "HOSTNAME_LOOKUP": "names are never resolved",
    "ALLOWED_HOSTS_HOSTNAME_LOOKUP": "names are never resolved; list the addresses",
    "PF_TABLE": "pf is not supported; nftables is",
    "PF_TABLE_FILE": "pf is not supported; nftables is",
    "SYSLOG_REPORT": "alerts go to receivers, see notify",
    "SMTP_PASSWORD": "no secret is copied: name it as {env: NAME} or {file: PATH}",
    "SUSPICIOUS_LOGIN_REPORT_ALLOWED_HOSTS": "a success after failures is alerted for every address",
}
_OFF_SAYS_NOTHING = {
    "RESET_ON_SUCCESS",
    "DETECT_DOVECOT_LOGIN_ATTEMPTS",
    "SYNC_UPLOAD",
    "SYNC_DOWNLOAD",
    "HOSTNAME_LOOKUP",
    "ALLOWED_HOSTS_HOSTNAME_LOOKUP",
    "SYSLOG_REPORT",
}
_IDLE = {
    *("LOCK_FILE", "ETC_DIR", "DAEMON_LOG", "DAEMON_LOG_TIME_FORMAT", "DAEMON_LOG_MESSAGE_FORMAT"),
    *("DAEMON_SLEEP", "DAEMON_PURGE", "PFCTL_PATH", "SYNC_VERSION", "SYNC_INTERVAL", "SYNC_DOWNLOAD_THRESHOLD"),
    *("SYNC_DOWNLOAD_RESILIENCY", "SMTP_SUBJECT", "SMTP_DATE_FORMAT"),
}
_MAIL = {
    "ADMIN_EMAIL": "to",
    "SMTP_HOST": "host",
    "SMTP_PORT": "port",
    "SMTP_SSL": "ssl",
    "SMTP_USERNAME": "username",
    "SMTP_FROM": "from",
}
_THRESHOLDS = {
    "DENY_THRESHOLD_INVALID": "unknown_user",
    "DENY_THRESHOLD_VALID": "known_user",
    "DENY_THRESHOLD_ROOT": "root",
}
_TAKEN = {"SECURE_LOG", "HOSTS_DENY", "PURGE_DENY", "BLOCK_SERVICE", "WORK_DIR", "IPTABLES"}


class NoteKind(StrEnum):
    """What became of something that was not simply taken over."""

    CHANGED = "changed"
    NO_EQUAL = "no-equal"
    NOT_NEEDED = "not-needed"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the report; text is escaped."""

    kind: NoteKind
    location: Location
    text: str

    def __str__(self) -> str:
        return f"{self.location}: {self.kind}: {self.text}"


@dataclass(slots=True)
class Imported:
    """What was found. settings: for vedette.yml, as mappings. mail: for a receiver, by our names.

    lease: microseconds a block lasts (PURGE_DENY). ended: blocks whose lease has ended already.
    """

    settings: dict[str, object] = field(default_factory=dict)
    mail: dict[str, str] = field(default_factory=dict)
    log_files: list[str] = field(default_factory=list)
    lease: int = NEVER
    allowlist: list[Entry] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    ended: int = 0
    notes: list[Note] = field(default_factory=list)

    def note(self, kind: NoteKind, location: Location, text: str) -> None:
        """One more line for the report."""
        self.notes.append(Note(kind, location, shorten(terminal(text), 300)))


def read_installation(
    conf: Path,
    now: int,
    *,
    host_id: str,
    timezone: str = "UTC",
    work_dir: Path | None = None,
    hosts_deny: Path | None = None,
) -> Imported:
    """Read everything; nothing is written. ConfigError where `conf` cannot be read.

    now: microseconds. timezone: of the host, in which DenyHosts wrote its dates. work_dir, hosts_deny: in
    place of those that the configuration names.
    """
    try:
        text = decode(conf.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", location=Location(str(conf))) from None
    found = Imported()
    values = _configuration(text, str(conf), found)
    folder = work_dir or Path(values.get("WORK_DIR") or "/var/lib/denyhosts")
    _allowed(folder / "allowed-hosts", found)
    purged = _state(folder, found)
    deny = hosts_deny or Path(values.get("HOSTS_DENY") or "/etc/hosts.deny")
    _blocks(deny, purged, found, now, host_id, ZoneInfo(timezone))
    return found


def _configuration(text: str, file: str, found: Imported) -> dict[str, str]:
    values: dict[str, str] = {}
    places: dict[str, Location] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        place = Location(file, number)
        if not equals:
            found.note(NoteKind.UNREADABLE, place, f"no NAME = value: {line}")
            continue
        values[name], places[name] = value, place
        if name in _NO_EQUAL:
            if value and not (name in _OFF_SAYS_NOTHING and value.lower() not in _YES):
                shown = "" if name == "SMTP_PASSWORD" else f" (was {value})"
                found.note(NoteKind.NO_EQUAL, place, f"{name}: {_NO_EQUAL[name]}{shown}")
        elif name in _IDLE:
            found.note(NoteKind.NOT_NEEDED, place, f"{name}: {_NOT_NEEDED}")
        elif name not in _TAKEN and name not in _MAIL and name not in _THRESHOLDS:
            found.note(NoteKind.UNREADABLE, place, f"{name}: no such key is known")
    found.mail = {ours: values[theirs] for theirs, ours in _MAIL.items() if values.get(theirs)}
    if values.get("SECURE_LOG"):
        found.log_files.append(values["SECURE_LOG"])
    attempts: dict[str, int] = {}
    for theirs, ours in _THRESHOLDS.items():
        if values.get(theirs, "").isdigit() and int(values[theirs]) > 0:
            attempts[ours] = int(values[theirs])
        elif values.get(theirs):
            found.note(NoteKind.UNREADABLE, places[theirs], f"{theirs}: not a number above 0: {values[theirs]}")
    if attempts:
        found.settings["rules"] = {"ssh": {"attempts": attempts}}
    _blocking(values, places, found, file)
    return values


def _blocking(values: dict[str, str], places: dict[str, Location], found: Imported, file: str) -> None:
    purge = values.get("PURGE_DENY", "")
    span = parse_span(purge)
    if span:
        found.lease = span
    else:
        place = places.get("PURGE_DENY", Location(file))
        why = f"not a time: {purge}" if purge else "blocks were never purged"
        kind = NoteKind.UNREADABLE if purge else NoteKind.CHANGED
        found.note(kind, place, f"PURGE_DENY: {why}; every block has an end now, after {duration_text(NEVER)}")
    blocking: dict[str, object] = {"enforcers": ["nftables"]}
    service, path = values.get("BLOCK_SERVICE", ""), values.get("HOSTS_DENY", "")
    if path and path != "/dev/null":
        blocking["enforcers"] = ["nftables", "hosts_deny"]
        blocking["hosts_deny"] = {"path": path, "service": service or "sshd"}
        if not service:
            place = places.get("BLOCK_SERVICE", Location(file))
            found.note(NoteKind.CHANGED, place, "BLOCK_SERVICE: lines are written for sshd")
    found.settings["blocking"] = blocking
    found.note(
        NoteKind.CHANGED,
        Location(file),
        "rules observe until a person raises them: see whom they would have blocked, then set `respond:`",
    )


def parse_span(text: str) -> int:
    """DenyHosts' time specification (`5d`, `1w`, `30`) in microseconds; 0 where it is none."""
    match = _SPAN.fullmatch(text.strip())
    return int(match[1]) * _UNITS[match[2]] * SECOND if match else 0


def parse_allowed(text: str) -> list[Network]:
    """`1.2.3.4`, `1.2.3.*`, `1.2.3.[10-20]`; ValueError for anything else, names among it."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return [parse_network(text)]
    if match[2]:
        return [parse_network(f"{match[1]}0/24")]
    first, last = parse(f"{match[1]}{int(match[3])}"), parse(f"{match[1]}{int(match[4])}")
    if not isinstance(first, IPv4Address) or not isinstance(last, IPv4Address) or first > last:
        raise ValueError(f"{text!r} is not a range of addresses")
    return list(summarize_address_range(first, last))


def _lines(path: Path, found: Imported, *, asked_for: bool = False) -> Iterator[tuple[Location, str]]:
    """Lines that are neither empty nor a comment; a file that is not there has none."""
    try:
        text = decode(path.read_bytes())
    except OSError as error:
        if asked_for or not isinstance(error, FileNotFoundError):
            found.note(NoteKind.UNREADABLE, Location(str(path)), f"cannot read it: {error.strerror}")
        return
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped:
            yield Location(str(path), number), stripped


def _allowed(path: Path, found: Imported) -> None:
    for place, line in _lines(path, found):
        if line.startswith("#"):
            continue
        try:
            networks = parse_allowed(line)
        except ValueError:
            found.note(NoteKind.NO_EQUAL, place, f"{line}: names are never resolved; list its addresses")
            continue
        found.allowlist.extend(Entry(network, f"DenyHosts allowed-hosts: {line}") for network in networks)


def _state(folder: Path, found: Imported) -> dict[Network, int]:
    """Counts of failures have no equal (ours are within a day); how often a host was purged is its offences."""
    for name in ("hosts", "hosts-valid", "hosts-root", "hosts-restricted"):
        _tell_counts(folder / name, found, "failures counted so far begin anew")
    for name in ("users-hosts", "users-invalid", "users-valid", "suspicious-logins"):
        _tell_counts(folder / name, found, "statistics are not taken over")
    restricted = [line for _, line in _lines(folder / "restricted-usernames", found) if not line.startswith("#")]
    if restricted:
        place = Location(str(folder / "restricted-usernames"))
        found.note(NoteKind.NO_EQUAL, place, f"write a rule for these users: {', '.join(restricted)}")
    purged: dict[Network, int] = {}
    for place, key, count in _counts(folder / "purge-history", found):
        try:
            purged[parse_network(key)] = count
        except ValueError:
            found.note(NoteKind.UNREADABLE, place, f"not an address: {key}")
    return purged


def _tell_counts(path: Path, found: Imported, text: str) -> None:
    entries = sum(count > 0 for _, _, count in _counts(path, found))
    if entries:
        found.note(NoteKind.NO_EQUAL, Location(str(path)), f"{entries} entries: {text}")


def _counts(path: Path, found: Imported) -> Iterable[tuple[Location, str, int]]:
    for place, line in _lines(path, found):
        match = _COUNT.fullmatch(line)
        if match is None:
            found.note(NoteKind.UNREADABLE, place, f"not key:count:date: {line}")
        else:
            yield place, match[1], int(match[2])


def _blocks(path: Path, purged: dict[Network, int], found: Imported, now: int, host_id: str, zone: ZoneInfo) -> None:
    ours: dict[Network, Decision] = {}
    marked: set[str] = set()
    foreign = 0
    for place, line in _lines(path, found, asked_for=True):
        match = _MARK.fullmatch(line)
        if match is None:
            # The entry itself follows its mark; a line without one is a person's.
            foreign += not line.startswith("#") and line not in marked
            continue
        marked.add(match[2])
        try:
            network = parse_network(_client(match[2]))
            since = _time(match[1], zone)
        except ValueError as error:
            found.note(NoteKind.UNREADABLE, place, str(error))
            continue
        if since + found.lease <= now:
            found.ended += 1
            continue
        decision = Decision(
            id=uuid7(min(since, now)),
            target=target_of(network),
            host_id=host_id,
            owner=OWNER,
            reason="blocked by DenyHosts",
            starts_at=min(since, now),
            # A date in the future (another zone) must not make the lease longer than it was to be.
            expires_at=min(since, now) + found.lease,
            evidence=(str(place),),
            offence=purged.get(network, 0) + 1,
        )
        known = ours.get(network)
        if known is None or known.expires_at < decision.expires_at:
            ours[network] = decision
    found.decisions = list(ours.values())
    if ours:
        text = f"{len(ours)} blocks taken over; DenyHosts' own lines stay in the file: stop it and remove them"
        found.note(NoteKind.CHANGED, Location(str(path)), text)
    if found.ended:
        found.note(NoteKind.CHANGED, Location(str(path)), f"{found.ended} blocks: their lease has ended")
    if foreign:
        found.note(
            NoteKind.NO_EQUAL,
            Location(str(path)),
            f"{foreign} lines are not DenyHosts': they stay in the file and in force, and are not vedette's",
        )


def _client(entry: str) -> str:
    """The address of `sshd: 192.0.2.1`, `sshd: [2001:db8::1]` or `192.0.2.1`."""
    service = re.match(r"[A-Za-z0-9_.@-]+\s*:\s+|ALL\s*:", entry)
    client = entry[service.end() :] if service else entry
    bare = client.split(":")[0] if client.count(":") == 1 else client  # `sshd: 192.0.2.1 : deny`
    return bare.strip().removeprefix("[").removesuffix("]")


def _time(text: str, zone: ZoneInfo) -> int:
    """`Tue Dec 16 11:24:15 2014`, whatever the locale of this process; ValueError where it is none."""
    match = _DATE.fullmatch(text)
    if match is None or match[1].capitalize() not in _MONTHS:
        raise ValueError(f"not a date: {text}")
    month, day, hour, minute, second, year = match.groups()
    fields = (int(year), _MONTHS.index(month.capitalize()) + 1, *map(int, (day, hour, minute, second)))
    moment = datetime(*fields, tzinfo=zone).astimezone(UTC)  # type: ignore[misc,arg-type]
    return int(moment.timestamp()) * SECOND
