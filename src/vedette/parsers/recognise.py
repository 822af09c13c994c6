"""What each JSON record is in the words of Sigma log sources, by its family, channel, ids and members.
Counterpart: `parsers.kinds` has the tables; `parsers.json` gives the values of fields and takes the kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from vedette.model.batch import Bool, Int32, Int64
from vedette.model.events import Column, Kinds, RecordKind, Value
from vedette.parsers import kinds
from vedette.parsers.families import OWN
from vedette.parsers.frames import Group
from vedette.parsers.kinds import windows_kind
from vedette.parsers.lenses import Lens
from vedette.parsers.windows import event_id_of

_WINDOWS = frozenset({"evtx", "evtx-bare", "winlogbeat", "windows"})
_SYSMON_MEMBERS = frozenset({"UtcTime", "ProcessGuid", "SourceProcessGUID", "SourceProcessGuid"})

Some = Iterator[tuple[Int64, RecordKind | Sequence[RecordKind]]]
"""Rows, and their kind or one for each; later ones win."""


class Recogniser:
    """Finds the kinds of one batch. column: a field as records have it, None where none does."""

    def __init__(self, n: int, column: Callable[[str], Column | None], attested: Bool) -> None:
        """attested: bool[n], whom a record's own word is believed of."""
        self._n = n
        self._column = column
        self._attested = attested

    def kinds(self, lenses: Iterable[Lens]) -> Kinds:
        """Which log sources cover each record; one that is in no lens is of no kind."""
        codes = np.zeros(self._n, dtype=np.int32)
        number: dict[RecordKind, int] = {kinds.UNKNOWN: 0}
        for lens in lenses:
            for rows, kind in self._kinds_of(lens):
                if isinstance(kind, RecordKind):
                    codes[rows] = number.setdefault(kind, len(number))
                else:
                    codes[rows] = [number.setdefault(one, len(number)) for one in kind]
        return Kinds(codes, list(number))

    def _kinds_of(self, lens: Lens) -> Some:
        family = lens.family
        if family.name in _WINDOWS:
            yield lens.rows, family.kind
            yield from self._windows(lens)
        elif family.name == OWN:
            yield from self._own(lens.rows)
        elif family.name in ("plain", "ecs"):
            for group in lens.groups:
                yield from self._telltale(group, lens)
        else:
            yield lens.rows, family.kind
            yield from self._by_value(lens)

    def _values(self, name: str, rows: Int64) -> tuple[Int32, Sequence[Value]]:
        column = self._column(name)
        if column is None:
            return np.zeros(len(rows), dtype=np.int32), [None]
        # A field that is not there counts as null.
        return column.codes[rows], [*column.values, None]

    def _own(self, rows: Int64) -> Some:
        """What others write in our words is of no kind: a line in a log would end an alert otherwise."""
        codes, values = self._values("event.dataset", rows)
        made = [kinds.own_kind(value) for value in values]
        believed = self._attested[rows].tolist()
        yield rows, [made[code] if own else kinds.UNKNOWN for code, own in zip(codes.tolist(), believed, strict=True)]

    def _windows(self, lens: Lens) -> Some:
        rows = lens.rows
        told = [self._values(name, rows) for name in ("Channel", "Provider_Name", "EventID", "EventType")]
        mixed = np.zeros(len(rows), dtype=np.int64)
        for codes, values in told:
            mixed = mixed * len(values) + np.where(codes < 0, len(values) - 1, codes)
        firsts, inverse = np.unique(mixed, return_index=True, return_inverse=True)[1:]
        found = []
        unnamed = False
        for at in firsts.tolist():
            channel, provider, event_id, event_type = (values[codes[at]] for codes, values in told)
            if not channel and not provider:
                # Fields say what it is; they are looked at per record.
                unnamed = True
            found.append(_windows_kind((channel, provider, event_id, event_type), ""))
        yield rows, [found[at] for at in inverse.tolist()]
        if not unnamed:
            return
        blank = np.array(
            [not told[0][1][told[0][0][at]] and not told[1][1][told[1][0][at]] for at in firsts.tolist()],
            dtype=np.bool_,
        )[inverse]
        at_row = np.full(self._n, -1, dtype=np.int64)
        at_row[rows[blank]] = np.flatnonzero(blank)
        for group in (group for place in range(len(lens.family.places)) for group in lens.at(place)):
            mine = at_row[group.rows]
            here = group.rows[mine >= 0]
            if not len(here):
                continue
            keys = group.shape.keys
            if keys & _SYSMON_MEMBERS:
                service = "sysmon"
            elif "ScriptBlockText" in keys:
                service = "powershell"
            else:
                continue
            yield (
                here,
                [
                    _windows_kind((None, None, *(values[codes[at]] for codes, values in told[2:])), service)
                    for at in mine[mine >= 0].tolist()
                ],
            )

    def _telltale(self, group: Group, lens: Lens) -> Some:
        keys = group.shape.keys
        found = next(((product, found) for wanted, product, found in kinds.TELLTALES if wanted <= keys), None)
        if found is not None:
            product, categories = found
            if product:
                yield group.rows, RecordKind(product, frozenset(categories))
                return
            if "product" not in keys:
                images = group.values("Image")
                yield group.rows, [RecordKind(_product_of(image), frozenset(categories)) for image in images]
                return
        yield group.rows, lens.family.kind
        if lens.family.name == "ecs":
            yield from self._ecs(group)

    def _ecs(self, group: Group) -> Some:
        rows = group.rows
        names = ("event.dataset", "event.category", "event.type", "host.os.type", "host.os.platform")
        told = [self._values(name, rows) for name in names]
        yield rows, [_ecs_kind(*(values[codes[at]] for codes, values in told)) for at in range(len(rows))]

    def _by_value(self, lens: Lens) -> Some:
        name, base = lens.family.name, lens.family.kind
        if name == "azure":
            for group in lens.groups:
                members = frozenset(key.lower() for key in group.shape.keys)
                told = next((found for wanted, found in kinds.AZURE_MEMBERS if wanted <= members), None)
                codes, values = self._values("category", group.rows)
                made = [_azure_kind(value, told) for value in values]
                yield group.rows, [made[code] for code in codes.tolist()]
        elif name in ("gcp", "google-workspace", "m365", "zeek", "journal"):
            field = {
                "gcp": "protoPayload.serviceName",
                "google-workspace": "id.applicationName",
                "m365": "eventSource",
                "zeek": "_path",
                "journal": "SYSLOG_IDENTIFIER",
            }[name]
            for group in lens.groups:
                codes, values = self._values(field, group.rows)
                made = [_service_kind(name, base, value, group.shape.keys) for value in values]
                yield group.rows, [made[code] for code in codes.tolist()]


def _windows_kind(told: tuple[Value, ...], service: str) -> RecordKind:
    channel, provider, event_id, event_type = told
    number = event_id_of(event_id)
    if number < 0 and not channel and not provider:
        return kinds.UNKNOWN
    texts = [value if isinstance(value, str) else "" for value in (channel, provider, event_type)]
    return windows_kind(texts[0], texts[1], number, texts[2], service)


def _product_of(image: object) -> str:
    if not isinstance(image, str):
        return ""
    return "windows" if "\\" in image else "linux" if image.startswith("/") else ""


def _azure_kind(category: Value, told: tuple[str, ...] | None) -> RecordKind:
    named = kinds.AZURE_SERVICES.get(category.lower()) if isinstance(category, str) else None
    services = (named or ()) + (told or ())
    return RecordKind("azure", frozenset(), frozenset(services or ("activitylogs",)))


def _service_kind(family: str, base: RecordKind, value: Value, keys: frozenset[str]) -> RecordKind:
    text = value.lower() if isinstance(value, str) else ""
    services: frozenset[str] = base.services
    if family in ("gcp", "google-workspace"):
        found = kinds.GOOGLE_SERVICES.get(text, ())
        services = base.services | frozenset(found) if family == "gcp" else frozenset(found) or base.services
    elif family == "m365" and text == kinds.M365_SECURITY:
        services = base.services | {"exchange", "threat_management", "threat_detection"}
    elif family == "zeek":
        services = frozenset({text} if text else {name for wanted, name in kinds.ZEEK_MEMBERS if wanted <= keys})
    elif family == "journal" and text:
        services = frozenset({text})
    return RecordKind(base.product, base.categories, services)


def _ecs_kind(dataset: Value, category: Value, types: Value, system: Value, platform: Value) -> RecordKind:
    named = kinds.ECS_DATASETS.get(dataset) if isinstance(dataset, str) else None
    if named is not None:
        return named
    product = system if isinstance(system, str) else platform if isinstance(platform, str) else ""
    product = {"darwin": "macos", "ubuntu": "linux", "debian": "linux", "rhel": "linux"}.get(product, product)
    found = {
        one
        for what in (category if isinstance(category, tuple) else (category,))
        for how in (types if isinstance(types, tuple) else (types,))
        for one in kinds.ECS_CATEGORIES.get((str(what), str(how)), ())
    }
    return RecordKind(product, frozenset(found))
