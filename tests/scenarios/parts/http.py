"""What the HTTP servers of scenarios share: threads that end with the test, and connections that can be ended.
Counterpart: chef.py and pagerduty.py say what they answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HttpServer(ThreadingHTTPServer):
    """Listens at `address`, with TLS where there is a context; what clients keep open ends with `end_connections`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)
        if context is not None:
            # The handshake belongs to the connection's own thread: a client that stalls must not block the others.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """End what clients keep open."""
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that are cut or distrust our certificate are part of the play."""


class HttpHandler(BaseHTTPRequestHandler):
    """One request after the other on a connection, and nothing said of it."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    # Head and body are two writes: with Nagle's algorithm each answer would wait 40 ms for the client's ACK.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Silence; everything is in `requests`."""
