"""Configuration management vouches when its own report names the file with that checksum, and not otherwise.
Counterpart: the hub fetches them from the management server and lays them where this host cannot write."""

# Shapes: ours; Chef's data collector message `run_converge`; what Ansible's callback `json` prints.
from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from vedette.model.integrity import Change, Verdict, Vouching
from vedette.text.escape import shorten, terminal

CONFIGURATION_MANAGEMENT = "configuration-management"
_MOST_BYTES, _MOST_REPORTS = 64 << 20, 1000
_SUMS = {64: "sha256", 40: "sha1"}
_HEX = re.compile(r"[0-9a-f]+")


class ReportLack(StrEnum):
    """Why a report counts for nothing."""

    UNREADABLE = "unreadable"
    NOT_JSON = "not-json"
    UNKNOWN_SHAPE = "unknown-shape"
    TOO_LONG = "too-long"
    TOO_MANY = "too-many"


@dataclass(frozen=True, slots=True)
class Put:
    """That a run put a file there. checksum: hex, SHA-256 or SHA-1. run: for people, which run and resource."""

    host: str
    path: str
    checksum: str
    run: str


class ReportVoucher:
    """Reads the reports of `folder`, newest last, of this host alone. lacks: reports that count for nothing, by reason.

    What was put there last counts: a file that a run put there before, and a later run replaced, is contradicted.
    """

    def __init__(self, folder: Path, hosts: frozenset[str]) -> None:
        self._folder = folder
        self._hosts = hosts
        self._read: dict[Path, tuple[int, tuple[Put, ...]]] = {}
        self.lacks: dict[ReportLack, int] = {}

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        """As `Voucher` says."""
        puts = self._puts()
        return [self._verdict(change, puts.get(os.fsdecode(change.path))) for change in changes]

    def _verdict(self, change: Change, put: Put | None) -> Vouching | None:
        if put is None or change.after is None or not change.after.sha256:
            return None
        run = shorten(terminal(put.run), 200)
        if (actual := _checksum(change, _SUMS[len(put.checksum)])) is None:
            return None
        if actual == put.checksum:
            return Vouching(CONFIGURATION_MANAGEMENT, Verdict.VOUCHED, f"{run} put it there")
        expected = bytes.fromhex(put.checksum) if len(put.checksum) == 64 else b""
        detail = f"{run} put another content there"
        return Vouching(CONFIGURATION_MANAGEMENT, Verdict.CONTRADICTED, detail, expected_sha256=expected)

    def _puts(self) -> Mapping[str, Put]:
        files: list[tuple[int, Path]] = []
        with suppress(OSError):
            for path in self._folder.glob("*.json"):
                with suppress(OSError):
                    files.append((path.stat().st_mtime_ns, path))
        files.sort()
        if len(files) > _MOST_REPORTS:
            self._lack(ReportLack.TOO_MANY)
        found: dict[str, Put] = {}
        read: dict[Path, tuple[int, tuple[Put, ...]]] = {}
        for stamp, path in files[-_MOST_REPORTS:]:
            before = self._read.get(path)
            read[path] = before if before is not None and before[0] == stamp else (stamp, self._report(path))
            found |= {put.path: put for put in read[path][1]}
        self._read = read
        return found

    def _report(self, path: Path) -> tuple[Put, ...]:
        try:
            if path.stat().st_size > _MOST_BYTES:
                self._lack(ReportLack.TOO_LONG)
                return ()
            report = orjson.loads(path.read_bytes())
        except OSError:
            self._lack(ReportLack.UNREADABLE)
            return ()
        except orjson.JSONDecodeError:
            self._lack(ReportLack.NOT_JSON)
            return ()
        try:
            return tuple(one for one in read_report(report) if one.host in self._hosts)
        except (TypeError, ValueError, AttributeError, KeyError):
            self._lack(ReportLack.UNKNOWN_SHAPE)
            return ()

    def _lack(self, why: ReportLack) -> None:
        self.lacks[why] = self.lacks.get(why, 0) + 1


def read_report(report: Any) -> Iterator[Put]:
    """What a report says was put where; ValueError where it is of no known shape."""
    if not isinstance(report, dict):
        raise ValueError("a report is an object")
    if report.get("version") == 1 and "runs" in report:
        yield from _own(report)
    elif report.get("message_type") == "run_converge":
        yield from _chef(report)
    elif "plays" in report:
        yield from _ansible(report)
    else:
        raise ValueError("neither ours nor Chef's nor Ansible's")


def _own(report: dict[str, Any]) -> Iterator[Put]:
    for run in report["runs"]:
        for file in run["files"]:
            words = f"{run.get('tool', 'a run')} run {run.get('run', '')} {file.get('resource', '')}".strip()
            yield from _put(run["host"], file.get("path"), file.get("sha256"), words)


def _chef(report: dict[str, Any]) -> Iterator[Put]:
    for resource in report.get("resources", ()):
        after = resource.get("after") or {}
        where = after.get("path") or resource.get("id") or resource.get("name")
        words = f"Chef run {report.get('run_id', '')} {resource.get('type', '')}[{resource.get('name', '')}]"
        yield from _put(report["node_name"], where, after.get("checksum"), words)


def _ansible(report: dict[str, Any]) -> Iterator[Put]:
    for play in report["plays"]:
        for task in play.get("tasks", ()):
            named = (task.get("task") or {}).get("name", "")
            for host, result in (task.get("hosts") or {}).items():
                where = result.get("dest") or result.get("path")
                yield from _put(host, where, result.get("checksum"), f"Ansible task {named!r}")


def _put(host: Any, path: Any, checksum: Any, words: str) -> Iterator[Put]:
    if not isinstance(path, str) or not isinstance(checksum, str) or not path.startswith("/"):
        return
    lower = checksum.lower()
    if len(lower) in _SUMS and _HEX.fullmatch(lower):
        yield Put(str(host), path, lower, words)


def _checksum(change: Change, kind: str) -> str | None:
    """A checksum of the very content that the change speaks of; None where that stands there no more."""
    assert change.after is not None
    if kind == "sha256":
        return change.after.sha256.hex()
    other, sha256 = hashlib.new(kind, usedforsecurity=False), hashlib.sha256()
    try:
        descriptor = os.open(change.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            while data := stream.read(1 << 18):
                other.update(data)
                sha256.update(data)
    except OSError:
        return None
    return other.hexdigest() if sha256.digest() == change.after.sha256 else None
