"""One look at everything: each check in order, and a check that breaks is said instead of ending the others.
Counterpart: `source` looks on schedule; what the checks are is told in docs/rootkit.md."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from vedette.sources.rootkit.files import (
    TREES,
    Known,
    Walk,
    authentication,
    authorised_keys,
    enabled_units,
    installed_packages,
    walk_files,
)
from vedette.sources.rootkit.kernel import modules
from vedette.sources.rootkit.processes import hidden_processes, lost_executables, preloaded_libraries
from vedette.sources.rootkit.rootcheck import Signatures, known_paths, known_strings, read_signatures
from vedette.sources.rootkit.sockets import hidden_ports, listeners, promiscuous_interfaces
from vedette.sources.rootkit.traces import Blind, Check, Look, StoppedError
from vedette.sources.settings import RootkitSettings
from vedette.system.packages import owners

log = structlog.get_logger("vedette.sources.rootkit")
_HERE = Path("/")


def look_around(
    settings: RootkitSettings,
    known: Known,
    *,
    files: bool,
    stop: threading.Event | None = None,
    root: Path = _HERE,
) -> Look:
    """What is found now; `known` becomes what is there now. files: whether the file trees are walked too.

    stop: set from another thread ends it with StoppedError.
    """
    look = Look(stop=stop or threading.Event())
    checks: list[tuple[Check, Callable[[], None]]] = [
        (Check.PROCESSES, lambda: hidden_processes(look)),
        (Check.EXECUTABLES, lambda: lost_executables(look)),
        (Check.PORTS, lambda: hidden_ports(look)),
        (Check.INTERFACES, lambda: promiscuous_interfaces(look)),
        (Check.MODULES, lambda: modules(look, root=root)),
        (Check.PRELOADING, lambda: preloaded_libraries(look, root=root)),
        (Check.KEYS, lambda: authorised_keys(look, known, root)),
        (Check.AUTHENTICATION, lambda: authentication(look, known, root)),
    ]
    if root != _HERE:
        # Of another file tree nothing is asked that only the running kernel knows.
        checks = checks[4:]
    if files:
        signatures = _signatures(look, settings)
        walk = Walk(root, settings.trees or TREES, settings.most_files)
        checks += [
            (Check.SIGNATURES, lambda: known_paths(look, signatures, root)),
            (Check.SIGNATURES, lambda: known_strings(look, signatures, lambda path: _hinted(path, root), root)),
            (Check.FILES, lambda: walk_files(look, known, walk, signatures.named)),
        ]
    for check, run in checks:
        try:
            run()
        except StoppedError:
            raise
        except Exception:  # a check that breaks must not take the others with it, and is told
            log.exception("rootkit check failed", check=check.value)
            look.missed(check, Blind.FAILED)
    if files:
        enabled_units(known, root)
        installed_packages(known, root)
        known.listeners = listeners() if root == _HERE else {}
        known.learned = True
    return look


def _signatures(look: Look, settings: RootkitSettings) -> Signatures:
    try:
        return read_signatures(settings.signatures)
    except OSError:
        look.missed(Check.SIGNATURES, Blind.UNREADABLE)
        return Signatures()


def _hinted(path: str, root: Path) -> bool:
    """Whether dpkg's list on this host has the file's MD5: enough to be less loud about a pattern of old."""
    package = owners([path], root).get(path)
    if package is None:
        return False
    with suppress(OSError):
        digest = hashlib.md5((root / path.lstrip("/")).read_bytes(), usedforsecurity=False).hexdigest()
        for stem in sorted((root / "var/lib/dpkg/info").glob(f"{package}*.md5sums")):
            if stem.name.removesuffix(".md5sums").partition(":")[0] == package:
                lines = stem.read_text("utf-8", "replace").splitlines()
                places = {path.lstrip("/"), path.removeprefix("/usr").lstrip("/")}
                return any(line.split(None, 1) == [digest, place] for line in lines for place in places)
    return False
