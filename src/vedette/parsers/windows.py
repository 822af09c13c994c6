"""What Windows events spell in ways of their own: named data in lists, users, hashes, registry paths.
Counterpart: `parsers.json` asks for it where a record lacks a field as such; the tables are in `parsers.kinds`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from vedette.model.events import Value
from vedette.parsers.objects import Json

_NAMES = ("Name", "@Name", "name")
_TEXTS = ("#text", "Value", "content", "text", "value", "$")


def _named(item: Any) -> tuple[str, Any] | None:
    """Name and value of an item of `<Data Name="...">` made JSON, in any of the usual ways."""
    if type(item) is not dict:
        return None
    attributes = item.get("#attributes")
    name = next((item[key] for key in _NAMES if key in item), None)
    if name is None and type(attributes) is dict:
        name = attributes.get("Name")
    if type(name) is not str:
        return None
    return name, next((item[key] for key in _TEXTS if key in item), None)


def name_within(family: str, value: Json) -> None:
    """Give data that stand in lists or one level down members of their names, in place.

    `EventData.Data: [{Name, #text}]` becomes members of EventData beside it; what is unnamed stays `Data`. The data of
    `UserData` stand within one more object there. `System` has provider, id and time also as plain members.
    """
    event = value.get("Event") if family == "evtx" else value if family == "evtx-bare" else None
    if type(event) is not dict:
        return
    data = event.get("EventData")
    if type(data) is dict:
        if "Data" in data and type(data["Data"]) in (list, dict):
            event["EventData"] = _spread(data)
    elif type(data) is list:
        event["EventData"] = _spread({"Data": data})
    user = event.get("UserData")
    if type(user) is dict:
        inner = [item for key, item in user.items() if type(item) is dict and not key.startswith(("#", "@"))]
        if len(inner) == 1:
            event["UserData"] = {**user, **inner[0]}
    system = event.get("System")
    if type(system) is dict:
        _plain(system, "Provider", "Name", "Provider_Name")
        _plain(system, "TimeCreated", "SystemTime", TIME)
        if type(system.get("EventID")) is dict:
            system[EVENT_ID] = next((system["EventID"][key] for key in _TEXTS if key in system["EventID"]), None)


TIME, EVENT_ID = "\0time", "\0id"
"""Members that are added under names of their own, so that no other is lost."""


def _plain(system: Json, name: str, attribute: str, plain: str) -> None:
    holder = system.get(name)
    if type(holder) is not dict:
        holder = system.get(f"{name}_attributes")
        if type(holder) is not dict:
            return
    within = holder.get("#attributes")
    if type(within) is dict:
        holder = within
    found = holder.get(attribute)
    if found is None:
        found = holder.get(f"@{attribute}")
    if found is not None and plain not in system:
        system[plain] = found


def _spread(data: Json) -> Json:
    items = data["Data"] if type(data["Data"]) is list else [data["Data"]]
    named: Json = {}
    unnamed: list[Any] = []
    for item in items:
        pair = _named(item)
        if pair is not None:
            named[pair[0]] = pair[1]
        elif type(item) is dict and "#text" in item:
            unnamed.append(item["#text"])
        else:
            unnamed.append(item)
    rest = {key: value for key, value in data.items() if key != "Data"}
    if unnamed:
        # Texts that stand side by side in one element come as a list of their own.
        rest["Data"] = [part for item in unnamed for part in (item if type(item) is list else (item,))]
    return {**rest, **named}


def event_id_of(value: Value) -> int:
    """An event id as number, -1 where it is none."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    if isinstance(value, bool) or value is None:
        return -1
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e9 else -1
    text = value.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else -1


# ----------------------------------------------------------------------------------------------- derived

Made = Callable[..., Value | None]

_LABELS = {"4096": "Low", "8192": "Medium", "8448": "Medium", "12288": "High", "16384": "System"}
_HIVES = (
    (re.compile(r"\\REGISTRY\\MACHINE\\", re.IGNORECASE), "HKLM\\"),
    (re.compile(r"\\REGISTRY\\USER\\", re.IGNORECASE), "HKU\\"),
)
_HASH = re.compile(r"([A-Za-z0-9]+)=([0-9A-Fa-f]+)")


def _account(domain: Value, name: Value) -> Value | None:
    if not isinstance(name, str) or not name:
        return None
    return f"{domain}\\{name}" if isinstance(domain, str) and domain and domain != "-" else name


def _name_of_account(account: Value) -> Value | None:
    return account.rpartition("\\")[2] or None if isinstance(account, str) and account != "-" else None


def _domain_of_account(account: Value) -> Value | None:
    return account.rpartition("\\")[0] or None if isinstance(account, str) else None


def _base_name(path: Value) -> Value | None:
    return re.split(r"[\\/]", path)[-1] or None if isinstance(path, str) else None


def _integrity(label: Value) -> Value | None:
    return _LABELS.get(label.rpartition("-")[2]) if isinstance(label, str) else None


def _registry_path(key: Value, value: Value) -> Value | None:
    if not isinstance(key, str) or not key.upper().startswith("\\REGISTRY\\"):
        return None
    for pattern, hive in _HIVES:
        if match := pattern.match(key):
            key = hive + key[match.end() :]
            break
    return f"{key}\\{value}" if isinstance(value, str) and value not in ("", "-") else key


def _hash(algorithm: str) -> Made:
    def find(hashes: Value) -> Value | None:
        if not isinstance(hashes, str):
            return None
        return next((digest for name, digest in _HASH.findall(hashes) if name.lower() == algorithm), None)

    return find


def _hashes(*digests: Value) -> Value | None:
    names = ("SHA1", "MD5", "SHA256", "IMPHASH")
    told = [f"{name}={digest.upper()}" for name, digest in zip(names, digests, strict=True) if isinstance(digest, str)]
    return ",".join(told) or None


DERIVED: Mapping[str, tuple[tuple[tuple[str, ...], Made], ...]] = {
    # Field: from which fields it can be made, where a record does not have it. Several ways are tried in order.
    "User": ((("SubjectDomainName", "SubjectUserName"), _account), (("user.domain", "user.name"), _account)),
    "user.name": (
        (("TargetUserName",), _name_of_account),
        (("User",), _name_of_account),
        (("SubjectUserName",), _name_of_account),
    ),
    "user.domain": ((("User",), _domain_of_account),),
    "process.name": ((("Image",), _base_name),),
    "process.parent.name": ((("ParentImage",), _base_name),),
    "IntegrityLevel": ((("MandatoryLabel",), _integrity),),
    "TargetObject": ((("ObjectName", "ObjectValueName"), _registry_path),),
    "Details": ((("NewValue",), lambda value: value),),
    "LogonId": ((("SubjectLogonId",), lambda value: value),),
    "Hashes": (
        (("process.hash.sha1", "process.hash.md5", "process.hash.sha256", "process.pe.imphash"), _hashes),
        (("file.hash.sha1", "file.hash.md5", "file.hash.sha256", "file.pe.imphash"), _hashes),
    ),
    **{
        name: ((("Hashes",), _hash(algorithm)), ((f"process.hash.{algorithm}",), lambda value: value))
        for algorithm in ("md5", "sha1", "sha256", "imphash")
        for name in (algorithm, algorithm.upper(), algorithm.capitalize())
    },
    **{f"process.hash.{algorithm}": ((("Hashes",), _hash(algorithm)),) for algorithm in ("md5", "sha1", "sha256")},
    "process.pe.imphash": ((("Hashes",), _hash("imphash")),),
}
