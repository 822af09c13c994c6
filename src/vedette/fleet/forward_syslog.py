"""Syslog out: RFC 5424 messages, octet-counted, over one TCP or TLS connection.
Counterpart: any syslog receiver; `fleet.forward` hands in groups and tries again."""

from __future__ import annotations

import asyncio
import fcntl
import ssl
import struct
import termios
from collections.abc import Iterator, Sequence
from contextlib import suppress

from vedette.fleet.forward import ForwardError, ForwardReason, Headed, Heads, Stored
from vedette.fleet.forward_settings import SyslogTarget
from vedette.model.events import Column
from vedette.text.times import rfc3339

_USER, _INFORMATIONAL = 1, 6
_LOOK_AFTER = 0.002
_LOOK_EVERY = 0.05
_NOT_PRINTED = dict.fromkeys(range(33), "_") | {127: "_"}


class SyslogForward:
    """Sends; a group is there once the receiver's kernel has acknowledged every byte of it.

    Syslog knows no answer of the receiver itself (RFC 6587 section 3.1): what that held in memory when it fell is lost.
    """

    def __init__(self, settings: SyslogTarget, heads: Heads) -> None:
        self._settings, self._heads = settings, heads
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, group: Sequence[Stored], _after: int) -> int:
        """All or ForwardError; nothing is refused for ever."""
        # Headers are read while nothing else of the loop waits for it.
        frames = await asyncio.to_thread(lambda: b"".join(frame for one in group for frame in self._frames(one)))
        try:
            async with asyncio.timeout(self._settings.timeout):
                reader, writer = await self._connection()
                writer.write(frames)
                await writer.drain()
                await _acknowledged(reader, writer)
        except TimeoutError:
            self._drop()
            raise ForwardError(ForwardReason.TIMEOUT, "not taken in time") from None
        except ssl.SSLCertVerificationError as error:
            self._drop()
            raise ForwardError(ForwardReason.MISCONFIGURED, error.verify_message) from None
        except OSError as error:
            self._drop()
            raise ForwardError(ForwardReason.NETWORK_ERROR, f"{type(error).__name__}: {error}") from None
        except BaseException:
            self._drop()
            raise
        return 0

    async def close(self) -> None:
        """End the connection."""
        writer = self._writer
        self._drop()
        if writer is not None:
            with suppress(OSError):
                await writer.wait_closed()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is not None and self._writer is not None:
            if not self._reader.at_eof() and not self._writer.is_closing():
                return self._reader, self._writer
            self._drop()
        settings = self._settings
        context = None
        if settings.protocol == "tls":
            try:
                context = settings.tls_context()
            except (OSError, ssl.SSLError) as error:
                raise ForwardError(ForwardReason.MISCONFIGURED, f"ca_file: {type(error).__name__}") from None
        reader, writer = await asyncio.open_connection(settings.host, settings.port, ssl=context)
        # drain is to return when all is with the kernel.
        writer.transport.set_write_buffer_limits(high=0)
        self._reader, self._writer = reader, writer
        return reader, writer

    def _drop(self) -> None:
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.transport.abort()

    def _frames(self, stored: Stored) -> Iterator[bytes]:
        batch = stored.batch
        headed = self._heads(batch)
        starts, ends = (edge.tolist() for edge in headed.message)
        times = headed.time.tolist()
        for row in range(len(batch)):
            raw = batch.raw(row)
            message = raw if is_rfc5424(raw) else _head(headed, row, times[row]) + batch.block[starts[row] : ends[row]]
            yield b"%d %b" % (len(message), message)


def is_rfc5424(raw: bytes) -> bool:
    """Whether a record is such a message already (section 6: `<PRI>1 `) and goes as it is."""
    priority, closed, rest = raw[:8].partition(b">")
    return bool(closed) and priority[:1] == b"<" and priority[1:].isdigit() and rest.startswith(b"1 ")


def _head(headed: Headed, row: int, time: int) -> bytes:
    """HEADER and empty STRUCTURED-DATA (RFC 5424 sections 6.2, 6.3), the space before MSG included."""
    facility = _number(headed.facility, row, _USER, 23)
    severity = _number(headed.severity, row, _INFORMATIONAL, 7)
    host, program = _word(headed.host, row, 255), _word(headed.program, row, 48)
    pid = headed.pid.value(row)
    process = str(pid) if isinstance(pid, int) and pid >= 0 else "-"
    return f"<{facility * 8 + severity}>1 {rfc3339(time)} {host} {program} {process} - - ".encode("ascii")


def _number(column: Column, row: int, otherwise: int, most: int) -> int:
    value = column.value(row)
    return value if isinstance(value, int) and 0 <= value <= most else otherwise


def _word(column: Column, row: int, most: int) -> str:
    """PRINTUSASCII of at most `most` characters; "-" where there is nothing."""
    value = column.value(row)
    text = value if isinstance(value, str) else ""
    return text.translate(_NOT_PRINTED).encode("ascii", "replace")[:most].decode("ascii") or "-"


async def _acknowledged(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait until nothing is left in the socket's send queue (tcp(7), SIOCOUTQ)."""
    connection = writer.get_extra_info("socket")
    pause = _LOOK_AFTER
    while True:
        if reader.at_eof() or writer.is_closing():
            raise ConnectionResetError("the receiver closed the connection")
        waiting = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        if not struct.unpack("i", waiting)[0]:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LOOK_EVERY)
