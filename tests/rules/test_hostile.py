"""Rule files that are broken in every way: a RuleError with a place, or rules, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vedette.model.errors import RuleError
from vedette.model.rules import Test
from vedette.rules.documents import Yaml, parse_documents
from vedette.rules.files import PACKS
from vedette.rules.loading import load
from vedette.rules.settings import RulesSettings
from vedette.rules.sigma import compile_document

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
    document = start.replaced(data)
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
def test_mutations_of_sigmahq_rules_never_crash_the_loader(corpus: Path, tmp_path: Path):
    files = sorted((corpus / "sigma" / "rules" / "linux").rglob("*.yml"))[::8]
    assert len(files) > 10
    loaded = sum(survives(raw, tmp_path) for n, file in enumerate(files) for raw in mutations(file.read_bytes(), n, 6))
    assert loaded > 0


# ------------------------------------------------------------------------------------------- made to cost much

HEAD = "title: T\nid: 5f0d2a2e-0000-4000-8000-000000000001\nlevel: low\nlogsource: {product: windows}\n"
GOOD = "title: Good\nid: my-good\nlevel: low\nlogsource: {product: windows}\ndetection: {s: {f: a}, condition: s}\n"


def detection(text: str) -> str:
    return f"{HEAD}detection:\n{text}"


def one(item: str, condition: str = "s") -> str:
    return detection(f"  s:\n    {item}\n  condition: {condition}\n")


def laughs() -> str:
    lines = ["  a0: &a0 {f: [x, x, x, x, x, x, x, x, x, x]}"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return detection("\n".join(lines) + "\n  condition: a8\n")


def filters(count: int, rules: str = "any") -> str:
    each = "logsource: {product: windows}\nfilter: {rules: RULES, s: {f: x}, condition: not s}\n"
    return "---\n".join([one("f: a"), *[f"title: F{n}\n{each.replace('RULES', rules)}" for n in range(count)]])


MANY = {
    "a billion laughs": (laughs, "aliases written out"),
    "a cycle": (lambda: detection("  s: &s\n    f: a\n    g: *s\n  condition: s\n"), "stands complete before it"),
    "very many values": (lambda: one(f"f: [{'a, ' * 250_000}a]"), "nodes"),
    "a list of lists": (lambda: one(f"f: {'[' * 1000}{']' * 1000}"), "nested deeper than 32"),
    "maps in maps": (lambda: one(f"f: {'{a: ' * 1000}b{'}' * 1000}"), "nested deeper than 32"),
    "a long value": (lambda: one(f"f: {'a' * 100_000}"), "more than 65536 characters"),
    "many wildcards": (lambda: one(f"f: '{'a*' * 300}'"), "more than 256 wildcards"),
    "dashes": (lambda: one(f"f|windash: [{', '.join(f'-a{n} -b -c' for n in range(2000))}]"), "200000 values"),
    "offsets on dashes": (
        lambda: one(f"f|base64offset|windash|contains: [{', '.join(f'-a{n} -b -c' for n in range(700))}]"),
        "200000 values",
    ),
    "offsets": (lambda: one(f"f|base64offset|base64offset: [{', '.join(['ab'] * 23_000)}]"), "200000 values"),
    "a pattern too large to repeat": (lambda: one("f|re: '((a{1,1000}){1,1000}){1,1000}'"), "invalid"),
    "a long pattern": (lambda: one(f"f|re: '{'a' * 5000}'"), "more than 4096 characters"),
    "many patterns": (lambda: one(f"f|re: [{', '.join(f'a+{n:030}' for n in range(5000))}]"), "in one document"),
    "deep parentheses": (lambda: one("f: a", f"{'(' * 33}s{')' * 33}"), "nested deeper than 32"),
    "a long condition": (lambda: one("f: a", " or ".join(["s"] * 2000)), "more than 4096 characters"),
    "negations": (lambda: one("f: a", "not " * 1000 + "x"), "condition names 'x'"),
    "parts named again and again": (
        lambda: one(f"f: [{', '.join(f'a{n}' for n in range(5000))}]", " or ".join(["(s and not s)"] * 100)),
        "over more than 250000 values",
    ),
    "selectors over many parts": (
        lambda: detection(
            "".join(f"  s{n}: {{f: a}}\n" for n in range(3_000)) + f"  condition: {' or '.join(['1 of s1*'] * 300)}\n"
        ),
        "over more than 250000 values",
    ),
    "stars in a selector": (lambda: one("f: a", f"1 of {'*a' * 500}*"), "names no part"),
    "keys nobody knows": (lambda: HEAD + "".join(f"x{n}: a\n" for n in range(1000)), "more than 200 keys"),
    "modifiers": (lambda: one(f"f{'|contains' * 100}|x: a"), "unknown modifier"),
    "a long number": (lambda: one(f"f: {'9' * 10_000}"), "more than 40 digits"),
    "filters": (lambda: filters(1001), "more than 1000 filters"),
    "filters for nobody": (lambda: filters(1, f"[{', '.join(f'no-{n}' for n in range(2_000))}]"), "there is no rule"),
    "null bytes": (lambda: one("f: 'a\0b'"), "no valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_what_is_made_to_cost_much_is_refused_with_its_place_and_the_rest_loads(name: str, tmp_path: Path):
    make, message = MANY[name]
    (tmp_path / "bad.yml").write_text(make())
    (tmp_path / "good.yml").write_text(GOOD)
    result = load([tmp_path], keep_going=True)
    assert "my-good" in {rule.id for rule in result.rules}
    found = [problem for problem in result.errors if message in problem.message]
    assert found, [problem.message for problem in result.errors][:3]
    assert found[0].location.file == str(tmp_path / "bad.yml")
    assert found[0].location.line > 0


def test_placeholders_multiply_within_bounds(tmp_path: Path):
    (tmp_path / "r.yml").write_text(one("f|expand: ['%a%%a%', '%a%%a%%a%%a%']"))
    result = load([tmp_path], keep_going=True, settings=RulesSettings(placeholders={"a": tuple(range(50))}))
    assert ["stands for more than" in problem.message for problem in result.errors] == [True]
    (tmp_path / "r.yml").write_text(one("f|expand: '%a%%a%'"))
    (rule,) = load([tmp_path], settings=RulesSettings(placeholders={"a": tuple(range(50))})).rules
    assert isinstance(rule.when, Test)
    assert len(rule.when.values) == 2_500


@pytest.mark.slow
def test_a_pipeline_that_is_made_to_cost_much_is_refused(tmp_path: Path):
    (tmp_path / "r.yml").write_text(GOOD)
    mapping = ", ".join(f"f{n}: g" for n in range(150_000))
    (tmp_path / "p.yml").write_text(f"transformations: [{{type: field_name_mapping, mapping: {{{mapping}}}}}]\n")
    with pytest.raises(RuleError, match="nodes"):
        load([tmp_path / "r.yml"], pipelines=[str(tmp_path / "p.yml")])


keys = st.sampled_from(
    ["f", "f|re", "f|windash", "f|expand", "f|cidr", "|all", "f|hour|gte", "f|base64offset|contains"]
)
items = st.dictionaries(keys, values, max_size=3)
conditions = st.text(alphabet="s() not1ofadrthem*_|", max_size=40)
transformations = st.fixed_dictionaries(
    {"type": st.sampled_from(["field_name_mapping", "add_condition", "replace_string", "set_state", "nest", "case"])},
    optional={
        "mapping": st.dictionaries(words, words | st.lists(words, max_size=3), max_size=3),
        "conditions": items,
        "regex": words,
        "replacement": words,
        "key": words,
        "val": scalars,
        "items": values,
        "rule_conditions": values,
        "method": words,
    },
)


@pytest.mark.slow
@settings(max_examples=2000, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(items, conditions, st.lists(transformations, max_size=3), st.booleans())
@example({}, "", [{"type": "add_condition", "conditions": {"f|re": None}}], False)
def test_any_filter_detection_and_pipeline_is_loaded_or_refused_with_a_place(
    tmp_path: Path, item: dict[str, Yaml], condition: str, steps: list[dict[str, Yaml]], is_filter: bool
):
    body: dict[str, Yaml] = {"s": item, "condition": condition}
    document: dict[str, Yaml] = {"title": "T", "logsource": {"product": "windows"}, "id": "my-rule", "level": "low"}
    document |= {"filter": {**body, "rules": "any"}} if is_filter else {"detection": body}
    (tmp_path / "r.yml").write_text(GOOD + "---\n" + yaml.safe_dump(document, allow_unicode=True))
    (tmp_path / "p.yml").write_text(yaml.safe_dump({"transformations": steps}, allow_unicode=True))
    refused = None
    try:
        result = load([tmp_path / "r.yml"], keep_going=True, pipelines=[str(tmp_path / "p.yml")])
    except RuleError as error:
        refused = error
    if refused is not None:
        assert refused.location is not None
        return
    assert all(problem.location.file for problem in result.problems)
    assert len(result.rules) <= 2
