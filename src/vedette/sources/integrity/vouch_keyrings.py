"""Keys whose signatures count: as they stood when this began, in the form that gpgv takes; and what gpgv says of them.
Counterpart: `vouch_archive` asks about release files, `vouch_rpm` about headers of packages."""

# gpgv(1); status lines: doc/DETAILS of GnuPG; armour: RFC 9580, section 6.2.
from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from vedette.system import exec as programs

_ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[^\n]*\n(?:[^\n]+\n)*\s*\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)
_GOOD = re.compile(r"^\[GNUPG:\] GOODSIG [0-9A-F]+ (.*)$", re.MULTILINE)
_SECONDS = 30.0


class Keyrings:
    """Whoever is root could put a key of their own there, so that a file which changed later counts as it was."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._contents = {path: _content_of(path) for path in paths}

    @property
    def changed(self) -> int:
        """How many are not as they were; they count anew after a restart."""
        return sum(content != _content_of(path) for path, content in self._contents.items())

    def arguments(self, stack: ExitStack) -> list[str]:
        """What gpgv is given, for as long as `stack` is open; empty where there is no key."""
        found: list[str] = []
        for content in self._contents.values():
            packets = _packets(content) if content is not None else None
            if packets:
                file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".gpg"))  # noqa: SIM115 (the stack does)
                file.write(packets)
                file.flush()
                found += ["--keyring", file.name]
        return found

    def signer(self, message: bytes, signature: bytes) -> str | None:
        """Who made this detached signature over it, "" where none of these keys did; None where there is no key.

        FileNotFoundError where gpgv is not installed.
        """
        with ExitStack() as stack:
            keyrings = self.arguments(stack)
            if not keyrings:
                return None
            files = []
            for content in (signature, message):
                file = stack.enter_context(tempfile.NamedTemporaryFile())
                file.write(content)
                file.flush()
                files.append(file.name)
            argv = ["gpgv", "--weak-digest", "SHA1", "--status-fd", "1", *keyrings, *files]
            ended = programs.run(argv, timeout=_SECONDS)
        if ended.returncode != 0:
            return ""
        good = _GOOD.search(ended.stdout.decode("utf-8", "replace"))
        return good[1] if good is not None else ""


def _content_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _packets(raw: bytes) -> bytes | None:
    """The keys as gpgv reads them, which knows no armour; None where they are damaged."""
    if not raw.lstrip().startswith(b"-----BEGIN PGP"):
        return raw
    found = b""
    for block in _ARMOUR.findall(raw.replace(b"\r", b"")):
        # The line that begins with `=` is a checksum, for reading errors alone.
        lines = [line for line in block.splitlines() if not line.startswith(b"=")]
        try:
            found += base64.b64decode(b"".join(lines), validate=True)
        except binascii.Error:
            return None
    return found
