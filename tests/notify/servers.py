"""A plain HTTP server of a few lines, for what the PagerDuty part does not play.
Counterpart: tests/notify/test_webhook.py, test_apprise.py, test_heartbeat.py."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Got:
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes


class Echo:
    """Takes requests on loopback and answers all the same way. drip: a byte now and then, for ever."""

    def __init__(self, status: int = 200, answer: bytes = b"", *, drip: bool = False) -> None:
        self.status = status
        self.answer = answer
        self.drip = drip
        self.requests: list[Got] = []
        self.url = ""

    async def __aenter__(self) -> Echo:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append(Got(head[0], headers, body))
            while self.drip:
                writer.write(b"HTTP/1.1 200 OK\r\n" if len(self.requests) == 1 else b"")
                writer.write(b"X-Drip: 1\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
            writer.write(
                b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (self.status, len(self.answer))
            )
            writer.write(self.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
