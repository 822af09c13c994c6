"""Files replaced whole or not at all.
Counterpart: everything of ours on disk that is not in the state database is written through here."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path


def open_own(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file in a folder that another user may write: a descriptor (open(2) with `flags`), close it.

    OSError (ELOOP) where `path` is a symbolic link, a device, a pipe or one of several names of a file: whoever
    may write the folder could lead a privileged caller to a file of somebody else that way.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.ELOOP, "not a plain file of one name", str(path))
    return descriptor


def write_atomic(path: Path, data: bytes, mode: int | None = 0o600, *, follow: bool = True) -> None:
    """Replace `path` by `data`, so that a reader or a crash sees the old or the new file, never half of one.

    mode: permission bits; None keeps mode and owner of the file that is there (0o600 where none is). follow: a
    symbolic link stays and what it names is replaced; else the link itself is replaced. OSError as the system
    gives it; the old file is then whole.
    """
    target = Path(os.path.realpath(path)) if follow else path
    owner: tuple[int, int] | None = None
    if mode is None:
        mode = 0o600
        if target.exists():
            status = target.stat()
            mode, owner = status.st_mode & 0o7777, (status.st_uid, status.st_gid)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
