"""Changes as the records other people and rules see: one JSON object each, message first.
Counterpart: `source` says when; `parsers.families` knows such records, `rules/packs/integrity.yml` judges them."""

from __future__ import annotations

import grp
import hashlib
import pwd
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from vedette.model.integrity import Attribute, Change, ChangeKind, Entry, Vouching
from vedette.text.escape import decode
from vedette.text.times import rfc3339

DATASET = "vedette.integrity"
ACTIONS = {
    ChangeKind.ADDED: "file-added",
    ChangeKind.REMOVED: "file-removed",
    ChangeKind.CHANGED: "file-changed",
}

Record = dict[str, Any]


def words(change: Change) -> str:
    """A change as a person reads it."""
    what = ", ".join(_difference(one, change) for one in change.attributes)
    other = (
        f" (renamed {'to' if change.kind is ChangeKind.REMOVED else 'from'} {decode(change.related)})"
        if change.related
        else ""
    )
    return f"{change.kind.value}: {decode(change.path)}{other}{f': {what}' if what else ''}{_by(change)}"


def change_fields(change: Change) -> Record:
    """What is known of a change, by field name; nothing that is empty. The path itself is not among it."""
    entry = change.after or change.before
    assert entry is not None
    fields: Record = {
        "file.type": entry.type.value,
        "file.mode": f"{entry.mode:04o}",
        "file.uid": str(entry.uid),
        "file.gid": str(entry.gid),
        "file.owner": _user(entry.uid),
        "file.group": _group(entry.gid),
        "file.size": entry.size,
        "file.mtime": rfc3339(entry.mtime_ns // 1000),
        "file.ctime": rfc3339(entry.ctime_ns // 1000),
        "file.inode": str(entry.inode),
        "file.hash.sha256": entry.sha256.hex(),
        "file.target_path": decode(entry.target),
        "vedette.integrity.unread": entry.unread.value if entry.unread is not None else "",
    }
    before = change.before
    if before is not None and change.after is not None:
        for attribute in change.attributes:
            fields |= _before(attribute, before)
    if change.who is not None:
        who = change.who
        fields |= {
            "process.pid": who.pid,
            "process.executable": who.executable,
            "process.command_line": " ".join(who.command_line),
            "process.parent.executable": who.parents[0].executable if who.parents else "",
            "vedette.integrity.parents": [one.executable for one in who.parents],
            "user.name": who.user,
            "user.id": str(who.user_id) if who.user_id >= 0 else "",
            "vedette.integrity.login_user": who.login_user,
            "vedette.session.id": who.session,
        }
    return {name: value for name, value in fields.items() if value not in ("", None, [])}


def change_record(change: Change, vouching: Vouching | None = None) -> Record:
    """A change as a record of the source."""
    fields: Record = {
        "file.path": decode(change.path),
        "vedette.integrity.kind": change.kind.value,
        "vedette.integrity.attributes": [one.value for one in change.attributes],
        "vedette.integrity.related": decode(change.related) if change.related else "",
        "vedette.integrity.change": _same(change),
        **change_fields(change),
    }
    said = ""
    if vouching is not None:
        said = f" [{vouching.verdict.value} by {vouching.by}{f': {vouching.detail}' if vouching.detail else ''}]"
        fields |= {
            "vedette.integrity.verdict": vouching.verdict.value,
            "vedette.integrity.vouched_by": vouching.by,
            "vedette.integrity.vouched_detail": vouching.detail,
            "package.name": vouching.package,
            "package.version": vouching.version,
            "vedette.integrity.expected_sha256": vouching.expected_sha256.hex(),
        }
    return record(words(change) + said, ACTIONS[change.kind], change.at, fields)


def flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a record by their names."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _same(change: Change) -> str:
    """The same for a change that is the same on many hosts: what became of what, not when nor by whom."""
    entry = change.after
    now = (entry.type.value, entry.mode, entry.uid, entry.gid, entry.sha256, entry.target) if entry is not None else ()
    about = repr((change.kind.value, [one.value for one in change.attributes], change.path, now))
    return hashlib.blake2b(about.encode(), digest_size=16).hexdigest()


def record(message: str, action: str, at: int, fields: Record) -> Record:
    """One record; nothing that is empty. at: microseconds UTC."""
    event = {"kind": "event", "category": ["file"], "action": action, "dataset": DATASET}
    made: Record = {"message": message, "@timestamp": rfc3339(at), "event": event}
    for name, value in fields.items():
        if value in ("", None, []):
            continue
        *path, last = name.split(".")
        inner = made
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return made


def _before(attribute: Attribute, before: Entry) -> Record:
    match attribute:
        case Attribute.CONTENT:
            return {
                "vedette.integrity.before.sha256": before.sha256.hex(),
                "vedette.integrity.before.size": before.size,
            }
        case Attribute.TYPE:
            return {"vedette.integrity.before.type": before.type.value}
        case Attribute.MODE:
            return {"vedette.integrity.before.mode": f"{before.mode:04o}"}
        case Attribute.OWNER:
            return {"vedette.integrity.before.uid": str(before.uid)}
        case Attribute.GROUP:
            return {"vedette.integrity.before.gid": str(before.gid)}
        case Attribute.TARGET:
            return {"vedette.integrity.before.target": decode(before.target)}
        case Attribute.LINKS:
            return {"vedette.integrity.before.links": before.links}
        case Attribute.TIMES:
            return {"vedette.integrity.before.mtime": rfc3339(before.mtime_ns // 1000)}
        case _:
            return {}


def _difference(attribute: Attribute, change: Change) -> str:
    before, after = change.before, change.after
    assert before is not None
    assert after is not None
    match attribute:
        case Attribute.MODE:
            return f"mode {before.mode:04o} -> {after.mode:04o}"
        case Attribute.OWNER:
            return f"owner {_named(_user, before.uid)} -> {_named(_user, after.uid)}"
        case Attribute.GROUP:
            return f"group {_named(_group, before.gid)} -> {_named(_group, after.gid)}"
        case Attribute.TYPE:
            return f"type {before.type.value} -> {after.type.value}"
        case Attribute.TARGET:
            return f"target {decode(before.target)} -> {decode(after.target)}"
        case Attribute.LINKS:
            return f"links {before.links} -> {after.links}"
        case Attribute.TIMES if before.mtime_ns == after.mtime_ns:
            return "times (changed and changed back)"
        case _:
            return attribute.value


def _by(change: Change) -> str:
    if change.who is None:
        return ""
    who = change.who
    login = f", logged in as {who.login_user}" if who.login_user else ""
    return f" by {who.executable or 'a process'} ({who.pid}{f', {who.user}' if who.user else ''}{login})"


def _named(named: Any, number: int) -> str:
    return named(number) or str(number)


@lru_cache(256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@lru_cache(256)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
