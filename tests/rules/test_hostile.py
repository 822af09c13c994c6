"""Rule files that are broken in every way: a RuleError with a place, or rules, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.model.errors import RuleError
from vedette.rules.documents import Document, Yaml, parse_documents
from vedette.rules.files import PACKS
from vedette.rules.loading import load
from vedette.rules.sigma import compile_document

SIGMA = ("rules", "rules-emerging-threats", "rules-threat-hunting")

FIELDS = ["a", "user.name", "user.name|re", "x|contains|all", "|all", "source.ip|cidr", "y|fieldref|i", "w|utf16"]
MODIFIED = ["z|base64offset|contains", "u|lt", "v|exists", "t|neq|cased", "q|windash", "p|expand|re"]
KEYS = ["title", "condition", "type", "rules", "gte", "field", "product", "logsource", "timespan", "s"]
VALUES = ["", "s", "1 of s*", "not (s", "all of them", "s and", "*", "%x%", "5m", "event_count", "(", "\\", "a*b"]
words = st.sampled_from([*FIELDS, *MODIFIED, *KEYS, *VALUES])
scalars = words | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
values: st.SearchStrategy[Yaml] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8
)
rules = st.fixed_dictionaries(
    {"title": st.just("t") | values, "id": st.just("a-b") | values},
    optional={
        "logsource": st.just({"product": "windows"}) | values,
        "detection": values | st.fixed_dictionaries({"condition": st.just("s") | values, "s": values}),
        "correlation": values
        | st.fixed_dictionaries(
            {
                "type": st.sampled_from(["event_count", "value_count"]),
                "rules": values,
                "timespan": st.just("5m") | values,
                "condition": values,
            },
            optional={"group-by": values, "aliases": values, "generate": values},
        ),
        "vedette": values
        | st.dictionaries(st.sampled_from(["key", "cases", "after", "response", "clears", "parents", "order"]), values),
        "tags": values,
        "level": values,
        "related": values,
        "date": values,
        "name": values,
    },
)


@settings(max_examples=300)
@given(rules)
def test_any_shape_of_a_rule_is_a_rule_or_a_rule_error(data: dict[str, Yaml]):
    (start,) = parse_documents(b"title: t", "f.yml")
    document = Document("f.yml", data, start.start, start.marks)
    refused = compiled = None
    try:
        compiled = compile_document(document)
    except RuleError as error:
        refused = error
    assert (refused is None) != (compiled is None)
    assert refused is None or (refused.location is not None and refused.message)


def mutations(raw: bytes, seed: int, n: int) -> list[bytes]:
    choose = random.Random(seed)
    found = []
    for _ in range(n):
        lines = raw.split(b"\n")
        line = choose.randrange(len(lines))
        match choose.randrange(6):
            case 0:
                del lines[line]
            case 1:
                lines.insert(line, lines[choose.randrange(len(lines))])
            case 2:
                lines[line] = b"  " + lines[line]
            case 3:
                lines[line] = lines[line].replace(choose.choice([b":", b"-", b"'", b" "]), b"", 1)
            case 4:
                at = choose.randrange(len(lines[line]) + 1)
                lines[line] = (
                    lines[line][:at] + choose.choice([b"|", b"*", b"(", b"\x00", b"&a ", b"%"]) + lines[line][at:]
                )
            case _:
                lines[line] = lines[line].partition(b":")[0] + b": " + choose.choice([b"5", b"[]", b"{}", b"~", b"x"])
        found.append(b"\n".join(lines))
    return found


def survives(raw: bytes, tmp_path: Path) -> int:
    """Load `raw`, which may only succeed or tell problems with places; how many rules came out."""
    file = tmp_path / "mutated.yml"
    file.write_bytes(raw)
    result = load([file], keep_going=True)
    assert all(problem.location.file == str(file) for problem in result.problems)
    return len(result.rules)


def test_mutations_of_our_packs_never_crash_the_loader(tmp_path: Path):
    raw = (PACKS / "logging.yml").read_bytes()
    counts = {survives(mutated, tmp_path) for mutated in mutations(raw, 1, 60)}
    assert max(counts) == 4
    assert min(counts) < 4


@pytest.mark.corpus
@pytest.mark.slow
def test_sigmahq_loads_but_for_what_is_not_supported_yet(corpus: Path):
    result = load([corpus / "sigma" / folder for folder in SIGMA], keep_going=True)
    files = sum(1 for folder in SIGMA for _ in (corpus / "sigma" / folder).rglob("*.yml"))
    assert len(result.rules) + len(result.errors) == files
    reasons = {problem.message for problem in result.errors}
    # The field mappings that bring `USER` to sudo's records come with the full rule languages.
    assert reasons <= {"placeholders (modifier expand) are not supported yet", "unknown field 'USER'"}
    assert len(result.errors) <= 3


@pytest.mark.corpus
def test_mutations_of_sigmahq_rules_never_crash_the_loader(corpus: Path, tmp_path: Path):
    files = sorted((corpus / "sigma" / "rules" / "linux").rglob("*.yml"))[::8]
    assert len(files) > 10
    loaded = sum(survives(raw, tmp_path) for n, file in enumerate(files) for raw in mutations(file.read_bytes(), n, 6))
    assert loaded > 0
