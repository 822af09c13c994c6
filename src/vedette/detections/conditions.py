"""A rule's condition made ready to be judged: one record at a time, or for many rows at once.
Counterpart: `match` asks for candidate rows only; `judge` holds what is known of each leaf on one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vedette.detections.judge import UNKNOWN, Judge
from vedette.detections.leaves import Leaves
from vedette.model.batch import Bool, Int64
from vedette.model.rules import All, Any, Node, Not, Op, Raw, Test


class Condition(Protocol):
    """Both ways say the same; which one is asked depends on how many rows there are."""

    def one(self, judge: Judge, row: int) -> bool:
        """Whether it holds for the record `row`."""
        ...

    def many(self, judge: Judge, rows: Int64) -> Bool:
        """bool[len(rows)]: for which of `rows` it holds."""
        ...


class _Leaf:
    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def one(self, judge: Judge, row: int) -> bool:
        known = judge.known(self._number)
        code = row if known.codes is None else known.codes.item(row)
        verdict = known.verdicts[code]
        return bool(judge.decide(self._number, known, code) if verdict == UNKNOWN else verdict)

    def many(self, judge: Judge, rows: Int64) -> Bool:
        known = judge.known(self._number)
        codes = rows if known.codes is None else known.codes[rows]
        verdicts = np.frombuffer(known.verdicts, dtype=np.uint8)
        out = verdicts[codes]
        open_codes = codes[out == UNKNOWN]
        if len(open_codes):
            judge.decide_all(self._number, known, dict.fromkeys(open_codes.tolist()))
            out = verdicts[codes]
        return out.view(np.bool_)


class _All:
    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Condition]) -> None:
        self._parts = parts

    def one(self, judge: Judge, row: int) -> bool:
        for part in self._parts:  # noqa: SIM110 - all() over a generator costs twice as much
            if not part.one(judge, row):
                return False
        return True

    def many(self, judge: Judge, rows: Int64) -> Bool:
        out = np.ones(len(rows), dtype=np.bool_)
        rest = rows
        for part in self._parts:
            held = part.many(judge, rest)
            if held.all():
                continue
            out[out] = held
            rest = rest[held]
            if not len(rest):
                break
        return out


class _Any:
    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Condition]) -> None:
        self._parts = parts

    def one(self, judge: Judge, row: int) -> bool:
        for part in self._parts:  # noqa: SIM110 - as above
            if part.one(judge, row):
                return True
        return False

    def many(self, judge: Judge, rows: Int64) -> Bool:
        out = np.zeros(len(rows), dtype=np.bool_)
        rest = rows
        for part in self._parts:
            held = part.many(judge, rest)
            if not held.any():
                continue
            out[~out] = held
            rest = rest[~held]
            if not len(rest):
                break
        return out


class _Not:
    __slots__ = ("_part",)

    def __init__(self, part: Condition) -> None:
        self._part = part

    def one(self, judge: Judge, row: int) -> bool:
        return not self._part.one(judge, row)

    def many(self, judge: Judge, rows: Int64) -> Bool:
        return ~self._part.many(judge, rows)


def compile_condition(node: Node, leaves: Leaves) -> Condition:
    """`node` over numbered leaves; parts that cost little are asked first, which changes no verdict."""
    match node:
        case All(parts):
            return _All([compile_condition(part, leaves) for part in sorted(parts, key=_effort)])
        case Any(parts):
            return _Any([compile_condition(part, leaves) for part in sorted(parts, key=_effort)])
        case Not(part):
            return _Not(compile_condition(part, leaves))
        case _:
            return _Leaf(leaves.add(node))


_EFFORT = {Op.EQUALS: 1, Op.ENDSWITH: 2, Op.STARTSWITH: 2, Op.NULL: 1, Op.EXISTS: 1, Op.REGEX: 20, Op.LIKE: 15}


def _effort(node: Node) -> int:
    match node:
        case All(parts) | Any(parts):
            return 1 + sum(map(_effort, parts))
        case Not(part):
            # Exceptions rarely hold, so that they seldom spare anything.
            return 50 + _effort(part)
        case Test():
            return _EFFORT.get(node.op, 5) + len(node.values) // 8
        case Raw():
            return 30
