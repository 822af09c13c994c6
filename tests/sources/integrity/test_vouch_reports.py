"""Reports of configuration management, in three shapes: only a file they name with that checksum is vouched for.
Counterpart: vouch_reports.py; vouching.py, which hears all vouchers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from vedette.model.integrity import Change, ChangeKind, Entry, FileType, Verdict, Vouching
from vedette.sources.integrity.vouch_reports import ReportLack, ReportVoucher
from vedette.sources.integrity.vouching import Vouchers

GOOD, BAD = b"colour = red\n", b"colour = rad\n"
SHA256, SHA1 = hashlib.sha256(GOOD).hexdigest(), hashlib.sha1(GOOD).hexdigest()


def change(path: Path, content: bytes = GOOD) -> Change:
    path.write_bytes(content)
    digest = hashlib.sha256(content).digest()
    entry = Entry(os.fsencode(path), FileType.FILE, 0o644, 0, 0, len(content), 0, 0, 0, 0, 1, b"", digest)
    return Change(ChangeKind.CHANGED, entry.path, after=entry)


def own(path: Path) -> Any:
    file = {"path": str(path), "sha256": SHA256, "resource": "tool.conf"}
    return {"version": 1, "runs": [{"host": "web1", "tool": "puppet", "run": "7", "files": [file]}]}


def chef(path: Path) -> Any:
    resource = {"type": "template", "name": str(path), "id": str(path), "after": {"checksum": SHA256}}
    return {"message_type": "run_converge", "node_name": "web1", "run_id": "7", "resources": [resource]}


def ansible(path: Path) -> Any:
    task = {"task": {"name": "configure"}, "hosts": {"web1": {"changed": True, "dest": str(path), "checksum": SHA1}}}
    return {"plays": [{"tasks": [task]}]}


@pytest.mark.parametrize("shape", [own, chef, ansible])
def test_a_report_vouches_for_the_file_it_names_with_that_content(tmp_path: Path, shape: Any) -> None:
    reports, file = tmp_path / "reports", tmp_path / "tool.conf"
    reports.mkdir()
    (reports / "1.json").write_bytes(orjson.dumps(shape(file)))
    asked = ReportVoucher(reports, frozenset({"web1"}))
    (one,) = asked.vouch([change(file)])
    assert one is not None
    assert one.verdict is Verdict.VOUCHED
    (other,) = asked.vouch([change(file, BAD)])
    assert other is not None
    assert other.verdict is Verdict.CONTRADICTED
    assert list(asked.vouch([change(tmp_path / "else")])) == [None]
    assert list(ReportVoucher(reports, frozenset({"web2"})).vouch([change(file)])) == [None]


def test_the_last_run_counts(tmp_path: Path) -> None:
    file = tmp_path / "tool.conf"
    for number, content in enumerate((GOOD, BAD)):
        report = own(file)
        report["runs"][0]["files"][0]["sha256"] = hashlib.sha256(content).hexdigest()
        path = tmp_path / f"{number}.json"
        path.write_bytes(orjson.dumps(report))
        os.utime(path, (number, number))
    (one,) = ReportVoucher(tmp_path, frozenset({"web1"})).vouch([change(file, GOOD)])
    assert one is not None
    assert one.verdict is Verdict.CONTRADICTED


def test_what_is_no_report_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"{")
    (tmp_path / "b.json").write_bytes(b"[]")
    (tmp_path / "c.json").write_bytes(b'{"version": 1, "runs": [{}]}')
    asked = ReportVoucher(tmp_path, frozenset({"web1"}))
    assert list(asked.vouch([change(tmp_path / "tool.conf")])) == [None]
    assert asked.lacks == {ReportLack.NOT_JSON: 1, ReportLack.UNKNOWN_SHAPE: 2}


class Says:
    """Says one thing of everything."""

    def __init__(self, verdict: Verdict | None) -> None:
        self._verdict = verdict

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        return [self._verdict and Vouching(str(self._verdict), self._verdict)] * len(changes)


class Breaks:
    """Fails."""

    def vouch(self, changes: Sequence[Change]) -> Sequence[Vouching | None]:
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ((None, None), None),
        ((Verdict.HINT, None), Verdict.HINT),
        ((Verdict.HINT, Verdict.VOUCHED), Verdict.VOUCHED),
        ((Verdict.VOUCHED, Verdict.CONTRADICTED), Verdict.CONTRADICTED),
        ((Verdict.CONTRADICTED, Verdict.VOUCHED), Verdict.CONTRADICTED),
    ],
)
def test_who_contradicts_is_heard_first(tmp_path: Path, said: Sequence[Verdict | None], heard: Verdict | None) -> None:
    asked = Vouchers([Breaks(), *(Says(one) for one in said)])
    (one,) = asked.vouch([change(tmp_path / "tool.conf")])
    assert (one and one.verdict) is heard
