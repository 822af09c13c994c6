"""Journal entries as batches: which fields become the header, and who may be believed.
Counterpart: journal.py reads the entries, by library or by program, and hands them in one by one."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec
import numpy as np

from vedette.model.batch import Batch, GivenHeader, Origin, RecordFormat, Trust
from vedette.model.errors import StateError
from vedette.model.reasons import DropReason
from vedette.sources.settings import JournalSettings

LIMIT = 1_048_576
FIELDS = (
    "MESSAGE",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_PID",
    "_COMM",
    "_EXE",
    "_HOSTNAME",
    "_PID",
    "_SOURCE_REALTIME_TIMESTAMP",
    "_SYSTEMD_UNIT",
    "_TRANSPORT",
    "_UID",
)
"""What is read of an entry; the names that begin with `_` are set by journald, never by the sender."""

CURSOR = "vedette-journal-cursor"
VERSION = 1


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept between two runs: journald's own cursor and the number of the next batch."""

    name: str = CURSOR
    version: int = VERSION
    number: int
    cursor: str


def read_cursor(text: str) -> Cursor:
    """The stored cursor; StateError when it is not one of ours or newer than we are."""
    try:
        cursor = msgspec.json.decode(text, type=Cursor)
    except msgspec.DecodeError as error:
        raise StateError(f"the cursor of journal cannot be read: {error}", hint="remove it to begin anew") from None
    if cursor.name != CURSOR or cursor.version > VERSION:
        raise StateError(
            f"the cursor of journal is a {cursor.name} version {cursor.version}, this one knows {CURSOR} {VERSION}",
            hint="start the newer version again, or remove the cursor to begin anew",
        )
    return cursor


def sequence(cursor: str) -> tuple[str, int]:
    """Sequence id and number of a journal cursor (`s=<id>;i=<hex number>;...`); ("", 0) where there are none."""
    parts = dict(part.partition("=")[::2] for part in cursor.split(";"))
    try:
        return parts.get("s", ""), int(parts.get("i", "0"), 16)
    except ValueError:
        return parts.get("s", ""), 0


class Attestation:
    """Which entries are believed to come from whom they name (design, section 4).

    Attested: what root's sshd said, told by its executable or, where journald came too late to see that, its
    unit; and the kernel. The name of a process alone (`_COMM`) is the process's own choice.
    """

    def __init__(self, settings: JournalSettings) -> None:
        self._executables = frozenset(settings.executables)
        self._names = frozenset(path.rpartition("/")[2] for path in settings.executables)
        self._units = settings.units
        self._known: dict[tuple[str, str, str, str], Trust] = {}

    def of(self, transport: str, uid: str, executable: str, unit: str) -> Trust:
        """The trust of an entry with these fields; "" = not there."""
        asked = transport, uid, executable, unit
        trust = self._known.get(asked)
        if trust is None:
            if len(self._known) > 10_000:
                self._known.clear()
            trust = self._known[asked] = self._judge(*asked)
        return trust

    def _judge(self, transport: str, uid: str, executable: str, unit: str) -> Trust:
        if transport == "kernel":
            return Trust.ATTESTED
        if uid != "0":
            return Trust.FORGEABLE
        if executable in self._executables:
            return Trust.ATTESTED
        # Root's other programs run below sshd's unit too (sudo in a session that PAM moved nowhere), and some
        # take the name they log under from whoever starts them.
        if executable and executable.rpartition("/")[2] not in self._names:
            return Trust.FORGEABLE
        return Trust.ATTESTED if any(fnmatchcase(unit, pattern) for pattern in self._units) else Trust.FORGEABLE


def _first(value: object) -> object:
    """The first value of a field; one of many as journalctl gives it, or of one that is not text (numbers)."""
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return value[0]
    return value


def _bytes(value: object) -> bytes | None:
    value = _first(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return bytes(value)
    return None


def message_of(fields: Mapping[str, object]) -> bytes:
    """The exact bytes of MESSAGE in what `journalctl --output=json` gave; KeyError without one."""
    message = _bytes(fields["MESSAGE"])
    if message is None:
        raise KeyError("MESSAGE")
    return message


def _text(value: object) -> str:
    found = _bytes(value)
    return "" if found is None else found.decode("utf-8", "replace")


class Records:
    """Entries of one sequence id on their way into a batch."""

    def __init__(self, attestation: Attestation) -> None:
        self._attestation = attestation
        self.sequence_id = ""
        self.dropped: dict[str, int] = {}
        self._clear()

    def _clear(self) -> None:
        self.messages: list[bytes] = []
        self.cursors: list[str] = []
        self._positions: list[int] = []
        self._times: list[int] = []
        self._hosts: list[str] = []
        self._programs: list[str] = []
        self._pids: list[int] = []
        self._trust: list[int] = []

    def __len__(self) -> int:
        return len(self.messages)

    def fits(self, cursor: str) -> bool:
        """Whether an entry at `cursor` may go into the same batch."""
        return not self.messages or sequence(cursor)[0] == self.sequence_id

    def add(self, cursor: str, realtime: int, fields: Mapping[str, object]) -> bool:
        """Take one entry; False when it has no message. realtime: when journald took it, microseconds."""
        message = _bytes(fields.get("MESSAGE"))
        if message is None:
            return False
        self.sequence_id, position = sequence(cursor)
        # The kernel stamps a datagram when it is sent: nearer to what happened than when journald came to it.
        source_time = _text(fields.get("_SOURCE_REALTIME_TIMESTAMP"))
        transport = _text(fields.get("_TRANSPORT"))
        program = _text(fields.get("SYSLOG_IDENTIFIER")) or _text(fields.get("_COMM"))
        pid = _text(fields.get("_PID")) or _text(fields.get("SYSLOG_PID"))
        self.messages.append(self.bounded(message))
        self.cursors.append(cursor)
        self._positions.append(position)
        self._times.append(int(source_time) if source_time.isascii() and source_time.isdigit() else realtime)
        self._hosts.append(_text(fields.get("_HOSTNAME")))
        self._programs.append(program or ("kernel" if transport == "kernel" else ""))
        self._pids.append(int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 12 else -1)
        uid, executable, unit = (_text(fields.get(name)) for name in ("_UID", "_EXE", "_SYSTEMD_UNIT"))
        self._trust.append(self._attestation.of(transport, uid, executable, unit))
        return True

    def bounded(self, message: bytes) -> bytes:
        """The message, cut at 1 MiB (counted)."""
        if len(message) > LIMIT:
            self.dropped[DropReason.RECORD_TOO_LONG] = self.dropped.get(DropReason.RECORD_TOO_LONG, 0) + 1
        return message[:LIMIT]

    def batch(self, host_id: str, number: int, read_at: int, *, at: str = "") -> Batch:
        """All of them as one batch; empty afterwards. at: journal cursor where there are none."""
        sizes = np.array([len(message) for message in self.messages], dtype=np.int64)
        starts = np.cumsum(sizes + 1) - sizes - 1
        trust = np.array(self._trust, dtype=np.uint8)
        batch = Batch(
            origin=Origin(host_id, "journal", self.sequence_id),
            number=number,
            # Apart by a newline, as lines of a file are, so that nothing is found across two records.
            block=b"\n".join(self.messages),
            starts=starts,
            ends=starts + sizes,
            positions=np.array(self._positions, dtype=np.int64),
            read_at=read_at,
            format=RecordFormat.MESSAGE,
            trust=trust,
            # Kernel and journald stamp entries with this host's own clock, so an old one was only read late.
            spooled=True,
            header=GivenHeader(
                time=np.array(self._times, dtype=np.int64),
                host=self._hosts,
                program=self._programs,
                pid=np.array(self._pids, dtype=np.int64),
            ),
            cursor=msgspec.json.encode(Cursor(number=number + 1, cursor=[at, *self.cursors][-1])).decode(),
            dropped=self.dropped,
        )
        self.dropped = {}
        self._clear()
        return batch
