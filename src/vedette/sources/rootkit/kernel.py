"""Kernel modules that one list shows and another does not, that nobody signed, and taint whose module is not seen.
Counterpart: `traces` has the words; what hides from both lists is not seen here (docs/rootkit.md)."""

# proc(5); Documentation/admin-guide/tainted-kernels.rst of the kernel.
from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from vedette.model.levels import Level
from vedette.sources.rootkit.traces import Blind, Check, Look, TraceKind
from vedette.text.escape import decode, terminal

_FORCED, _OUT_OF_TREE, _UNSIGNED = 1 << 1, 1 << 12, 1 << 13
_LETTERS = {"F": _FORCED, "O": _OUT_OF_TREE, "E": _UNSIGNED}
_WORDS = {_FORCED: "loaded by force", _OUT_OF_TREE: "not of this kernel's tree", _UNSIGNED: "not signed"}
_TAINT = re.compile(rb"\(([A-Z]+)\)\s*$")
_PAUSE, _ROUNDS = 0.05, 3


def modules(look: Look, *, root: Path = Path("/"), sleep: Callable[[float], None] = time.sleep) -> None:
    """/proc/modules against /sys/module, what taints, and whether what taints is still to be seen."""
    differing: dict[str, str] | None = None
    taints: dict[str, int] = {}
    for number in range(_ROUNDS):
        if number:
            sleep(_PAUSE)
        try:
            listed = _listed(root)
            loaded = _loaded(root)
        except FileNotFoundError:
            # A kernel without modules; one that has them and no list of them hides something.
            if (root / "proc/modules").exists() or any(_sections(root)):
                look.missed(Check.MODULES, Blind.UNREADABLE)
            return
        except OSError:
            look.missed(Check.MODULES, Blind.NOT_PERMITTED)
            return
        taints = listed
        now = dict.fromkeys(loaded - listed.keys(), "it is in /sys/module and not in /proc/modules")
        now |= dict.fromkeys(listed.keys() - loaded, "it is in /proc/modules and not in /sys/module")
        differing = {name: how for name, how in now.items() if differing is None or name in differing}
        if not differing:
            break
    for name, how in sorted((differing or {}).items()):
        look.found(TraceKind.HIDDEN_MODULE, name, Level.CRITICAL, how, vedette__rootkit__module=name)
    for name, taint in sorted(taints.items()):
        words = ", ".join(word for bit, word in _WORDS.items() if taint & bit)
        if words:
            level = Level.HIGH if taint & (_FORCED | _UNSIGNED) else Level.LOW
            look.found(TraceKind.UNSIGNED_MODULE, name, level, words, vedette__rootkit__module=name)
    _unexplained(look, taints, root)


def _unexplained(look: Look, taints: dict[str, int], root: Path) -> None:
    """Taint that stays when its module is gone, or hides."""
    try:
        kernel = int((root / "proc/sys/kernel/tainted").read_text("ascii"))
    except (OSError, ValueError):
        look.missed(Check.MODULES, Blind.NOT_THERE)
        return
    seen = 0
    for taint in taints.values():
        seen |= taint
    for bit, words in _WORDS.items():
        if kernel & bit and not seen & bit:
            detail = f"a module {words} was loaded, and none that is listed is: it was taken out, or it hides"
            look.found(TraceKind.TAINTED_KERNEL, words, Level.MEDIUM, detail)


def _listed(root: Path) -> dict[str, int]:
    found = {}
    for line in (root / "proc/modules").read_bytes().splitlines():
        if not line.strip():
            continue
        letters = _TAINT.search(line)
        taint = sum(_LETTERS.get(one, 0) for one in letters[1].decode()) if letters else 0
        found[terminal(decode(line.split(b" ", 1)[0]))] = taint
    return found


def _loaded(root: Path) -> set[str]:
    """What was built into the kernel is there too, without a state."""
    return {terminal(one.name) for one in (root / "sys/module").iterdir() if (one / "initstate").exists()}


def _sections(root: Path) -> list[Path]:
    return list((root / "sys/module").glob("*/initstate"))
