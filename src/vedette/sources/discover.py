"""What there is to read on this host when nobody has said: the journal, else the classic log files.
Counterpart: `app` builds what is found, `vedette up` and `vedette doctor` tell people what is lacking."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vedette.model.batch import RecordFormat
from vedette.sources.journal import library
from vedette.sources.settings import FileSettings, JournalSettings

JOURNAL_FOLDERS = ("/var/log/journal", "/run/log/journal")
AUTH = ("/var/log/auth.log", "/var/log/secure")
REST = ("/var/log/syslog", "/var/log/messages")
AUDIT = "/var/log/audit/audit.log"


class Lack(StrEnum):
    """Why something is not read, or not as well as it could be."""

    JOURNAL_ABSENT = "journal-absent"
    JOURNAL_UNREADABLE = "journal-unreadable"
    JOURNAL_LIBRARY_MISSING = "journal-library-missing"
    JOURNAL_NO_READER = "journal-no-reader"
    AUTH_LOG_ABSENT = "auth-log-absent"
    FILE_UNREADABLE = "file-unreadable"
    FORGEABLE_ONLY = "forgeable-only"
    NOTHING_TO_READ = "nothing-to-read"


@dataclass(frozen=True, slots=True)
class Lacking:
    """One thing lacking. path: "" = none in particular. hint: what a person can do about it."""

    lack: Lack
    path: str
    hint: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """What to read and what is lacking. Neither journal nor file: nothing is watched until a file appears.

    audit: where auditd writes; no other log has what it tells.
    """

    journal: JournalSettings | None
    file: FileSettings | None
    lacking: tuple[Lacking, ...]
    audit: FileSettings | None = None

    @property
    def files(self) -> tuple[FileSettings, ...]:
        """All files to read."""
        return tuple(each for each in (self.file, self.audit) if each is not None)


def discover(root: Path = Path("/")) -> Discovery:
    """Look at the host below `root`: the journal if it is there and readable, else auth.log or secure and their like.

    Nothing is opened for longer than the look; nothing is printed. With neither, `file` still waits for the
    classic paths, so that logs that appear later are read.
    """
    lacking: list[Lacking] = []
    journal = _journal(root, lacking)
    audit = _audit(root, lacking)
    if journal is not None:
        return Discovery(journal, None, tuple(lacking), audit)
    found = [path for path in AUTH + REST if _there(_under(root, path), lacking)]
    if not any(path in AUTH for path in found):
        lacking.append(
            Lacking(Lack.AUTH_LOG_ABSENT, str(_under(root, AUTH[0])), "install rsyslog, or make the journal readable")
        )
    if found:
        hint = "any local user can write such lines, so they block nobody: read the journal, or set accept_forgeable"
        lacking.append(Lacking(Lack.FORGEABLE_ONLY, str(_under(root, found[0])), hint))
    else:
        hint = "name a log under sources.file.paths, or let this user read the system's (groups adm, systemd-journal)"
        lacking.append(Lacking(Lack.NOTHING_TO_READ, "", hint))
    # One of the two names of each pair is this system's: without either both are waited for.
    paths = found or list(AUTH)
    return Discovery(None, FileSettings(paths=tuple(str(_under(root, path)) for path in paths)), tuple(lacking), audit)


def _audit(root: Path, lacking: list[Lacking]) -> FileSettings | None:
    """The log of auditd, where there is one; its folder is closed to all but root and a group."""
    path = _under(root, AUDIT)
    try:
        there = path.is_file()
    except OSError:
        there = True
    if not there:
        return None
    if not os.access(path, os.R_OK, effective_ids=True):
        hint = "set log_group in /etc/audit/auditd.conf to a group of this user"
        lacking.append(Lacking(Lack.FILE_UNREADABLE, str(path), hint))
    return FileSettings(paths=(str(path),), format=RecordFormat.AUDIT)


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _journal(root: Path, lacking: list[Lacking]) -> JournalSettings | None:
    files: list[Path] = []
    for folder in JOURNAL_FOLDERS:
        try:
            files += _under(root, folder).glob("*/system*.journal")
        except OSError as error:
            lacking.append(Lacking(Lack.JOURNAL_UNREADABLE, str(error.filename), _GROUP))
    if not files:
        if not lacking:
            hint = "start systemd-journald; with Storage=none it keeps nothing"
            lacking.append(Lacking(Lack.JOURNAL_ABSENT, str(_under(root, JOURNAL_FOLDERS[0])), hint))
        return None
    if not any(os.access(file, os.R_OK, effective_ids=True) for file in files):
        lacking.append(Lacking(Lack.JOURNAL_UNREADABLE, str(files[0]), _GROUP))
        return None
    folder = "" if root == Path("/") else str(files[0].parent.parent)
    if library() is not None:
        return JournalSettings(folder=folder)
    if any(os.access(Path(directory) / "journalctl", os.X_OK) for directory in ("/usr/bin", "/bin")):
        hint = "libsystemd cannot be loaded: entries come up to half a second late through journalctl"
        lacking.append(Lacking(Lack.JOURNAL_LIBRARY_MISSING, "", hint))
        return JournalSettings(folder=folder, reader="journalctl")
    lacking.append(Lacking(Lack.JOURNAL_NO_READER, str(files[0]), "install cysystemd or the program journalctl"))
    return None


_GROUP = "add this user to the group systemd-journal"


def _there(path: Path, lacking: list[Lacking]) -> bool:
    if not path.is_file():
        return False
    if not os.access(path, os.R_OK, effective_ids=True):
        lacking.append(Lacking(Lack.FILE_UNREADABLE, str(path), "add this user to the group adm"))
    # Not readable now is tried again by the source.
    return True
