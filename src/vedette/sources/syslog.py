"""Syslog that others send: UDP (RFC 5426), TCP (RFC 6587) and TLS (RFC 5425), each sender an origin of its own.
Counterpart: syslog_frames.py cuts connections into records, syslog_sockets.py holds the sockets."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import Counter as Tally
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, SupportsIndex

import numpy as np
import structlog

from vedette.model.batch import Batch, Origin, Trust, lines_of
from vedette.model.clock import Clock
from vedette.model.errors import ConfigError
from vedette.model.protocols import Counter, Emit
from vedette.model.reasons import DropReason
from vedette.sources.connections import Connection, ConnectionEnd, Connections
from vedette.sources.settings import Listen, ListeningSettings, Transport, seconds, zone_name
from vedette.sources.syslog_frames import Frames, datagram
from vedette.sources.syslog_sockets import Listeners, files_allowed, hint_of
from vedette.text.addresses import canonical
from vedette.text.escape import terminal

log = structlog.get_logger("vedette.sources.syslog")

NAME = "syslog"
CHUNK = 1 << 16
MOST_WAITING = 16 << 20
"""Bytes of records that wait for the engine, of all senders; then nothing more is read."""
MOST_OF_SENDER = 1 << 20
"""Bytes of one sender that wait: a loud one is held up before it holds up the others."""
MOST_SENDERS = 1024
"""Senders without a verified identity that have an origin of their own; further ones share one a transport."""
ROUND = 256
"""Datagrams read before others have their turn."""
AGAIN = 1.0
"""Seconds until what failed is tried again, and between two looks at what the kernel dropped."""
OWN_FILES = 256
"""Files that are open for anything else."""
LAST = 2.0
"""Seconds the engine has at the end to take what was read."""
_RECORD = 100
"""Bytes a waiting record costs besides its own."""
_NAME = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._-]{0,252}")


class Sender:
    """What one sender sent and the engine has not taken yet."""

    __slots__ = ("dropped", "number", "origin", "position", "records", "size", "trust")

    def __init__(self, origin: Origin, trust: Trust) -> None:
        self.origin = origin
        self.trust = trust
        self.records: list[bytes] = []
        self.size = 0
        self.number = 0
        self.position = 0
        self.dropped: dict[str, int] = {}


class Heard(asyncio.StreamReader):
    """What comes on a connection, which hears of it: what came is never cut off unread."""

    def __init__(self, taken: Connection) -> None:
        super().__init__(limit=CHUNK)
        self._taken = taken

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Called by the transport."""
        self._taken.heard()
        super().feed_data(data)

    async def next(self, patience: float) -> bytes:
        """What came since, b"" at the end; TimeoutError after so many seconds without a byte."""
        self._taken.waits()
        async with asyncio.timeout(patience):
            data = await self.read(CHUNK)
        self._taken.heard()
        return data


def tls_context(settings: ListeningSettings, name: str = NAME) -> ssl.SSLContext | None:
    """What TLS is spoken with; None where it is not listened for. ConfigError where a file cannot be used."""
    if not settings.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    named = settings.certificate
    try:
        context.load_cert_chain(settings.certificate, settings.key)
        if named := settings.client_ca:
            context.load_verify_locations(named)
            context.verify_mode = ssl.CERT_REQUIRED if settings.require_client else ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"sources.{name}: {named or settings.certificate}: {error}",
            hint="certificate, key, client_ca: PEM files that the service's user can read",
        ) from None
    return context


def peer_name(certificate: Mapping[str, Any], der: bytes) -> str:
    """The name in a verified certificate: its first DNS name, else its common name, else its SHA-256 fingerprint."""
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    names += [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    for name in names:
        if _NAME.fullmatch(name):
            return str(name).lower()
    # Imported by few: most certificates have a name.
    from hashlib import sha256

    return f"sha256.{sha256(der).hexdigest()}"


class SyslogSource:
    """Listens on `settings.listen`; the sockets stay with `listeners`. ConfigError where TLS cannot be spoken.

    Origins: `syslog:udp/ADDRESS`, `syslog:tcp/ADDRESS`, `syslog:tls-anonymous/ADDRESS` (trust network), and
    `syslog:tls/NAME` (forgeable) where the client's certificate was verified. The generation is when this began, the
    position the sender's count of records since.
    """

    name = NAME

    def __init__(
        self, settings: ListeningSettings, listeners: Listeners, *, host_id: str, clock: Clock, counter: Counter
    ) -> None:
        self.begun = asyncio.Event()
        self._settings = settings
        self._listeners = listeners
        self._host_id = host_id
        self._clock = clock
        self._counter = counter
        self._context = tls_context(settings, self.name)
        self._timezone = zone_name(settings.timezone)
        self._generation = str(clock.now())
        self._senders: dict[str, Sender] = {}
        self._waiting: deque[Sender] = deque()
        self._size = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._unopened = len(settings.places)
        self._connections = Connections(settings.max_connections, settings.max_connections_per_address)
        self._lost: Tally[str] = Tally()

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled; what was read by then is emitted."""
        if (allowed := files_allowed()) < self._settings.max_connections + OWN_FILES:
            # Without a file left nobody can connect, and no log be opened.
            log.warning(
                "fewer files may be open than max_connections needs",
                source=self.name,
                allowed=allowed,
                hint="LimitNOFILE= in the unit, or a smaller max_connections",
            )
        try:
            async with asyncio.TaskGroup() as group:
                for listen in self._settings.places:
                    group.create_task(self._listen(listen, group))
                group.create_task(self._look_at_drops())
                group.create_task(self._pump(emit))
        finally:
            await self._flush(emit)

    # ------------------------------------------------------------------------------------------ listening

    async def _listen(self, listen: Listen, group: asyncio.TaskGroup) -> None:
        with await self._opened(listen) as listening:
            if listen.transport is Transport.UDP:
                await self._take_datagrams(listening)
            else:
                await self._accept(listening, listen.transport, group)

    async def _opened(self, listen: Listen) -> socket.socket:
        """A socket of our own for `listen`; waits until there can be one."""
        said = False
        while True:
            try:
                made = self._listeners.open(listen).dup()
            except OSError as error:
                self._counter.add("source_dropped", DropReason.SOURCE_UNREADABLE)
                if not said:
                    said = True
                    self._count_opened()
                    where = f"{listen.transport.value} {listen.host} port {listen.port}"
                    hint = hint_of(listen, error, self.name)
                    log.warning("cannot listen", where=where, error=str(error), hint=hint)
            else:
                if not said:
                    self._count_opened()
                return made
            await asyncio.sleep(AGAIN)

    def _count_opened(self) -> None:
        """One more place is listened on, or known to have to wait."""
        self._unopened -= 1
        if self._unopened <= 0:
            self.begun.set()

    async def _take_datagrams(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._until_room()
                self._datagram(*await loop.sock_recvfrom(listening, CHUNK))
                for _ in range(ROUND):
                    self._datagram(*listening.recvfrom(CHUNK))
            except BlockingIOError:
                pass  # all are read that were there
            except OSError as error:
                self._counter.add("source_dropped", DropReason.SOURCE_UNREADABLE)
                log.warning("datagrams cannot be read", error=str(error))
                await asyncio.sleep(AGAIN)
            # A flood must not keep the others waiting.
            await asyncio.sleep(0)

    def _datagram(self, data: bytes, peer: tuple[str, int]) -> None:
        record = datagram(data)
        sender = self._sender(Transport.UDP.value, peer[0], Trust.NETWORK)
        too_long = len(record) > self._settings.max_record
        self._take(sender, [record[: self._settings.max_record]] if record else [], int(too_long))

    async def _accept(self, listening: socket.socket, transport: Transport, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listening)
            except OSError as error:
                # Too many open files, or they were gone before we came: neither ends the others.
                self._counter.add("source_dropped", DropReason.SOURCE_UNREADABLE)
                log.warning("a connection could not be taken", error=str(error))
                await asyncio.sleep(AGAIN)
                continue
            address = canonical(peer[0]) or "unknown"
            taken = self._connections.take(address)
            if isinstance(taken, ConnectionEnd):
                connection.close()
                self._counter.add(f"{self.name}_connections", taken)
            else:
                taken.task = group.create_task(self._serve(connection, taken, transport))
            if most := self._connections.became_full():
                log.warning(
                    "ALL CONNECTIONS ARE TAKEN",
                    source=self.name,
                    most_connections_have=most,
                    hint="who says nothing gives way; a firewall, certificates, or a larger max_connections",
                )
            await asyncio.sleep(0)

    # ------------------------------------------------------------------------------------------ connections

    async def _serve(self, connection: socket.socket, taken: Connection, transport: Transport) -> None:
        """One connection to its end; whatever it does, the others go on."""
        end = ConnectionEnd.STOPPED
        try:
            end = await self._converse(connection, taken, transport)
        except Exception as error:  # noqa: BLE001 (a defect that one sender finds must not silence all)
            end = ConnectionEnd.DEFECT
            log.error("CONNECTION FAILED", sender=taken.address, error=terminal(f"{type(error).__name__}: {error}"))
        finally:
            self._connections.leave(taken)
            self._counter.add(f"{self.name}_connections", ConnectionEnd.GAVE_WAY if taken.gave_way else end)

    async def _converse(self, connection: socket.socket, taken: Connection, transport: Transport) -> ConnectionEnd:
        reader = Heard(taken)
        tls = transport is Transport.TLS
        try:
            writing, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader),
                connection,
                ssl=self._context if tls else None,
                ssl_handshake_timeout=seconds(self._settings.handshake) if tls else None,
            )
        except OSError:  # also ssl.SSLError, and the end of patience
            return ConnectionEnd.HANDSHAKE_FAILED
        try:
            return await self._read(
                reader, writing, self._sender_of(writing, taken) if tls else self._tcp(taken.address)
            )
        finally:
            writing.abort()

    def _tcp(self, address: str) -> Sender:
        return self._sender(Transport.TCP.value, address, Trust.NETWORK)

    def _sender_of(self, connection: asyncio.Transport, taken: Connection) -> Sender:
        found: ssl.SSLObject = connection.get_extra_info("ssl_object")
        # Empty where none was shown; what was shown and is not of our authorities ended the handshake.
        certificate = found.getpeercert() if self._settings.client_ca else None
        if certificate:
            taken.is_known()
            name = peer_name(certificate, found.getpeercert(binary_form=True) or b"")
            return self._sender(Transport.TLS.value, name, Trust.FORGEABLE)
        return self._sender("tls-anonymous", taken.address, Trust.NETWORK)

    async def _read(
        self,
        reader: Heard,
        writing: asyncio.Transport,  # noqa: ARG002 (RELP answers)
        sender: Sender,
    ) -> ConnectionEnd:
        frames = Frames(self._settings.max_record)
        idle = seconds(self._settings.idle)
        end = ConnectionEnd.STOPPED
        try:
            while True:
                await self._until_room(sender)
                data = await reader.next(idle)
                if not data:
                    end = ConnectionEnd.CLOSED
                    break
                self._take(sender, frames.feed(data), frames.too_long)
                frames.too_long = 0
        except TimeoutError:
            end = ConnectionEnd.IDLE
        except OSError:  # also ssl.SSLError
            end = ConnectionEnd.RESET
        finally:
            self._take(sender, frames.finish(), frames.too_long)
        return ConnectionEnd.CUT_OFF if end is ConnectionEnd.CLOSED and frames.cut_off else end

    # ------------------------------------------------------------------------------------------ senders

    def _sender(self, how: str, who: str, trust: Trust) -> Sender:
        if trust is Trust.NETWORK:
            who = canonical(who) or ""
        name = f"{self.name}:{how}/{who}"
        known = self._senders.get(name)
        if known is None:
            if trust is Trust.NETWORK and len(self._senders) >= MOST_SENDERS:
                # Addresses of datagrams can be made up, without end.
                self._counter.add(f"{self.name}_senders_shared")
                name = f"{self.name}:{how}"
                known = self._senders.get(name)
            known = known or Sender(Origin(self._host_id, name, self._generation), trust)
            self._senders[name] = known
        return known

    def _take(self, sender: Sender, records: list[bytes], too_long: int) -> None:
        if too_long:
            self._count(sender.dropped, DropReason.RECORD_TOO_LONG, too_long)
        if not records:
            return
        if not sender.records:
            self._waiting.append(sender)
            self._more.set()
        sender.records += records
        size = sum(map(len, records)) + _RECORD * len(records)
        sender.size += size
        self._size += size

    def _count(self, of: dict[str, int], reason: DropReason, n: int) -> None:
        self._counter.add("source_dropped", reason, n)
        of[reason.value] = of.get(reason.value, 0) + n

    async def _until_room(self, sender: Sender | None = None) -> None:
        while self._size >= MOST_WAITING or (sender is not None and sender.size >= MOST_OF_SENDER):
            self._room.clear()
            await self._room.wait()

    async def _look_at_drops(self) -> None:
        while True:
            for listen in self._settings.places:
                with suppress(OSError):
                    if dropped := self._listeners.dropped(listen):
                        self._count(self._lost, DropReason.RECEIVE_BUFFER_FULL, dropped)
            await asyncio.sleep(AGAIN)

    # ------------------------------------------------------------------------------------------ emitting

    async def _pump(self, emit: Emit) -> None:
        """Emit what waits, a sender at a time; meanwhile more of the others comes together."""
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            batch = self._batch()
            self._room.set()
            await emit(batch)

    async def _flush(self, emit: Emit) -> None:
        """The end: nobody can be asked to send it again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                while self._waiting:
                    await emit(self._batch())
        if left := sum(len(sender.records) for sender in self._waiting):
            self._counter.add("source_dropped", DropReason.STOPPED, left)

    def _batch(self) -> Batch:
        sender = self._waiting.popleft()
        records, sender.records = sender.records, []
        self._size -= sender.size
        sender.size = 0
        dropped, sender.dropped = sender.dropped, {}
        # Whose the datagrams were that nobody saw is not known.
        for reason, n in self._lost.items():
            dropped[reason] = dropped.get(reason, 0) + n
        self._lost.clear()
        block, starts, ends = lines_of(records)
        positions = np.arange(sender.position, sender.position + len(records), dtype=np.int64)
        sender.position += len(records)
        number, sender.number = sender.number, sender.number + 1
        return Batch(
            origin=sender.origin,
            number=number,
            block=block,
            starts=starts,
            ends=ends,
            positions=positions,
            read_at=self._clock.now(),
            trust=sender.trust,
            timezone=self._timezone,
            dropped=dropped,
        )
