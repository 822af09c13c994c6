"""An OSSEC or Wazuh installation read for `rules import`: rules, logs, watched files, mail, whom to spare, responses.
Counterpart: `app.importing` lists it; what it gives is written by `cli.rules.importing`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vedette.app.importing import Equal, Imported, Remark
from vedette.model.errors import Location, VedetteError
from vedette.model.levels import Level
from vedette.model.rules import NotifyStep, Rule
from vedette.rules.files import TREE_SUFFIX, rule_files
from vedette.rules.ossec import read_ossec
from vedette.rules.ossec_lists import ListStore
from vedette.rules.problems import Severity
from vedette.text.addresses import parse_network
from vedette.text.ossec_xml import Element, read_fragment

_FOLDER = Path("ossec")
_LISTS = ("etc/lists", "lists", "ruleset/lists")
_FORMATS = {
    "syslog": "syslog",
    "apache": "access",
    "iis": "",
    "json": "json",
    "audit": "audit",
    "multi-line": "syslog",
    "multi-line-regex": "syslog",
    "nmapg": "syslog",
    "snort-full": "",
    "snort-fast": "syslog",
    "squid": "syslog",
    "mysql_log": "syslog",
    "postgresql_log": "syslog",
    "djb-multilog": "",
}
"""What reads each log_format; "" = nothing does."""
_STRFTIME = re.compile(r"%[A-Za-z]")
_BLOCKERS = {"firewall-drop": "nftables", "nftables-drop": "nftables", "host-deny": "hosts_deny", "netsh": ""}


def looks_like(path: Path) -> bool:
    """Whether this is the folder of an installation, its `etc`, or its configuration file."""
    return _conf(path) is not None


def _conf(path: Path) -> Path | None:
    if path.is_file():
        return path if path.name in ("ossec.conf", "ossec-server.conf") else None
    names = ("etc/ossec.conf", "ossec-server.conf", "ossec.conf")
    return next((path / name for name in names if (path / name).is_file()), None)


def read(path: Path) -> Imported:
    """The whole installation; VedetteError where its configuration cannot be read."""
    conf = _conf(path)
    if conf is None:
        raise VedetteError(f"{path} has no ossec.conf", hint="the folder of the installation, /var/ossec for example")
    return _Import(path if path.is_dir() else path.parent, conf).run()


class _Import:
    def __init__(self, folder: Path, conf: Path) -> None:
        self._folder, self._conf = folder, conf
        self.out = Imported()
        self._rules: list[Rule] = []
        self._files: list[dict[str, object]] = []
        self._sources: dict[str, object] = {}
        self._allowed: list[dict[str, str]] = []
        self._mail: dict[str, str] = {}
        self._recipients: list[str] = []
        self._commands: dict[str, str] = {}
        self._answers: list[Element] = []
        self._enforcers: dict[str, None] = {}
        self._names: set[str] = set()

    def run(self) -> Imported:
        """Everything, in the order of our configuration."""
        elements = read_fragment(self._conf)
        sections = [one for root in elements if root.name in ("ossec_config", "agent_config") for one in root.children]
        self._take_rules()
        for section in sections:
            self._section(section)
        mail_level = next((one.first("email_alert_level") for one in sections if one.name == "alerts"), "") or "7"
        self._take_mail(mail_level)
        respond = self._take_answers()
        settings: dict[str, object] = {"version": 1}
        if self._files:
            self._sources["file"] = self._files
        if self._sources:
            settings["sources"] = self._sources
        settings["rules"] = {
            "paths": [_FOLDER],
            "steps": {rule.id: str(NotifyStep.STORE) for rule in self._rules if not rule.silent},
        }
        settings |= self.out.settings
        if respond:
            settings["respond"] = dict.fromkeys(sorted(respond, key=int), "simulate")
        blocking: dict[str, object] = {}
        if self._enforcers:
            blocking["enforcers"] = list(self._enforcers)
        if self._allowed:
            blocking["allowlist"] = self._allowed
        if blocking:
            settings["blocking"] = blocking
        self.out.settings = settings
        return self.out

    def _say(self, equal: Equal, element: Element | None, words: str) -> None:
        where = Location(str(self._conf), element.line if element is not None else 0)
        self.out.remarks.append(Remark(equal, where, words))

    # ---------------------------------------------------------------------------------------------------- rules

    def _take_rules(self) -> None:
        """Rules, decoders and lists as they are; their names keep the order in which they are read."""
        files = [file for file in dict.fromkeys(rule_files(self._conf)) if file.suffix == TREE_SUFFIX]
        self._names = {file.name for file in files}
        lists = [self._folder / name for name in _LISTS if (self._folder / name).is_dir()]
        found = read_ossec(files, lists)
        self._rules = list(found.rules)
        for number, file in enumerate(files):
            self.out.files[str(_FOLDER / f"{number:04d}-{file.name}")] = file.read_bytes()
        for file in ListStore(lists).files():
            self.out.files[str(_FOLDER / "lists" / file.name)] = file.read_bytes()
        self._say(Equal.SAME, None, f"{len(found.rules)} rules of {found.dialect} from {len(files)} files, unchanged")
        self._say(
            Equal.CHANGED,
            None,
            "their alerts are stored and tell nobody yet: `vedette rules promote` lets them go further",
        )
        for problem in found.problems:
            equal = Equal.NONE if problem.severity is Severity.ERROR else Equal.CHANGED
            self.out.remarks.append(Remark(equal, problem.location, problem.message))

    # ------------------------------------------------------------------------------------------------- sections

    def _section(self, section: Element) -> None:
        match section.name:
            case "global":
                self._global(section)
            case "localfile":
                self._localfile(section)
            case "syscheck":
                self._syscheck(section)
            case "rootcheck":
                self._rootcheck(section)
            case "command":
                self._commands[section.first("name")] = section.first("executable")
            case "active-response":
                self._answers.append(section)
            case "alerts" | "rules" | "ruleset":
                if (level := section.first("log_alert_level")) not in ("", "1"):
                    self._say(Equal.CHANGED, section, f"log_alert_level {level}: everything from level 1 on is stored")
                for child in section.all("include"):
                    if Path(child.text.strip()).name not in self._names:
                        self._say(Equal.NONE, child, f"include {child.text.strip()}: there is no such file of rules")
            case _:
                self._say(Equal.NONE, section, f"<{section.name}> is not taken over")

    def _global(self, section: Element) -> None:
        for child in section.children:
            text = child.text.strip()
            match child.name:
                case "white_list":
                    try:
                        network = str(parse_network(text))
                    except ValueError:
                        self._say(
                            Equal.NONE, child, f"white_list {text}: names are never resolved, write its addresses"
                        )
                        continue
                    self._allowed.append({"network": network, "comment": "white_list of OSSEC"})
                    self._say(Equal.SAME, child, f"{network} is never blocked")
                case "email_to":
                    self._recipients.append(text)
                case "smtp_server" | "email_from":
                    self._mail[child.name] = text.rstrip(".")
                case "email_notification":
                    if text == "no":
                        self._mail["off"] = "no"
                case "jsonout_output" | "alerts_log" | "logall" | "logall_json":
                    self._say(Equal.SAME, child, f"{child.name}: every record and finding is in the lake, in JSON")
                case _:
                    self._say(Equal.NONE, child, f"{child.name} is not taken over")

    def _localfile(self, section: Element) -> None:
        form, location = section.first("log_format", "syslog"), section.first("location")
        if form in ("command", "full_command"):
            command = section.first("command")
            self._say(
                Equal.NONE, section, f"{form} {command!r}: no source of ours runs commands; write its output to a file"
            )
            return
        name = form.partition(":")[0]
        reader = _FORMATS.get(name, "")
        if not reader:
            self._say(Equal.NONE, section, f"log_format {form} of {location or 'nothing'} has no reader")
            return
        if not location.startswith("/"):
            self._say(Equal.NONE, section, f"location {location!r} is no absolute path")
            return
        path = _STRFTIME.sub("*", location)
        entry: dict[str, object] = {"paths": [path], "format": reader}
        if name == "multi-line":
            self._say(
                Equal.NONE, section, f"{location}: {form} joins a fixed number of lines; say what begins a record"
            )
        elif name == "multi-line-regex":
            pattern = section.first("multiline_regex")
            if pattern:
                entry["multiline"] = {"start": pattern}
            self._say(Equal.CHANGED, section, f"{location}: lines are joined by what begins a record")
        elif name != reader:
            self._say(Equal.CHANGED, section, f"{location}: {form} is read as {reader}")
        else:
            self._say(Equal.SAME, section, f"{path} is followed")
        for other in self._files:
            if other["format"] == reader and "multiline" not in other and "multiline" not in entry:
                paths = other["paths"]
                assert isinstance(paths, list)
                if path not in paths:
                    paths.append(path)
                return
        self._files.append(entry)

    def _syscheck(self, section: Element) -> None:
        if section.first("disabled") == "yes":
            return
        trees = [tree.strip() for one in section.all("directories") for tree in one.text.split(",")]
        kept = [tree for tree in trees if tree.startswith("/")]
        for tree in trees:
            if tree and tree not in kept:
                self._say(Equal.NONE, section, f"directories {tree!r} is no absolute path")
        for one in section.all("directories"):
            if any(one.attributes.get(name) == "yes" for name in ("realtime", "whodata")):
                self._say(Equal.SAME, one, f"{one.text.strip()}: every tree is watched in real time")
            if one.attributes.get("restrict"):
                self._say(Equal.CHANGED, one, f"restrict on {one.text.strip()}: the whole tree is watched")
        ignored = [one.text.strip() for one in section.all("ignore") if not one.attributes.get("type")]
        for one in section.all("ignore"):
            if one.attributes.get("type"):
                self._say(
                    Equal.NONE, one, f"ignore by pattern {one.text.strip()!r}: write a shell pattern in leave_out"
                )
        integrity: dict[str, object] = {}
        if kept:
            integrity["trees"] = list(dict.fromkeys(kept))
        if ignored:
            integrity["leave_out"] = list(dict.fromkeys(ignored))
        seconds = section.first("frequency")
        if seconds.isascii() and seconds.isdigit() and int(seconds):
            integrity["full_every"] = f"{int(seconds)}s"
        self._sources["integrity"] = integrity
        self._say(Equal.SAME, section, f"syscheck: {len(kept)} trees are watched")
        for name in ("nodiff", "windows_registry", "prefilter_cmd", "auto_ignore", "scan_time", "scan_day"):
            if any(section.all(name)):
                self._say(Equal.NONE, section, f"syscheck {name} is not taken over")

    def _rootcheck(self, section: Element) -> None:
        if section.first("disabled") == "yes":
            return
        rootkit: dict[str, object] = {}
        seconds = section.first("frequency")
        if seconds.isascii() and seconds.isdigit() and int(seconds):
            rootkit["files_every"] = f"{int(seconds)}s"
        self._sources["rootkit"] = rootkit
        self._say(
            Equal.CHANGED,
            section,
            "rootcheck: our own checks; name its signature files under sources.rootkit.signatures",
        )

    # --------------------------------------------------------------------------------------------- mail, answers

    def _take_mail(self, level: str) -> None:
        if self._mail.get("off") or not self._recipients:
            self._say(Equal.NONE, None, "no mail is configured: nobody is told until there is a receiver")
            return
        receiver: dict[str, object] = {"type": "email", "to": self._recipients}
        if server := self._mail.get("smtp_server"):
            receiver["host"] = server
        if sender := self._mail.get("email_from"):
            receiver["from"] = sender.rstrip(".")
        try:
            least = Level.from_ossec(int(level))
        except ValueError:
            least = Level.MEDIUM
        labels = "|".join(one.label for one in Level if one >= least)
        route = {"receiver": "", "routes": [{"receiver": "mail", "matchers": [f'level=~"{labels}"']}]}
        self.out.settings["alerts"] = {"route": route}
        self.out.settings["notify"] = {"receivers": {"mail": receiver}}
        self._say(
            Equal.CHANGED,
            None,
            f"email_alert_level {level}: mail from our level {least.label} on; name a pager for high",
        )

    def _take_answers(self) -> set[str]:
        """The rules whose responses are simulated."""
        chosen: set[str] = set()
        for answer in self._answers:
            command = answer.first("command")
            if answer.first("disabled") == "yes":
                self._say(Equal.NONE, answer, f"{command or 'a response'} is disabled, and left out")
                continue
            program = self._commands.get(command, command).removesuffix(".sh")
            enforcer = _BLOCKERS.get(program, _BLOCKERS.get(command, ""))
            if not enforcer:
                self._say(Equal.NONE, answer, f"{command}: nothing of ours does what {program or 'it'} does")
                continue
            self._enforcers.setdefault(enforcer)
            bound = [rule for rule in self._rules if _bound(answer, rule)]
            blocking = {rule.id for rule in bound if rule.response is not None}
            chosen |= blocking
            self._say(
                Equal.CHANGED,
                answer,
                f"{command}: {len(blocking)} rules that count by address, in simulate; "
                f"{len(bound) - len(blocking)} others answered a single line, which blocks nobody here",
            )
            if (timeout := answer.first("timeout")) and blocking:
                self._say(
                    Equal.CHANGED, answer, f"timeout {timeout}: a block lasts an hour, the next one twice as long"
                )
            if answer.first("location", "local") not in ("local", ""):
                self._say(Equal.CHANGED, answer, "location: a block holds on the host that saw it")
        return chosen


def _bound(answer: Element, rule: Rule) -> bool:
    branch = rule.branch
    assert branch is not None
    if not branch.weight:
        return False
    level = answer.first("level")
    if level.isascii() and level.isdigit() and branch.weight >= int(level):
        return True
    groups = [word for word in re.split(r"[,|\s]+", answer.first("rules_group")) if word]
    if any(word in group for word in groups for group in rule.groups):
        return True
    return rule.id in _ids(answer)


def _ids(answer: Element) -> Iterator[str]:
    for word in re.split(r"[,\s]+", answer.first("rules_id")):
        if word.isascii() and word.isdigit():
            yield str(int(word))
