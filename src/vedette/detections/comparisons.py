"""What the rarer comparisons of rules mean on one value: parts of times, and one field against another.
Counterpart: `predicates` and `match` ask here; the values and the folding of case are theirs."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from vedette.model.events import Scalar
from vedette.model.rules import DatePart, Op

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Sysmon writes more digits of a second than Python reads, and a comma is as good as a point (ISO 8601).
_FRACTION = re.compile(r"[.,]([0-9]{1,6})[0-9]*")
_LONGEST = 64


def moment_of(value: Scalar) -> datetime | None:
    """The time a value names, in UTC; None where it names none.

    Text is ISO 8601 (a blank for the T is taken, no zone is UTC) or a number; a number counts seconds since
    1970, or milli-, micro- or nanoseconds where it is too large for that (years 1973 to 5138 in each).
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if not text or len(text) > _LONGEST:
            return None
        if (moment := _iso(text)) is not None:
            return moment
        try:
            value = float(text)
        except ValueError:
            return None
        if "_" in text:
            return None
    if not math.isfinite(value):
        return None
    for unit in (1, 1_000, 1_000_000, 1_000_000_000):
        if abs(value) < 1e11 * unit:
            return _EPOCH + timedelta(seconds=value / unit)
    return None


def _iso(text: str) -> datetime | None:
    # Four digits alone would be read as a year's basic form; nobody writes times so.
    if text.isdigit():
        return None
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(lambda found: "." + found[1].ljust(6, "0"), text, count=1))
    except ValueError:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return None


def part_of(part: DatePart, value: Scalar) -> int | None:
    """That part of the time which `value` names; None where it names none."""
    moment = moment_of(value)
    if moment is None:
        return None
    return moment.isocalendar().week if part is DatePart.WEEK else int(getattr(moment, part.value))


def judge_part(part: DatePart, op: Op, wanted: float, value: Scalar) -> bool:
    """Whether that part of the time which `value` names is equal to, below or above `wanted`."""
    found = part_of(part, value)
    if found is None:
        return False
    match op:
        case Op.EQUALS:
            return found == wanted
        case Op.LT:
            return found < wanted
        case Op.LTE:
            return found <= wanted
        case Op.GT:
            return found > wanted
        case Op.GTE:
            return found >= wanted
    raise ValueError(f"{op} does not compare numbers")


def judge_reference(op: Op, value: str, other: str) -> bool:
    """Whether the text of a field stands to the text of the field it is compared with as `op` says.

    Both as tests see them (case folded unless the test is `cased`). Every text begins with the empty one.
    """
    match op:
        case Op.FIELDREF:
            return value == other
        case Op.FIELDREF_STARTSWITH:
            return value.startswith(other)
        case Op.FIELDREF_ENDSWITH:
            return value.endswith(other)
        case Op.FIELDREF_CONTAINS:
            return other in value
    raise ValueError(f"{op} compares no fields")
