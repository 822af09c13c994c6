"""Who this host is and where its data lies: host id, data folder, the lock that keeps a second `up` out.
Counterpart: `app.up` begins here; the command line finds the same folder for reading."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import time
import uuid
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

from vedette.model.errors import StateError
from vedette.system.files import open_own, write_atomic
from vedette.system.privileges import CAP_DAC_READ_SEARCH, keep_only

STATE_FILE = "state.db"
ALLOWLIST_FILE = "allowlist"
AUDIT_FILE = "audit.log"
"""What people changed from the command line, one JSON object a line."""
_HOST_ID, _LOCK = "host-id", "lock"
_OURS = frozenset({STATE_FILE, ALLOWLIST_FILE, AUDIT_FILE, _HOST_ID, _LOCK})
_NOBODY = 65_534
_LOCK_TRIES, _LOCK_PAUSE = 10, 0.02
_READING_GROUPS = ("adm", "systemd-journal")


ACTING: ContextVar[str] = ContextVar("acting", default="")
"""The operator in whose name a command runs; `cli.admission` sets it."""


def operator_name() -> str:
    """Who gives the command: the operator who is logged in, else the account."""
    return ACTING.get() or account_name()


def account_name() -> str:
    """The account that gives the command: behind sudo whoever called it, else who we are."""
    uid = os.getuid()
    if uid == 0 and os.environ.get("SUDO_USER"):
        return os.environ["SUDO_USER"]
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def prepare_folder(folder: Path, user: str = "") -> Path:
    """Make the data folder, 0700. StateError with a hint where that cannot be.

    A folder that holds something else is refused: it is closed to others and, by root, given to `user`. So is one
    that a third user owns: whoever owns it chooses what we believe.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = set(os.listdir(descriptor)) - {"lost+found"}  # noqa: PTH208 (of what was opened)
            if names and not names & _OURS:
                raise StateError(
                    f"{folder} holds other files, so it is no data folder of ours", hint="name an empty one with --data"
                )
            owner = os.fstat(descriptor).st_uid
            if owner not in {os.geteuid(), 0, *([account_of(user)[0]] if user else [])}:
                raise StateError(
                    f"data folder {folder} belongs to {_name_of(owner)}", hint=f"chown it to root or {user or 'you'}"
                )
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StateError(f"data folder {folder}: {error.strerror}", hint="name another one with --data") from None
    return folder


def host_id(folder: Path) -> str:
    """The random id made at first start; a clone made before that gets its own."""
    path = folder / _HOST_ID
    try:
        with os.fdopen(open_own(path, os.O_RDONLY), encoding="ascii") as file:
            return str(uuid.UUID(file.read(64).strip()))
    except FileNotFoundError:
        made = str(uuid.uuid4())
        write_atomic(path, f"{made}\n".encode(), follow=False)
        return made
    except (OSError, ValueError) as error:
        raise StateError(
            f"host id in {path} cannot be read: {error}", hint="remove the file to get a new one"
        ) from None


def known_host_id(folder: Path) -> str:
    """The host id of a data folder, "" where there is none yet; makes nothing."""
    try:
        with os.fdopen(open_own(folder / _HOST_ID, os.O_RDONLY), encoding="ascii") as file:
            return str(uuid.UUID(file.read(64).strip()))
    except (OSError, ValueError):
        return ""


class Lock:
    """Held by the one `up` of a data folder; ends with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        path = folder / _LOCK
        try:
            # The folder may belong to a user without privileges while we are root still.
            self._descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StateError(f"lock {path}: {error.strerror}", hint="remove it, or use --data") from None

    def take(self) -> None:
        """StateError where another process holds it."""
        for attempt in range(_LOCK_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if attempt < _LOCK_TRIES - 1:
                time.sleep(_LOCK_PAUSE)  # a command that only looks whether we run holds it for a moment
        else:
            self.close()
            raise StateError("another vedette is running on this data folder", hint="stop it, or use --data")
        os.fchmod(self._descriptor, 0o600)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give it back; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def is_running(folder: Path) -> bool:
    """Whether an `up` holds the lock of `folder`; leaves nothing behind."""
    try:
        descriptor = open_own(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def give_to(folder: Path, uid: int, gid: int) -> None:
    """Give what root made in `folder` to its owner-to-be: plain files of one name only, wherever links may lead."""
    for path in folder.iterdir():
        with suppress(OSError):
            descriptor = open_own(path, os.O_RDONLY)
            try:
                if os.fstat(descriptor).st_uid == 0:
                    os.fchown(descriptor, uid, gid)
            finally:
                os.close(descriptor)


def drop_privileges(folder: Path, user: str) -> str:
    """From root to `user`, who may still read every log (CAP_DAC_READ_SEARCH) and owns the data folder.

    What was done, for people. Nothing where we are not root. StateError where `user` does not exist.
    """
    if os.geteuid() != 0:
        return f"running as {_name_of(os.geteuid())}"
    uid, gid = account_of(user)
    groups = []
    for name in _READING_GROUPS:
        with suppress(KeyError):
            groups.append(grp.getgrnam(name).gr_gid)
    os.chown(folder, uid, gid)
    give_to(folder, uid, gid)
    keep_only([CAP_DAC_READ_SEARCH], uid=uid, gid=gid, groups=groups)
    return f"running as {user}, reading logs by capability; only the helper may change the firewall"


def account_of(user: str) -> tuple[int, int]:
    """The ids of `user` and of its group; StateError where there is none of that name."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        if user != "nobody":
            raise StateError(f"there is no user {user!r}", hint="make it, or set `user:` to another one") from None
        return _NOBODY, _NOBODY
    return account.pw_uid, account.pw_gid


def _name_of(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
