"""A throw-away certificate authority for the servers of a test.
Counterpart: smtp.py and pagerduty.py present its certificates; clients are given its `ca_file`."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Certificates for 127.0.0.1, ::1 and localhost. `ca_file` is what a client must trust, `stranger` it must not."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))

    def server_context(self, *names: str) -> ssl.SSLContext:
        """For a server; names default to the loopback ones."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*(names or ("127.0.0.1", "::1", "localhost"))).configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a client that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.ca_file))
