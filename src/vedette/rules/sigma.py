"""One Sigma document to one `Rule`, read by pySigma: what all rules have, and detection rules.
Counterpart: `loading` hands documents in and links the rules; `conditions`, `correlations`, `extras` read parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sigma.rule import SigmaRule

from vedette.model.errors import Location
from vedette.model.fields import FIELDS
from vedette.model.levels import Level
from vedette.model.rules import LogSource, NotifyStep, Response, Rule
from vedette.rules.compiled import NOT_IN_KEYS, Compiled, check_keys
from vedette.rules.conditions import PYSIGMA_ERRORS, FieldSeen, compile_parts, one_line, read_parts
from vedette.rules.correlations import correlation_rule
from vedette.rules.documents import Document
from vedette.rules.extras import Extras, read_extras
from vedette.rules.items import Placeholders
from vedette.rules.problems import Problem, ProblemKind, Severity, did_you_mean

if TYPE_CHECKING:
    from vedette.rules.pipelines import Pipelines

KNOWN_KEYS = (
    "title",
    "id",
    "name",
    "related",
    "taxonomy",
    "status",
    "description",
    "license",
    "references",
    "author",
    "date",
    "modified",
    "tags",
    "scope",
    "logsource",
    "detection",
    "correlation",
    "fields",
    "falsepositives",
    "level",
    "vedette",
)
_LOGSOURCE_KEYS = ("product", "category", "service", "definition")

SERVICES = frozenset(
    {"sshd", "sudo", "su", "pam", "shadow", "logind", "rsyslogd", "systemd-journald", "systemd-logind"}
    | {"useradd", "userdel", "usermod", "groupadd", "groupdel", "groupmod", "passwd", "chpasswd", "gpasswd"}
)
"""Services whose records we parse into fields of the registry: rules for them may test no other field."""

WRITTEN: Mapping[str, Mapping[str, str]] = {
    "sudo": {
        "USER": "user.effective.name",
        "COMMAND": "process.command_line",
        "PWD": "process.working_directory",
        "TTY": "process.tty.name",
    }
}
"""What rules of others call a field after the message itself, by service, and what our parser calls it."""

SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+")


def compile_document(
    document: Document,
    *,
    pack: str = "",
    placeholders: Placeholders | None = None,
    pipelines: Pipelines | None = None,
) -> Compiled:
    """The rule in `document`; RuleError with file:line:column where it cannot be used as written.

    pack: name of our own pack the document belongs to, "" for other people's rules. placeholders: what stands
    for a `%name%`. pipelines: applied to rules of no pack; those are written for our names.
    """
    data = document.data
    check_keys(document, data, KNOWN_KEYS, ())
    if "action" in data:
        raise document.error("'action' documents are no part of Sigma 2", "action", hint="write every rule out")
    if ("detection" in data) == ("correlation" in data):
        both = "'detection' and 'correlation' in one rule" if "detection" in data else "no 'detection'"
        key = "correlation" if "detection" in data else "title"
        raise document.error(f"{both}: a rule has exactly one of 'detection' and 'correlation'", key)
    rule_id, name = _identity(document, pack)
    metadata = metadata_of(document)
    extras = read_extras(document, rule_id)
    base = Rule(
        id=rule_id,
        name=metadata.title,
        level=metadata.level if metadata.level is not None else Level.INFORMATIONAL,
        kind=extras.kind,
        scope=extras.scope,
        parents=extras.parents,
        groups=extras.groups,
        order=extras.order,
        stop=extras.stop,
        silent=extras.silent,
        clears=extras.clears,
        level_from=extras.level_from,
        response=extras.response,
        step=extras.step or _first_step(document, pack),
        advice=extras.advice,
        description=metadata.description,
        tags=metadata.tags,
        references=metadata.references,
        origin=document.at("title"),
    )
    if "detection" in data:
        compiled = Compiled(base, name, False, document, extras.cases)
        _detection_rule(compiled, extras, metadata, pack, placeholders or {}, None if pack else pipelines)
    else:
        compiled = correlation_rule(document, base, name, extras, pack)
    if metadata.level is None:
        _warn(compiled, ProblemKind.NO_LEVEL, document.start, "no level: taken as informational")
    _check_response(document, compiled.rule)
    if compiled.rule.level_from and compiled.rule.correlate is not None:
        message = "a correlation has no one record that could say its level"
        raise document.error(message, "vedette", "level-from", hint="give it a 'level'")
    return compiled


def _first_step(document: Document, pack: str) -> NotifyStep:
    """Where a rule starts that does not say: what was not written for us must earn the pager first.

    Ours are the packs, and what only somebody writes who writes for us: a slug for an id, a mapping `vedette:`.
    """
    return NotifyStep.PAGE if _written_for_us(document, pack) else NotifyStep.STORE


def _written_for_us(document: Document, pack: str) -> bool:
    given = document.data.get("id")
    return bool(pack) or "vedette" in document.data or (isinstance(given, str) and not _is_uuid(given))


def unknown_field(name: str, where: Location, rule_id: str, *, strict: bool) -> Problem:
    """The problem that `name` is no field of the registry; a warning where the data keeps its own names."""
    if strict:
        hint = did_you_mean(name, FIELDS, cutoff=0.5)
        return Problem(ProblemKind.UNKNOWN_FIELD, Severity.ERROR, where, rule_id, f"unknown field {name!r}", hint)
    return Problem(ProblemKind.UNKNOWN_FIELD, Severity.WARNING, where, rule_id, f"no parser of ours gives {name!r}")


def _warn(compiled: Compiled, kind: ProblemKind, where: Location, message: str) -> None:
    compiled.problems.append(Problem(kind, Severity.WARNING, where, compiled.rule.id, message))


# -------------------------------------------------------------------------------------------------- what all have


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a document says of itself."""

    title: str
    level: Level | None
    description: str
    tags: tuple[str, ...]
    references: tuple[str, ...]
    values: Mapping[str, Any]
    """All of it, as pySigma has it."""


def _identity(document: Document, pack: str) -> tuple[str, str]:
    """The rule's id, and the Sigma name others may call it by ("" where it has none)."""
    given, name = document.data.get("id"), document.data.get("name")
    if name is not None and (not isinstance(name, str) or not name):
        raise document.error("'name' is text", "name")
    name = name or ""
    if given is None:
        if not name:
            raise document.error("a rule needs an 'id' (a UUID, or a slug of yours)", "title")
        return name, name
    if not isinstance(given, str):
        raise document.error("'id' is text: a UUID, or a slug of yours", "id", hint="put it in quotes")
    if SLUG.fullmatch(given) and not _is_uuid(given):
        if pack and not given.startswith(f"{pack}-"):
            raise document.error(f"rules of the pack {pack!r} have ids that begin with '{pack}-'", "id")
        return given, name
    if not _is_uuid(given):
        raise document.error(
            f"{given!r} is neither a UUID nor a slug", "id", hint="a slug is lower case words joined by '-'"
        )
    return str(UUID(given)), name


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def metadata_of(document: Document) -> Metadata:
    """Title, level, tags and the like, as pySigma judges them."""
    # Our ids are slugs, where pySigma insists on UUIDs; what it does not know it would only carry along.
    data = {key: value for key, value in document.data.items() if key in KNOWN_KEYS and key not in ("id", "vedette")}
    try:
        values, errors = SigmaRule.from_dict_common_params(data, collect_errors=True)
    except PYSIGMA_ERRORS as error:
        raise document.error(one_line(error), "title") from error
    if errors:
        first = errors[0]
        key = type(first).__name__.removeprefix("Sigma").removesuffix("Error").lower()
        key = {"tag": "tags", "value": "tags", "type": "name"}.get(key, key)
        raise document.error(one_line(first), key if key in document.data else "title")
    level = values["level"]
    references = values["references"] or []
    return Metadata(
        title=values["title"],
        level=Level.parse(level.name) if level is not None else None,
        description=(values["description"] or "").strip(),
        tags=tuple(str(tag) for tag in values["tags"] or ()),
        references=tuple(str(reference) for reference in references),
        values=values,
    )


def _check_response(document: Document, rule: Rule) -> None:
    response: Response | None = rule.response
    if response is not None and rule.key and response.target not in rule.key:
        raise document.error(
            f"the response blocks {response.target!r}, which is not in the key of the rule",
            "vedette",
            "response",
            hint=f"the key is {', '.join(rule.key)}",
        )


# ----------------------------------------------------------------------------------------------- detection rules


def read_logsource(document: Document) -> LogSource:
    """The `logsource` of a document; RuleError with the place where it is none."""
    found = document.data.get("logsource")
    if not isinstance(found, dict):
        raise document.error("'logsource' is a mapping: product, category, service", "logsource")
    check_keys(document, found, _LOGSOURCE_KEYS, ("logsource",))
    words: dict[str, str] = {}
    for key in ("product", "category", "service"):
        value = found.get(key)
        if value is not None and not isinstance(value, str):
            raise document.error(f"{key!r} is text", "logsource", key)
        words[key] = value or ""
    if not any(words.values()):
        raise document.error("'logsource' names neither product, category nor service", "logsource")
    return LogSource(**words)


def _detection_rule(
    compiled: Compiled,
    extras: Extras,
    metadata: Metadata,
    pack: str,
    placeholders: Placeholders,
    pipelines: Pipelines | None,
) -> None:
    document = compiled.document
    logsource = compiled.given = read_logsource(document)
    ours = logsource.service in SERVICES and logsource.product in ("", "linux") and _written_for_us(document, pack)
    compiled.strict = bool(pack) or ours
    seen = _judge_fields(compiled)
    parts = read_parts(document, ("detection",), placeholders, left_open=pipelines is not None)
    parts.rename(WRITTEN.get(logsource.service, {}))
    if pipelines is not None:
        compiled.piped = True
        logsource = pipelines.change(document, logsource, metadata.values, parts)
    detection = compile_parts(document, parts, seen)
    for unused in detection.unused:
        _warn(
            compiled,
            ProblemKind.UNUSED_DETECTION,
            document.at("detection", unused),
            f"{unused!r} is never used by the condition",
        )
    key = extras.key
    after = extras.after
    path: tuple[str, ...] = ("vedette", "key")
    if after is not None:
        if key and key != after.group_by:
            raise document.error("'key' differs from 'group-by' of 'after', which is the key", *path)
        key = after.group_by
        path = ("vedette", "after", "group-by")
        for index, reference in enumerate(after.of):
            compiled.reference_paths[reference] = document.at("vedette", "after", "rules", index)
    if pipelines is not None:
        key = tuple(pipelines.name_of(compiled.given, name, document.at(*path, at)) for at, name in enumerate(key))
        after = replace(after, group_by=key) if after is not None else None
    _check_key_fields(document, key, path, seen)
    compiled.rule = replace(
        compiled.rule, when=detection.when, logsource=logsource, key=key, correlate=after, pipelines=parts.pipelines
    )


def _judge_fields(compiled: Compiled) -> FieldSeen:
    """What is told of every field: unknown ones are an error where `strict`, else noted once as a warning."""
    noted: set[str] = set()

    def seen(name: str, where: Location) -> None:
        if name in FIELDS or name in noted:
            return
        problem = unknown_field(name, where, compiled.rule.id, strict=compiled.strict)
        if problem.severity is Severity.ERROR:
            raise problem.as_error()
        noted.add(name)
        compiled.problems.append(problem)

    return seen


def _check_key_fields(document: Document, names: tuple[str, ...], path: tuple[str, ...], seen: FieldSeen) -> None:
    for index, name in enumerate(names):
        if name == NOT_IN_KEYS:
            raise document.error(f"{name!r} may be in no key", *path, index)
        seen(name, document.at(*path, index))
