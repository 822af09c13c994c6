"""Numbers of addresses: the same for the same address, whatever was asked before and however words collide.
Counterpart: vedette.parsers.addresses."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.parsers import addresses
from vedette.parsers.addresses import AddressTable
from vedette.parsers.columns import Block
from vedette.parsers.readings import address_of

words = st.one_of(
    st.ip_addresses().map(lambda address: str(address).encode()),
    st.sampled_from(
        [b"", b"1.2.3.4", b"1.2.3.4\0", b"::ffff:1.2.3.4", b"1.2.3.04", b"fe80::1%eth0", b"x" * 70, b"1.2"]
    ),
    st.binary(max_size=20),
)


def numbers(table: AddressTable, asked: list[bytes]) -> list[int]:
    lengths = np.array([len(word) for word in asked], dtype=np.int64)
    ends = np.cumsum(lengths)
    return table.numbers(Block(b"".join(asked)), ends - lengths, ends).tolist()


@settings(max_examples=60)
@given(st.lists(st.lists(words, min_size=1, max_size=30), min_size=1, max_size=4), st.booleans())
def test_a_word_is_the_address_it_is(batches: list[list[bytes]], collide: bool):
    table = AddressTable()
    # Where all words want the same two places, everything is still right.
    same = patch.object(addresses, "_places", lambda mixed, half: np.full(len(mixed), half * 9, dtype=np.int64))
    with same if collide else patch.object(addresses, "_MIX", addresses._MIX):
        for asked in batches:
            named = [None if number < 0 else table.names[number] for number in numbers(table, asked)]
            assert named == [address_of(word) for word in asked]
    assert len(set(table.names)) == len(table.names)


def test_one_that_is_full_says_so():
    table = AddressTable()
    with patch.object(AddressTable, "LIMIT", 2):
        first, second, again = numbers(table, [b"192.0.2.1", b"192.0.2.2", b"192.0.2.1"])
        assert sorted((first, second)) == [0, 1]
        assert again == first
        assert not table.full
        assert numbers(table, [b"192.0.2.3"]) == [2]
        assert table.full
