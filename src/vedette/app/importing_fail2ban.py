"""A fail2ban installation read for `rules import`: its jails and filters unchanged, the rest as our configuration.
Counterpart: `app.importing` lists it; what it gives is written by `cli.rules.importing`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vedette.app.importing import Equal, Imported, Remark
from vedette.model.errors import Location, VedetteError
from vedette.model.rules import Rule
from vedette.rules.fail2ban_config import Config, layers, read_config
from vedette.rules.fail2ban_jails import PREFIX, Jail, read_jails, rules_of
from vedette.rules.files import line_files
from vedette.rules.problems import Problem
from vedette.text.addresses import parse_network
from vedette.text.times import duration_text

_FOLDER = Path("fail2ban")
_OURS = {
    **dict.fromkeys(("enabled", "filter", "failregex", "ignoreregex", "prefregex", "datepattern", "maxlines"), ""),
    **dict.fromkeys(("maxretry", "findtime", "bantime", "bantime.increment", "bantime.maxtime", "mode"), ""),
    **dict.fromkeys(("logpath", "backend", "ignoreip", "ignoreself", "journalmatch"), ""),
}
_CHANGED = {
    "usedns": "names are never resolved: a failure that names no address blocks nobody",
    "port": "every packet of a blocked address is dropped, whatever its port",
    "protocol": "every packet of a blocked address is dropped, whatever its protocol",
    "banaction": "blocks go into a set of nftables (and hosts.deny where that is set)",
    "banaction_allports": "blocks go into a set of nftables",
    "chain": "blocks are dropped before any chain, in a table of our own",
    "destemail": "alerts go to receivers: see notify",
    "sender": "alerts go to receivers: see notify",
    "mta": "alerts go to receivers: see notify",
    "logtimezone": "set timezone on the source, as a name",
    "logencoding": "text that is not UTF-8 is shown, and bytes are kept as they are",
    "bantime.factor": "each offence doubles the lease",
    "bantime.multipliers": "each offence doubles the lease",
    "bantime.formula": "each offence doubles the lease",
    "bantime.overalljails": "offences are counted per rule",
    "dbpurgeage": "decisions are kept as long as the state is",
    "dbfile": "bans that fail2ban has now are not taken over: they end by themselves",
    "maxmatches": "a finding keeps its first 100 records",
}
_NONE = {
    "ignorecommand": "no program is asked; put addresses on the allowlist",
    "ignorecache": "no program is asked",
    "bantime.rndtime": "leases are as long as they say",
}
_QUIET = frozenset({"action", "fail2ban_agent", "action_", "skip_if_nologs", "systemd_if_nologs", "syslog_"})


def looks_like(path: Path) -> bool:
    """Whether this is the folder of an installation."""
    return path.is_dir() and (path / "filter.d").is_dir() and bool(layers(path, "jail"))


def read(path: Path) -> Imported:
    """The whole installation. VedetteError where its jails cannot be read at all."""
    if not looks_like(path):
        raise VedetteError(f"{path} holds no jails of fail2ban", hint="name the folder: /etc/fail2ban")
    problems: list[Problem] = []
    jails = read_jails(path, problems)
    config = read_config(layers(path, "jail"))
    found = Imported()
    for file in line_files(path):
        relative = file.relative_to(path)
        kept = relative.parts[0] in ("filter.d", "jail.d") or relative.stem in ("jail", "fail2ban")
        if kept or relative.stem.startswith("paths-"):
            found.files[str(_FOLDER / relative)] = file.read_bytes()
    rules = [rule for jail in jails for rule in _rules(jail)]
    found.settings = {
        "version": 1,
        "rules": {"paths": [_FOLDER]},
        "sources": _sources(jails, found),
        "respond": {rule.id: "simulate" for rule in rules if not rule.silent},
    }
    if not found.settings["sources"]:
        del found.settings["sources"]
    allowed = list(_allowed(jails, found))
    if allowed:
        found.settings["blocking"] = {
            "allowlist": [{"network": one, "comment": "fail2ban ignoreip"} for one in allowed]
        }
    for jail in jails:
        _told(jail, found)
    for problem in problems:
        error = problem.as_error()
        place = error.location or Location(str(path))
        found.remarks.append(Remark(Equal.NONE, place, f"left out: {error.message}"))
    _said_of(config, jails, found)
    return found


def _rules(jail: Jail) -> list[Rule]:
    return rules_of(jail.name, jail.filter, jail.place("enabled"))


def _sources(jails: Iterable[Jail], found: Imported) -> dict[str, object]:
    """The files the jails read, and the journal where one reads that."""
    paths: dict[str, None] = {}
    journal = False
    for jail in jails:
        place = jail.place("logpath")
        if jail.options.get("backend", "").startswith("systemd"):
            journal = True
            continue
        for line in jail.options.get("logpath", "").split("\n"):
            name = line.strip().removesuffix(" tail").strip()
            if not name:
                continue
            if name.startswith("/"):
                paths[name] = None
            else:
                found.remarks.append(Remark(Equal.NONE, place, f"{jail.name}: logpath {name!r} is not absolute"))
    sources: dict[str, object] = {}
    if paths:
        sources["file"] = [{"paths": list(paths)}]
    if journal:
        sources["journal"] = {}
    return sources


def _allowed(jails: Iterable[Jail], found: Imported) -> Iterable[str]:
    seen: set[str] = set()
    for jail in jails:
        for word in jail.options.get("ignoreip", "").replace(",", " ").split():
            if word in seen:
                continue
            seen.add(word)
            place = jail.place("ignoreip")
            try:
                network = str(parse_network(word))
            except ValueError:
                words = f"ignoreip {word}: names are never resolved; put its addresses on the allowlist"
                if word.startswith("file:"):
                    words = f"ignoreip {word}: name the file under blocking: allowlist_files"
                found.remarks.append(Remark(Equal.NONE, place, words))
            else:
                found.remarks.append(Remark(Equal.SAME, place, f"ignoreip {word} is on the allowlist of every rule"))
                yield network


def _told(jail: Jail, found: Imported) -> None:
    lease = "for ever, here 3650 days" if jail.bantime < 0 else f"for {duration_text(jail.bantime)}"
    again = f", twice as long each time up to {duration_text(jail.longest)}" if jail.increment else ""
    words = (
        f"jail {jail.name} is rule {PREFIX}{jail.name.lower()}: {jail.maxretry} failures within "
        f"{duration_text(jail.findtime)}, blocked {lease}{again}; in simulate"
    )
    equal = Equal.CHANGED if jail.bantime < 0 else Equal.SAME
    found.remarks.append(Remark(equal, jail.place("enabled"), words))
    if jail.options.get("ignoreself", "").strip().lower() in ("false", "no", "0", "off"):
        words = f"{jail.name}: ignoreself is off; addresses of this host are never blocked here"
        found.remarks.append(Remark(Equal.CHANGED, jail.place("ignoreself"), words))


def _said_of(config: Config, jails: Iterable[Jail], found: Imported) -> None:
    """What the defaults and the enabled jails set besides."""
    told: set[Location] = set()
    for section in ("DEFAULT", *(jail.name for jail in jails)):
        for option in config.options(section):
            place = config.place(section, option)
            value = (config.raw(section, option, {}) or "").strip()
            if place in told or not value or option in _OURS or option in _QUIET or option.startswith("action"):
                continue
            told.add(place)
            if option in _NONE:
                found.remarks.append(Remark(Equal.NONE, place, f"{section}: {option}: {_NONE[option]}"))
            elif option in _CHANGED:
                found.remarks.append(Remark(Equal.CHANGED, place, f"{section}: {option}: {_CHANGED[option]}"))
        if section != "DEFAULT" and "action" in config.options(section):
            words = f"{section}: action: no program is run for a block; use a receiver of kind webhook for what it told"
            found.remarks.append(Remark(Equal.NONE, config.place(section, "action"), words))
