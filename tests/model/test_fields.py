"""The registry of fields is whole: whatever ECS names parsers give by their tables are in it.
Counterpart: src/vedette/model/fields.py."""

from __future__ import annotations

import re

from vedette.model.fields import FIELDS, is_attacker_text
from vedette.parsers import access, audit, families, json

ECS = re.compile(
    r"(?:destination|dll|dns|event|file|gcp|group|host|http|log|network|powershell|process|registry|source|"
    r"url|user|user_agent|winlog)\.[\w.]+|tags|message"
)


def names_given() -> set[str]:
    given = {name for group in families.SAME for name in group}
    given |= {name for family in families.FAMILIES for place in family.places for name in place.names}
    given |= {*json.DERIVED, *audit.NAMES, *audit.NUMBERS, *audit._DERIVED}
    return given | {name for names in access.NAMES.values() for name in names}


def test_ecs_names_that_parsers_give_are_declared():
    given = {name for name in names_given() if ECS.fullmatch(name)}
    assert len(given) > 60
    assert given <= FIELDS.keys()


def test_declared_names_say_who_gives_them_and_what_they_are():
    for name, field in FIELDS.items():
        assert field.name == name
        assert field.meaning
        assert field.given_by


def test_what_a_program_says_of_itself_is_text_an_attacker_may_choose():
    for name in ("process.executable", "process.pe.company", "user_agent.original", "url.original", "nobody.declared"):
        assert is_attacker_text(name)
    assert not is_attacker_text("event.code")
