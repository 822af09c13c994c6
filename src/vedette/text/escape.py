"""Hostile text made harmless for terminal, mail and page.
Counterpart: cli, notify and explain show nothing from a log that has not been through here."""

from __future__ import annotations

import codecs
import re

# C0, DEL and C1; line and paragraph separators; bidirectional controls and isolates; zero-width characters; the
# interlinear and tag blocks; byte order mark; lone surrogates; bytes that are no UTF-8.
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff\U0010ff00-\U0010ffff]"
)


# A byte that is no UTF-8 is carried as a character of the last private-use plane, so that text stays lossless and
# valid Unicode (lone surrogates would be refused by databases and JSON). Such characters in a log are not UTF-8 to us.
_RAW = 0x10FF00
_RAW_CHARACTERS = re.compile("[\U0010ff00-\U0010ffff]")
_RAW_ENCODED = re.compile(b"\xf4\x8f[\xbc-\xbf][\x80-\xbf]")


def decode(raw: bytes) -> str:
    """Bytes of a log as text, without loss: `encode` gives the bytes back, `presentable` what to show."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    else:
        if text.isascii() or not _RAW_CHARACTERS.search(text):
            return text
    out, position = [], 0
    for reserved in _RAW_ENCODED.finditer(raw):
        out += [raw[position : reserved.start()].decode(errors="vedette-raw"), _as_raw(reserved.group())]
        position = reserved.end()
    return "".join([*out, raw[position:].decode(errors="vedette-raw")])


def _keep_raw(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _as_raw(error.object[error.start : error.end]), error.end


# An error handler keeps decoding linear in hostile bytes.
codecs.register_error("vedette-raw", _keep_raw)


def _as_raw(raw: bytes) -> str:
    return "".join(chr(_RAW + byte) for byte in raw)


def encode(text: str) -> bytes:
    """The bytes that `decode` made `text` from."""
    return b"".join(
        bytes([ord(part) - _RAW]) if len(part) == 1 and ord(part) >= _RAW else part.encode()
        for part in re.split("([\U0010ff00-\U0010ffff])", text)
    )


def presentable(text: str) -> tuple[str, bytes | None]:
    """Text with U+FFFD where bytes were not UTF-8, and then the bytes themselves (None where all was)."""
    if not _RAW_CHARACTERS.search(text):
        return text, None
    raw = encode(text)
    return raw.decode("utf-8", "replace"), raw


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    code -= _RAW if code >= _RAW else 0
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"


def terminal(text: str) -> str:
    """`text` on one line with every control, bidirectional and invisible character and odd byte written out."""
    return _HARMFUL.sub(_visible, text)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
