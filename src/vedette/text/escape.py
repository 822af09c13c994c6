"""Hostile text made harmless for terminal, mail and page.
Counterpart: cli, notify and explain show nothing from a log that has not been through here."""

from __future__ import annotations

import re

# C0, DEL and C1; line and paragraph separators; bidirectional controls and isolates; zero-width characters; the
# interlinear and tag blocks; byte order mark; lone surrogates.
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)


def decode(raw: bytes) -> str:
    """Bytes of a log as text: UTF-8, what is not becomes U+FFFD."""
    return raw.decode("utf-8", "replace")


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"


def terminal(text: str) -> str:
    """`text` on one line with every control, bidirectional and invisible character written out."""
    return _HARMFUL.sub(_visible, text)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
