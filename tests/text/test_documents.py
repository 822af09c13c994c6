from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.model.errors import VedetteError
from vedette.text.documents import DEPTH_LIMIT, FILE_LIMIT, NODE_LIMIT, Document, parse_documents


def test_every_key_and_element_knows_its_place():
    first, second = parse_documents(b"a: 1\nb:\n  - x\n  - {c: 2}\n---\n\nd: {e: f}\n", "f.yml")
    assert first.data == {"a": 1, "b": ["x", {"c": 2}]}
    assert str(first.at("b", 1, "c")) == "f.yml:4:6"
    assert str(first.at("b", 0)) == "f.yml:3:5"
    assert str(first.at("b", 7, "gone")) == "f.yml:2:1"
    assert str(second.at("d", "e")) == "f.yml:7:5"
    assert str(second.at("gone")) == "f.yml:7:1"


def test_scalars_are_what_they_look_like():
    (document,) = parse_documents(
        b"a: 22:30\nb: 2026-01-02\nc: '5'\nd: 0x10\ne: yes\nf: ~\ng: 1.5\nyes: on\n5: five\nh: =\n", "f.yml"
    )
    assert document.data == {
        "a": "22:30",
        "b": "2026-01-02",
        "c": "5",
        "d": 16,
        "e": True,
        "f": None,
        "g": 1.5,
        "yes": True,
        "5": "five",
        "h": "=",
    }


def test_aliases_stand_for_what_they_name():
    (document,) = parse_documents(b"a: &x [1, 2]\nb: *x\n", "f.yml")
    assert document.data == {"a": [1, 2], "b": [1, 2]}


def test_empty_documents_are_left_out():
    assert parse_documents(b"---\n---\n# nothing\n", "f.yml") == []


BOMB = b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a: 1\na: 2\n", "f.yml:2:1: key 'a' is there twice"),
        (b"- 1\n", "f.yml:1:1: a document is a mapping"),
        (b"a: [1\nb: 2\n", "f.yml:2:2: no valid YAML"),
        (b"a: \xff\n", "f.yml:1:4: is not UTF-8"),
        (b"a: \x07\n", "f.yml:1: no valid YAML"),
        (b"a: !!python/object:os.system x\n", "f.yml:1:4: tag"),
        (b"a: !x y\n", "f.yml:1:4: tag"),
        (b"a: *x\n", "f.yml:1:4: alias"),
        (b"a: &x [*x]\n", "f.yml:1:8: alias"),
        (b"a: &x {b: 1}\nc:\n  <<: *x\n", "f.yml:3:3: merge keys"),
        (b"[a]: b\n", "f.yml:1:1: a key is text"),
        (b"a: " + b"[" * 100_000, "nested deeper"),
        (b"a: " + b"9" * 50_000, "f.yml:1:4: a number of more than"),
        (b"a: .inf", "f.yml:1:4: '.inf' is not a finite number"),
        (BOMB, f"more than {NODE_LIMIT} nodes"),
        (b"#" * (FILE_LIMIT + 1), "larger than"),
        (b"a: " + b"{b: " * (DEPTH_LIMIT + 1) + b"}" * (DEPTH_LIMIT + 1), "nested deeper"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(raw: bytes, message: str):
    with pytest.raises(VedetteError) as caught:
        parse_documents(raw, "f.yml")
    assert message in str(caught.value)


@given(st.binary(max_size=200) | st.text("ab:-[]{}&*!|>'\"#?,\n \t0", max_size=200).map(str.encode))
def test_no_bytes_get_anything_but_documents_or_a_rule_error(raw: bytes):
    refused = None
    documents: list[Document] = []
    try:
        documents = parse_documents(raw, "f.yml")
    except VedetteError as error:
        refused = error
    assert refused is None or refused.location is not None
    assert all(isinstance(document.data, dict) for document in documents)
