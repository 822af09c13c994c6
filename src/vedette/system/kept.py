"""Files that only spare work, kept between runs in a folder that is the user's own.
Counterpart: the rooms say what lies in them; what cannot be read or trusted is made anew by whoever asks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from vedette.system.files import write_atomic

_NOWHERE = Path("/nonexistent/vedette")
"""Where Debian has users without a home live: nothing is kept."""


def folder() -> Path:
    """Where such files are kept: the user's own cache folder; of a user without a home one that is not there."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vedette"
    except RuntimeError:
        return _NOWHERE


def key_of(files: Iterable[Path], *about: object) -> str:
    """The key of what these files are made into; `about` is whatever else it depends on. OSError where one is gone."""
    digest = blake2b(repr(about).encode(), digest_size=16)
    for file in files:
        raw = file.read_bytes()
        digest.update(f"{len(str(file))}:{file}{len(raw)}:".encode("utf-8", "surrogateescape"))
        digest.update(raw)
    return digest.hexdigest()


def read(name: str, where: Path) -> bytes | None:
    """What was kept as `name`; None where there is nothing, or where the folder is not ours alone."""
    try:
        status = where.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            return None
        return (where / name).read_bytes()
    except OSError:
        return None


def write(name: str, data: bytes, where: Path, *, most: int) -> None:
    """Keep `data`, and of the files with this suffix the newest `most`; a folder nobody can write in is no matter."""
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(where / name, data)
        files = sorted(where.glob(f"*{Path(name).suffix}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in files[most:]:
            old.unlink(missing_ok=True)
    except OSError:
        return
