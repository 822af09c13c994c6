"""Raw copy out to an S3-compatible bucket: objects by day, host and stream, of the records themselves.
Counterpart: whoever reads the bucket; `fleet.forward` hands in groups and tries again."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from vedette.fleet.forward import ForwardError, ForwardReason, Stored
from vedette.fleet.forward_files import escaped
from vedette.fleet.forward_settings import S3Target
from vedette.model.clock import SECOND
from vedette.model.errors import ConfigError
from vedette.system.files import write_atomic

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem


_TYPE = {"Content-Type": "application/gzip"}


class S3Forward:
    """Writes objects. Their keys are noted in `intent` first, so that a retry empties what this began and it does not.

    So what is sent again is there once, also where the groups are cut elsewhere after a crash.
    """

    def __init__(self, settings: S3Target, intent: Path) -> None:
        self._settings, self._intent = settings, intent
        self._bucket: S3FileSystem | None = None

    async def send(self, group: Sequence[Stored], after: int) -> int:
        """All, or ForwardError to be called again; nothing is refused for ever."""
        await asyncio.to_thread(self._write, group, after)
        return 0

    async def close(self) -> None:
        """Let go of the connections."""
        self._bucket = None

    def _write(self, group: Sequence[Stored], after: int) -> None:
        objects: dict[str, list[bytes]] = {}
        newest: dict[str, str] = {}
        for one in group:
            where = self._folder(one)
            key = newest.setdefault(where, f"{where}/{one.sequence:020}.log.gz")
            objects.setdefault(key, []).extend(one.batch.raw(row) + b"\n" for row in range(len(one.batch)))
        try:
            bucket = self._opened()
            # Emptied, not deleted: who may only put objects is enough.
            for key in self._begun(after):
                objects.setdefault(key, [])
            write_atomic(self._intent, msgspec.json.encode(_Intent(after, list(objects))))
            for key, lines in objects.items():
                # Compressed here, for what is written must be the same each time.
                with bucket.open_output_stream(key, compression=None, metadata=_TYPE) as stream:
                    stream.write(gzip.compress(b"".join(lines), 6, mtime=0))
        except ConfigError as error:
            raise ForwardError(ForwardReason.MISCONFIGURED, str(error)) from None
        except OSError as error:
            self._bucket = None
            raise ForwardError(_reason(error), type(error).__name__) from error

    def _begun(self, after: int) -> Sequence[str]:
        """Keys of a group the cursor did not move behind."""
        try:
            intent = msgspec.json.decode(self._intent.read_bytes(), type=_Intent)
        except (FileNotFoundError, msgspec.DecodeError):
            return ()
        return intent.keys if intent.after == after else ()

    def _opened(self) -> S3FileSystem:
        if self._bucket is None:
            from pyarrow.fs import S3FileSystem

            settings = self._settings
            parts = urlsplit(settings.endpoint) if settings.endpoint else None
            self._bucket = S3FileSystem(
                access_key=settings.access_key.read() if settings.access_key else None,
                secret_key=settings.secret_key.read() if settings.secret_key else None,
                region=settings.region,
                endpoint_override=parts.netloc if parts else None,
                scheme=parts.scheme if parts else "https",
                tls_ca_file_path=settings.ca_file or None,
                request_timeout=settings.timeout,
                connect_timeout=settings.timeout,
                background_writes=False,
            )
        return self._bucket

    def _folder(self, one: Stored) -> str:
        day = datetime.fromtimestamp(one.batch.read_at // SECOND, UTC).strftime("%Y-%m-%d")
        parts = (self._settings.bucket, self._settings.prefix.strip("/"), day)
        names = (escaped(one.key.host_id), escaped(one.key.stream))
        return "/".join(part for part in (*parts, *names) if part)


class _Intent(msgspec.Struct):
    after: int
    keys: Sequence[str]


def _reason(error: OSError) -> ForwardReason:
    text = str(error)
    if "ACCESS_DENIED" in text or "NO_SUCH_BUCKET" in text or "INVALID_" in text or "SIGNATURE" in text:
        return ForwardReason.MISCONFIGURED
    return ForwardReason.NETWORK_ERROR
