"""A DenyHosts installation read for `rules import`: thresholds, allowed hosts, logs and mail as our configuration.
Counterpart: `respond.denyhosts` reads it; `block import denyhosts` takes over the blocks that still run."""

from __future__ import annotations

from pathlib import Path

from vedette.app.importing import Equal, Imported, Remark
from vedette.model.clock import SystemClock
from vedette.model.errors import Location
from vedette.respond.denyhosts import NoteKind, read_installation
from vedette.sources.settings import zone_name

_EQUAL = {
    NoteKind.CHANGED: Equal.CHANGED,
    NoteKind.NO_EQUAL: Equal.NONE,
    NoteKind.NOT_NEEDED: Equal.SAME,
    NoteKind.UNREADABLE: Equal.NONE,
}
_ALLOWED = Path("allowed-hosts")
_RULES = ("ssh-brute-force-unknown-users", "ssh-brute-force-known-users", "ssh-root-attempts")


def looks_like(path: Path) -> bool:
    """Whether this is its configuration file, or a folder with it."""
    return _conf(path).is_file() and b"DENY_THRESHOLD" in _conf(path).read_bytes()[: 1 << 20]


def _conf(path: Path) -> Path:
    return path / "denyhosts.conf" if path.is_dir() else path


def read(path: Path) -> Imported:
    """The whole installation. A folder `work` or `denyhosts` beside the file stands for the WORK_DIR it names."""
    conf = _conf(path)
    beside = next((own for name in ("work", "denyhosts") if (own := conf.parent / name).is_dir()), None)
    deny = conf.parent / "hosts.deny"
    had = read_installation(
        conf,
        SystemClock().now(),
        host_id="",
        timezone=zone_name("local"),
        work_dir=beside,
        hosts_deny=deny if deny.is_file() else None,
    )
    found = Imported()
    found.settings = {"version": 1, **had.settings}
    if had.log_files:
        found.settings["sources"] = {"file": [{"paths": list(had.log_files)}]}
    rules = had.settings.get("rules")
    if isinstance(rules, dict) and rules.get("ssh"):
        found.settings["respond"] = dict.fromkeys(_RULES, "simulate")
    if had.allowlist:
        lines = [f"{entry.network}  # {entry.comment}".rstrip(" #") for entry in had.allowlist]
        found.files[str(_ALLOWED)] = ("\n".join(lines) + "\n").encode()
        blocking = dict(had.settings.get("blocking") or {})  # type: ignore[call-overload]
        found.settings["blocking"] = {**blocking, "allowlist_files": [_ALLOWED]}
    for note in had.notes:
        found.remarks.append(Remark(_EQUAL[note.kind], note.location, note.text))
    place = Location(str(conf))
    if had.allowlist:
        words = f"{len(had.allowlist)} allowed hosts are never blocked by a rule"
        found.remarks.append(Remark(Equal.SAME, place, words))
    if had.decisions or had.ended:
        words = (
            f"{len(had.decisions)} blocks still run and {had.ended} have ended: take the first over with "
            f"`vedette block import denyhosts {conf}`"
        )
        found.remarks.append(Remark(Equal.CHANGED, place, words))
    for name, value in had.mail.items():
        words = f"mail {name} was {value}: name it in a receiver of type email"
        found.remarks.append(Remark(Equal.CHANGED, place, words))
    return found
