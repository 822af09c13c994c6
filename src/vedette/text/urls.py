"""URLs a person may set: https, or plain http that never leaves this machine.
Counterpart: settings of `notify` and of `fleet` that name one."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether `host` (name or address literal, brackets allowed) can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_url(text: str) -> str:
    """`text`, an https URL (http to this machine only); ValueError without repeating it, for it may be a secret."""
    if not text.isascii() or any(character <= " " or character == "\x7f" for character in text):
        raise ValueError("a URL has neither spaces nor control nor non-ASCII characters")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("not a URL") from None
    if not host or parts.scheme not in ("https", "http"):
        raise ValueError("a URL here is https://host/…")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("plain http goes to this machine only: use https")
    return text
