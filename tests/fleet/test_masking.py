"""Secrets are hidden in place, in their own record alone, and counted by name.
Counterpart: vedette.fleet.masking and the masks of vedette.fleet.settings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vedette.app.counters import Counters
from vedette.fleet.masking import Masks
from vedette.fleet.settings import ShippingSettings
from vedette.model.batch import Batch, Origin


def batch(*records: bytes) -> Batch:
    lengths = np.array([len(record) for record in records], dtype=np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    block = b"\n".join(records)
    return Batch(Origin("host", "a"), 0, block, starts, starts + lengths, starts, 0)


def masked(pattern: str, *records: bytes) -> list[bytes]:
    given_batch = batch(*records)
    after = Masks({"secret": pattern}, Counters())(given_batch)
    assert after.starts is given_batch.starts
    return [after.raw(row) for row in range(len(after))]


def test_a_group_is_hidden_or_else_the_whole_match() -> None:
    assert masked(r"password=(\S+)", b"password=abc user=x", b"none") == [b"password=*** user=x", b"none"]
    assert masked(r"password=\S+", b"a password=abc") == [b"a ************"]
    assert masked(r"x(y)?z", b"xz xyz") == [b"xz x*z"]
    assert masked("schlüssel=(.+)", "schlüssel=größe".encode()) == ["schlüssel=".encode() + b"*******"]
    assert masked(r"^(\w+) in", b"abc in", b"def in x") == [b"*** in", b"*** in x"]


def test_a_match_stays_in_its_record() -> None:
    assert masked(r"key=([^;]*)", b"a key=123", b"b key=45;", b"c") == [b"a key=***", b"b key=**;", b"c"]
    assert masked(r"key:\s*(\d+)", b"a key:", b"77 b", b"key: 12") == [b"a key:", b"77 b", b"key: **"]
    assert masked(r"begin.*?[^x]end(1)", b"begin", b"xend1") == [b"begin", b"xend1"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abk=; 1", max_size=12).map(str.encode), max_size=6),
    st.sampled_from([r"k=([^;]*);", r"a\s*b", r"k=(\w+)", r"(a[^b]+)b", r"^a+", r"1+$"]),
)
def test_the_block_gives_what_each_record_alone_gives(records: list[bytes], pattern: str) -> None:
    together = masked(pattern, *records) if records else []
    assert together == [masked(pattern, record)[0] for record in records]


def test_found_secrets_are_counted_by_name_and_an_untouched_batch_is_the_same() -> None:
    counter = Counters()
    masks = Masks({"token": r"t=(\w+)", "all": r"t=(\S+)"}, counter)
    assert masks(batch(b"t=abc t=def", b"t=g")).block == b"t=*** t=***\nt=*"
    assert counter.value("secrets_masked", "token") == 3
    clean = batch(b"nothing")
    assert masks(clean) is clean
    empty = batch()
    assert masks(empty) is empty


@pytest.mark.parametrize("pattern", ["(", "a*", r"(?=x)", r"\Aabc", r"x\z"])
def test_a_pattern_that_could_leak_or_hide_all_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError) as error:
        ShippingSettings(masks={"one": pattern})
    assert "input_value" not in str(error.value)
    assert ShippingSettings(masks={"one": r"a\\A+"}).masks
