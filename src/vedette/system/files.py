"""Files replaced whole or not at all.
Counterpart: everything of ours on disk that is not in the state database is written through here."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, data: bytes, mode: int | None = 0o600) -> None:
    """Replace `path` by `data`, so that a reader or a crash sees the old or the new file, never half of one.

    mode: permission bits; None keeps mode and owner of the file that is there (0o600 where none is). A
    symbolic link is followed, so the link stays. OSError as the system gives it; the old file is then whole.
    """
    target = Path(os.path.realpath(path))
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
