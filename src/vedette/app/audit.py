"""The audit: what people did, one JSON object a line, on disk before it counts as done.
Counterpart: `sources.audit` reads it on, `rules/packs/operators.yml` judges it; promotion, operators and cli write."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from vedette.app.host import AUDIT_FILE, prepare_folder
from vedette.model.errors import StateError
from vedette.system.files import open_own
from vedette.text.escape import shorten, terminal
from vedette.text.times import rfc3339

DATASET = "vedette.audit"
MASKED = "***"
TOKEN_PREFIX = "vdt_"
_SECRET_NAME = re.compile(r"(password|passphrase|secret|token|code)$")
_TOKEN = re.compile(TOKEN_PREFIX + r"[A-Za-z0-9_-]+")
_LIMIT, _MOST = 200, 50


@dataclass(frozen=True, slots=True)
class Action:
    """One thing somebody did or tried. about: more of it, by the names below `vedette.audit`."""

    action: str
    who: str
    message: str
    success: bool = True
    about: Mapping[str, object] = field(default_factory=dict)


class Audit:
    """Appends to the audit of a data folder; StateError where it cannot be opened, which is before anything is done."""

    def __init__(self, folder: Path) -> None:
        try:
            if not folder.exists():
                prepare_folder(folder)
            self._file = open_own(folder / AUDIT_FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            owner = folder.stat()
            if os.geteuid() == 0:
                os.fchown(self._file, owner.st_uid, owner.st_gid)
        except OSError as error:
            raise StateError(
                f"the audit in {folder} cannot be written: {error.strerror}", hint="run this as root"
            ) from None

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def write(self, action: Action, now: int) -> None:
        """Append one and wait for the disk. OSError where that fails: then it is not certain to be there."""
        line = orjson.dumps(record(action, now), option=orjson.OPT_APPEND_NEWLINE)
        if self._torn():
            line = b"\n" + line
        if os.write(self._file, line) != len(line):
            raise OSError(None, "no space left for a whole line", AUDIT_FILE)
        os.fsync(self._file)

    def _torn(self) -> bool:
        """Whether the disk was full in the middle of the last line: the next one must not be lost with it."""
        size = os.fstat(self._file).st_size
        return size > 0 and os.pread(self._file, 1, size - 1) != b"\n"


def record(action: Action, now: int) -> dict[str, object]:
    """An action as others see it, message first, no control characters in it; nothing that is empty."""
    return {
        "message": _said(action.message),
        "@timestamp": rfc3339(now),
        "event": {
            "kind": "event",
            "category": ["iam" if action.action.startswith(("operator-", "token-")) else "configuration"],
            "action": action.action,
            "outcome": "success" if action.success else "failure",
            "dataset": DATASET,
        },
        "user": {"name": _said(action.who)},
        "vedette": {
            "audit": {
                name: _said(value) if isinstance(value, str) else value
                for name, value in action.about.items()
                if value not in ("", None, [])
            }
        },
    }


def arguments(given: Mapping[str, object], untold: Set[str] = frozenset()) -> list[str]:
    """What a command was given, `name=value`; what is secret by its name or its look is masked, and so is `untold`."""
    return [
        f"{name}={MASKED}"
        if name in untold or _SECRET_NAME.search(name)
        else _said(_TOKEN.sub(MASKED, f"{name}={_plain(value)}"))
        for name, value in given.items()
        if value not in (None, False, "", [], ())
    ][:_MOST]


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _said(text: str) -> str:
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return shorten(terminal(" ".join(whole.split())), _LIMIT)
