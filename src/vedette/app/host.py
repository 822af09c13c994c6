"""Who this host is and where its data lies: host id, data folder, the lock that keeps a second `up` out.
Counterpart: `app.up` begins here; the command line finds the same folder for reading."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import uuid
from contextlib import suppress
from pathlib import Path

from vedette.model.errors import StateError
from vedette.system.files import write_atomic
from vedette.system.privileges import CAP_DAC_READ_SEARCH, keep_only

STATE_FILE = "state.db"
ALLOWLIST_FILE = "allowlist"
_HOST_ID, _LOCK = "host-id", "lock"
_NOBODY = 65_534
_READING_GROUPS = ("adm", "systemd-journal")


def prepare_folder(folder: Path) -> Path:
    """Make the data folder, 0700. StateError with a hint where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise StateError(f"data folder {folder}: {error.strerror}", hint="name another one with --data") from None
    return folder


def host_id(folder: Path) -> str:
    """The random id made at first start; a clone made before that gets its own."""
    path = folder / _HOST_ID
    try:
        return str(uuid.UUID(path.read_text(encoding="ascii").strip()))
    except FileNotFoundError:
        made = str(uuid.uuid4())
        write_atomic(path, f"{made}\n".encode())
        return made
    except (OSError, ValueError) as error:
        raise StateError(
            f"host id in {path} cannot be read: {error}", hint="remove the file to get a new one"
        ) from None


class Lock:
    """Held by the one `up` of a data folder; ends with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / _LOCK).open("a+")

    def take(self) -> None:
        """StateError where another process holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise StateError("another vedette is running on this data folder", hint="stop it, or use --data") from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def close(self) -> None:
        """Give it back."""
        self._file.close()


def is_running(folder: Path) -> bool:
    """Whether an `up` holds the lock of `folder`."""
    with suppress(OSError), (folder / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def drop_privileges(folder: Path, user: str) -> str:
    """From root to `user`, who may still read every log (CAP_DAC_READ_SEARCH) and owns the data folder.

    What was done, for people. Nothing where we are not root. StateError where `user` does not exist.
    """
    if os.geteuid() != 0:
        return f"running as {_name_of(os.geteuid())}"
    try:
        account = pwd.getpwnam(user)
        uid, gid = account.pw_uid, account.pw_gid
    except KeyError:
        if user != "nobody":
            raise StateError(f"there is no user {user!r}", hint="make it, or set `user:` to another one") from None
        uid = gid = _NOBODY
    groups = []
    for name in _READING_GROUPS:
        with suppress(KeyError):
            groups.append(grp.getgrnam(name).gr_gid)
    for path in [folder, *folder.iterdir()]:
        os.chown(path, uid, gid, follow_symlinks=False)
    keep_only([CAP_DAC_READ_SEARCH], uid=uid, gid=gid, groups=groups)
    return f"running as {user}, reading logs by capability; only the helper may change the firewall"


def _name_of(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
