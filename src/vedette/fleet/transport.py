"""What agent and hub say to each other over the broker: batches, confirms, reports, questions, values.
Counterpart: `shipper` and `app` use the two sides; `broker` sees that each host speaks for itself alone."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from vedette.fleet import subjects
from vedette.fleet.link import Endpoint, Link, LinkError, cancellable, reason_of
from vedette.model.errors import VedetteError
from vedette.model.fleet import LinkReason
from vedette.model.protocols import Counter
from vedette.model.shipping import BatchKey, Lane

_log = structlog.get_logger(__name__)

_NUMBER = "Vedette-Number"
_ACK_SECONDS = 10.0
_LOOK_SECONDS = 60.0
_BEAT_SECONDS, _SILENT_SECONDS = 2, 5
_DUPLICATES = 120.0
_MOST_VALUES = 256 << 20


# ------------------------------------------------------------------------------------------------- agent
class AgentTransport:
    """The agent's side. on_confirm: a confirm came (packed); on_value: a bucket's key has this value now.

    Both are called in the event loop and must return at once; each value once, newest last.
    """

    def __init__(
        self,
        host_id: str,
        endpoint: Endpoint,
        counter: Counter,
        *,
        on_confirm: Callable[[bytes], None],
        on_value: Callable[[str, str, bytes], None] | None = None,
        on_connected: Callable[[], None] | None = None,
    ) -> None:
        self.host_id = host_id
        self._counter = counter
        self._on_confirm = on_confirm
        self._on_value = on_value
        self._on_connected = on_connected
        self._seen: dict[tuple[str, str], tuple[str, int]] = {}
        # Unknown to others, so that nobody can have used our message ids before us.
        self._session = secrets.token_hex(16)
        self._looker: asyncio.Task[None] | None = None
        self.link = Link(endpoint, self._ready, counter)

    async def __aenter__(self) -> Self:
        await self.link.__aenter__()
        if self._on_value is not None:
            self._looker = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)
        await self.link.__aexit__(kind, error, trace)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self.link.connected

    async def publish(self, key: BatchKey, lane: Lane, packed: bytes, seconds: float = _ACK_SECONDS) -> None:
        """Hand a packed batch to the broker; returns once that has it on disk, which frees nothing. LinkError if not.

        Waits up to `seconds` for a connection and as long for the answer.
        """
        headers = {"Nats-Msg-Id": f"{self._session}/{key.stream}/{key.number}", "Nats-Expected-Stream": subjects.EVENTS}
        async with self.link.use(seconds) as client:
            answer = await client.request(subjects.events(self.host_id, lane), packed, seconds, headers=headers)
            said = json.loads(answer.data)
            if refusal := said.get("error"):
                raise nats.js.errors.APIError.from_error(refusal)

    async def report(self, packed: bytes, seconds: float = 1.0) -> None:
        """Say how we stand; LinkError where there is no connection."""
        async with self.link.use(seconds) as client:
            await client.publish(subjects.reports(self.host_id), packed)
            await client.flush(_ack_seconds(seconds))

    async def ask(self, packed: bytes, seconds: float = _ACK_SECONDS) -> bytes:
        """Ask the hub; its answer, LinkError where none comes."""
        async with self.link.use(seconds) as client:
            return bytes((await client.request(subjects.asks(self.host_id), packed, seconds)).data)

    async def renew(self, csr: bytes, seconds: float = _ACK_SECONDS) -> bytes:
        """Ask for the next certificate; it, PEM. LinkError where none comes or it is refused."""
        async with self.link.use(seconds) as client:
            answer = json.loads((await client.request(subjects.renewals(self.host_id), csr, seconds)).data)
            if not isinstance(answer, dict) or not isinstance(answer.get("certificate"), str):
                said = answer.get("refused", "") if isinstance(answer, dict) else ""
                raise LinkError(LinkReason.FORBIDDEN, f"no new certificate: {said}")
            return str(answer["certificate"]).encode()

    # ---------------------------------------------------------------- what comes
    async def _ready(self, client: Client) -> None:
        async def on_confirm(message: Msg) -> None:
            self._on_confirm(message.data)

        await client.subscribe(subjects.confirms(self.host_id), cb=on_confirm)
        if self._on_value is not None:
            for bucket in subjects.BUCKETS:
                for key in (self.host_id, subjects.ALL):
                    await self._watch(client, bucket, key)
        if self._on_connected is not None:
            self._on_connected()

    async def _watch(self, client: Client, bucket: str, key: str) -> None:
        async def on_told(message: Msg) -> None:
            self._take(bucket, key, message)

        # First listen, then look: nothing written in between is missed.
        await client.subscribe(subjects.value(bucket, key), cb=on_told)
        await self._fetch(client, bucket, key)

    async def _fetch(self, client: Client, bucket: str, key: str) -> None:
        try:
            found = await client.request(subjects.direct_get(bucket, key), b"", _ACK_SECONDS)
        except nats.errors.NoRespondersError:
            # The hub has not made its buckets yet; it will tell when it writes.
            return
        self._take(bucket, key, found)

    def _take(self, bucket: str, key: str, message: Msg) -> None:
        headers = message.headers or {}
        if headers.get("Status") or _NUMBER not in headers:
            # Nothing there yet ("404"), or not written by a hub.
            return
        epoch, _, number = headers[_NUMBER].partition(".")
        known = self._seen.get((bucket, key))
        if not number.isdecimal() or (known is not None and known[0] == epoch and int(number) <= known[1]):
            return
        self._seen[bucket, key] = (epoch, int(number))
        if self._on_value is not None:
            self._on_value(bucket, key, message.data)

    async def _look(self) -> None:
        """Look again now and then: what is only told can get lost."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for bucket in subjects.BUCKETS:
                for key in (self.host_id, subjects.ALL):
                    try:
                        async with self.link.use() as client:
                            await self._fetch(client, bucket, key)
                    except LinkError:
                        # Counted there; the next look comes.
                        continue


def _ack_seconds(seconds: float) -> int:
    return max(int(seconds), 1)


# ------------------------------------------------------------------------------------------------- hub
@dataclass(frozen=True, slots=True)
class Arrival:
    """A packed batch from this host; that the batch inside is of the same host is for whoever unpacks it to see.

    ack: the broker forgets it; call once it is stored and synced. times: how often it was handed out by now.
    """

    host_id: str
    lane: Lane
    packed: bytes
    times: int
    _message: Msg = field(repr=False)

    async def ack(self) -> None:
        """It is stored. What cannot be said now is said when it comes again."""
        try:
            with cancellable():
                await self._message.ack()
        except (nats.errors.Error, OSError):
            # It comes again, and is then a repeat.
            return


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What the broker may hold. replicas: servers that keep each message; wait: seconds until what was handed out and
    not acknowledged is handed out again; share: messages of one host and lane."""

    replicas: int = 1
    most_bytes: int = 1 << 30
    share: int = 10_000
    wait: float = 60.0
    fetch_messages: int = 256
    fetch_bytes: int = 32 << 20


OnReport = Callable[[str, bytes], None]
OnAsk = Callable[[str, bytes], Awaitable[bytes]]


class HubTransport:
    """The hub's side: the streams, and what comes and goes.

    on_report: host and packed report, called in the event loop, must return at once. on_ask, on_renew: host and
    request -> answer; what they raise is counted and answered by nothing.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        counter: Counter,
        *,
        on_report: OnReport,
        on_ask: OnAsk,
        on_renew: OnAsk,
        limits: StreamLimits = StreamLimits(),
    ) -> None:
        self._counter = counter
        self._on_report, self._on_ask, self._on_renew = on_report, on_ask, on_renew
        self._limits = limits
        self._numbers: dict[tuple[str, str], tuple[str, int]] = {}
        self._writing = asyncio.Lock()
        self._answering: set[asyncio.Task[None]] = set()
        self._began = False
        self.link = Link(endpoint, self._ready, counter)

    async def __aenter__(self) -> Self:
        await self.link.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in list(self._answering):
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        await self.link.__aexit__(kind, error, trace)

    # ---------------------------------------------------------------- set up
    async def _ready(self, client: Client) -> None:
        await self._make_streams(client)

        async def on_report(message: Msg) -> None:
            if host_id := subjects.host_of(message.subject):
                self._on_report(host_id, message.data)

        async def on_ask(message: Msg) -> None:
            self._answer(message, self._on_ask)

        async def on_renew(message: Msg) -> None:
            self._answer(message, self._on_renew)

        await client.subscribe("v1.rp.*", cb=on_report)
        await client.subscribe("v1.ask.*", cb=on_ask)
        await client.subscribe("v1.rn.*", cb=on_renew)

    async def _make_streams(self, client: Client) -> None:
        """Make them as they should be; what they hold stays."""
        js = client.jetstream(timeout=_ACK_SECONDS)
        limits = self._limits
        wanted = StreamConfig(
            name=subjects.EVENTS,
            subjects=["v1.ev.*.*"],
            # Kept until the hub has stored it; full means that agents wait, never that something old is thrown away.
            retention=RetentionPolicy.WORK_QUEUE,
            discard=DiscardPolicy.NEW,
            discard_new_per_subject=True,
            max_msgs_per_subject=limits.share,
            max_bytes=limits.most_bytes,
            storage=StorageType.FILE,
            num_replicas=limits.replicas,
            duplicate_window=_DUPLICATES,
        )
        try:
            await js.stream_info(subjects.EVENTS)
        except nats.js.errors.NotFoundError:
            await js.add_stream(wanted)
        else:
            # Adding what is there reserves its room a second time before it is found to be the same.
            await js.update_stream(wanted)
        if not self._began:
            # What a hub that was killed had been handed would else come again only after `wait`.
            with suppress(nats.js.errors.NotFoundError):
                await js.delete_consumer(subjects.EVENTS, subjects.CONSUMER)
            self._began = True
        await js.add_consumer(
            subjects.EVENTS,
            ConsumerConfig(
                durable_name=subjects.CONSUMER,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=limits.wait,
                max_ack_pending=8 * limits.fetch_messages,
                max_deliver=-1,
            ),
        )
        for bucket in subjects.BUCKETS:
            config = KeyValueConfig(bucket, replicas=limits.replicas, direct=True, max_bytes=_MOST_VALUES)
            try:
                await js.key_value(bucket)
            except nats.js.errors.NotFoundError:
                await js.create_key_value(config)

    def _answer(self, message: Msg, handler: OnAsk) -> None:
        host_id = subjects.host_of(message.subject)
        if not host_id or not message.reply:
            self._counter.add("ask_refused", LinkReason.UNREADABLE)
            return
        if len(self._answering) >= self._limits.fetch_messages:
            # Whoever asks asks again.
            self._counter.add("ask_refused", LinkReason.FULL)
            return

        async def answer() -> None:
            try:
                await message.respond(await handler(host_id, message.data))
            except (VedetteError, nats.errors.Error, OSError, ValueError) as error:
                self._counter.add("ask_refused", reason_of(error))

        task = asyncio.create_task(answer())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    # ---------------------------------------------------------------- batches
    async def arrivals(self) -> AsyncIterator[Arrival]:
        """Batches as they come, for ever; at most `fetch_bytes` are on their way while the caller is busy."""
        while True:
            try:
                async with self.link.use() as client:
                    async for arrival in self._pull(client):
                        yield arrival
            except LinkError as error:
                if error.reason is LinkReason.NO_STREAM:
                    # Somebody took the streams away under a server that runs.
                    await self._mend()
                await asyncio.sleep(0.1)

    async def _mend(self) -> None:
        try:
            async with self.link.use(_ACK_SECONDS) as client:
                await self._make_streams(client)
            self._counter.add("streams_made_again")
        except LinkError as error:
            _log.warning("the broker's streams cannot be made", reason=error.reason.value)

    async def _pull(self, client: Client) -> AsyncIterator[Arrival]:
        limits = self._limits
        place = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.EVENTS}.{subjects.CONSUMER}"
        ask = {"batch": limits.fetch_messages, "max_bytes": limits.fetch_bytes}
        ask |= {"expires": 30 * 10**9, "idle_heartbeat": _BEAT_SECONDS * 10**9}
        inbox = client.new_inbox()
        queue = await client.subscribe(f"{inbox}.*", pending_bytes_limit=4 * limits.fetch_bytes)
        try:
            for turn in range(2**62):
                # A subject for each turn: what is left of one that was given up is not taken for the next.
                reply = f"{inbox}.{turn}"
                with cancellable():
                    await client.publish(place, json.dumps(ask).encode(), reply=reply)
                got = 0
                while got < limits.fetch_messages:
                    try:
                        message = await queue.next_msg(_SILENT_SECONDS)
                    except nats.errors.TimeoutError:
                        # No sign of life: the request was lost.
                        break
                    status = (message.headers or {}).get("Status", "") if not message.data else ""
                    if not status:
                        got += 1
                        if (arrival := self._arrival(message)) is not None:
                            yield arrival
                    elif message.subject == reply and status != "100":
                        if status == "503" or (status == "409" and "Deleted" in _words_of(message)):
                            raise LinkError(LinkReason.NO_STREAM, "the stream is gone")
                        break
        finally:
            if client.is_connected:
                await queue.unsubscribe()

    def _arrival(self, message: Msg) -> Arrival | None:
        host_id = subjects.host_of(_origin(message))
        try:
            lane = subjects.lane_of(_origin(message))
        except ValueError:
            host_id = ""
        if not host_id:
            self._counter.add("batches_refused", LinkReason.UNREADABLE)
            task = asyncio.create_task(message.term())
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return None
        return Arrival(host_id, lane, message.data, message.metadata.num_delivered or 1, message)

    # ---------------------------------------------------------------- what goes out
    async def confirm(self, host_id: str, packed: bytes, seconds: float = 1.0) -> None:
        """Tell a host what is stored. Lost ones are asked for. LinkError where there is no connection."""
        async with self.link.use(seconds) as client:
            await client.publish(subjects.confirms(host_id), packed)

    async def put(self, bucket: str, key: str, value: bytes, seconds: float = _ACK_SECONDS) -> None:
        """Set a key of a bucket (a host id, or ALL); whom it is for hears of it at once. LinkError if not kept."""
        async with self._writing, self.link.use(seconds) as client:
            epoch, number = self._numbers.get((bucket, key)) or await self._number(client, bucket, key)
            headers = {_NUMBER: f"{epoch}.{number + 1}"}
            js = client.jetstream(timeout=seconds)
            try:
                await js.publish(subjects.value(bucket, key), value, headers=headers)
            except BaseException:
                # Whether it is there now is not known.
                self._numbers.pop((bucket, key), None)
                raise
            self._numbers[bucket, key] = (epoch, number + 1)

    async def get(self, bucket: str, key: str, seconds: float = _ACK_SECONDS) -> bytes | None:
        """What a key was set to; None where it was not."""
        async with self.link.use(seconds) as client:
            found = await client.request(subjects.direct_get(bucket, key), b"", seconds)
            return None if (found.headers or {}).get("Status") else bytes(found.data)

    async def _number(self, client: Client, bucket: str, key: str) -> tuple[str, int]:
        found = await client.request(subjects.direct_get(bucket, key), b"", _ACK_SECONDS)
        epoch, _, number = (found.headers or {}).get(_NUMBER, "").partition(".")
        return (epoch, int(number)) if epoch and number.isdecimal() else (secrets.token_hex(4), 0)


def _origin(message: Msg) -> str:
    return message.subject


def _words_of(message: Msg) -> str:
    headers: Mapping[str, Any] = message.headers or {}
    return str(headers.get("Description", ""))
