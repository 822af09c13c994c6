"""Raw copy out: the records themselves, a line each, in a tree of folders by day, host and stream.
Counterpart: whoever reads, mounts or uploads that tree; `fleet.forward` hands in groups and tries again."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import msgspec

from vedette.fleet.forward import Stored
from vedette.fleet.forward_settings import FilesTarget
from vedette.model.clock import SECOND
from vedette.system.files import open_own, write_atomic

_LONGEST_NAME = 180


class FilesForward:
    """Appends; before that the sizes of the files are noted in `intent`, so that a retry begins where this began.

    So a crash leaves no torn line or gzip member, and what is sent again is there once. OSError as the system gives it.
    """

    def __init__(self, settings: FilesTarget, intent: Path) -> None:
        self._settings, self._intent = settings, intent

    async def send(self, group: Sequence[Stored], after: int) -> int:
        """All or OSError; nothing is refused for ever."""
        await asyncio.to_thread(self._append, group, after)
        return 0

    async def close(self) -> None:
        """Nothing is held between two groups."""

    def _append(self, group: Sequence[Stored], after: int) -> None:
        self._undo(after)
        parts: dict[Path, list[bytes]] = defaultdict(list)
        for one in group:
            parts[self._path(one)] += [one.batch.raw(row) + b"\n" for row in range(len(one.batch))]
        folders = {path.parent for path in parts}
        for folder in folders:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        sizes = {str(path): path.stat().st_size if path.exists() else 0 for path in parts}
        write_atomic(self._intent, msgspec.json.encode(_Intent(after, sizes)))
        for path, lines in parts.items():
            data = b"".join(lines)
            with os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "wb") as file:
                # Members of gzip stand one behind the other (RFC 1952 section 2.2).
                file.write(gzip.compress(data, 6, mtime=0) if self._settings.compress == "gz" else data)
                file.flush()
                os.fsync(file.fileno())
        for touched in {above for folder in folders for above in (folder, *folder.parents[:2])}:
            _sync(touched)

    def _undo(self, after: int) -> None:
        """Take back what was written of a group the cursor did not move behind."""
        try:
            intent = msgspec.json.decode(self._intent.read_bytes(), type=_Intent)
        except (FileNotFoundError, msgspec.DecodeError):
            return
        if intent.after != after:
            return
        for name, size in intent.sizes.items():
            with suppress(FileNotFoundError), os.fdopen(open_own(Path(name), os.O_WRONLY), "wb") as file:
                file.truncate(min(size, os.fstat(file.fileno()).st_size))
                os.fsync(file.fileno())

    def _path(self, one: Stored) -> Path:
        day = datetime.fromtimestamp(one.batch.read_at // SECOND, UTC).strftime("%Y-%m-%d")
        suffix = ".log.gz" if self._settings.compress == "gz" else ".log"
        return self._settings.folder / day / escaped(one.key.host_id) / (escaped(one.key.stream) + suffix)


class _Intent(msgspec.Struct):
    after: int
    sizes: Mapping[str, int]


def escaped(name: str) -> str:
    """A name of others as a file's name: percent-encoded, never hidden, never a way up; what is long ends in a hash."""
    text = quote(name, safe="#:@=+,", errors="surrogatepass")
    if text.startswith("."):
        text = "%2E" + text[1:]
    if len(text) > _LONGEST_NAME:
        text = f"{text[:_LONGEST_NAME]}~{sha256(text.encode()).hexdigest()[:16]}"
    return text or "%00"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
