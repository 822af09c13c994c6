"""Attributes of Chef: how layers merge, and that nothing a node writes there is more than an error of its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.inventory.chef_attributes import Layer, Precedence, Said, merged, read_said
from vedette.inventory.chef_nodes import _node
from vedette.inventory.chef_words import AttributeWords
from vedette.model.errors import InventoryError
from vedette.model.ports import HIGHEST_PORT, NOBODY
from vedette.model.reasons import InventoryReason

WORDS = AttributeWords()
PATH = ("a", "b")


def layer(precedence: Precedence, value: Any, origin: str = "chef:role[x] default_attributes") -> Layer:
    return Layer(precedence, origin, {"a": {"b": value}})


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([], None),
        ([(Precedence.DEFAULT, 1), (Precedence.DEFAULT, 2)], 2),
        ([(Precedence.DEFAULT, {"x": 1, "y": 1}), (Precedence.DEFAULT, {"y": 2})], {"x": 1, "y": 2}),
        ([(Precedence.DEFAULT, [1, 2]), (Precedence.DEFAULT, [2, 3])], [1, 2, 3]),
        ([(Precedence.DEFAULT, [1, 2]), (Precedence.OVERRIDE, [3])], [3]),
        # Lists of one precedence unite among themselves, whatever came below them.
        ([(Precedence.DEFAULT, [1]), (Precedence.OVERRIDE, {}), (Precedence.OVERRIDE, [2])], [2]),
        ([(Precedence.DEFAULT, [1]), (Precedence.OVERRIDE, None), (Precedence.OVERRIDE, [2])], [2]),
        (
            [(Precedence.DEFAULT, {"x": [1]}), (Precedence.NORMAL, {"y": 1}), (Precedence.OVERRIDE, {"x": [2]})],
            {"x": [2], "y": 1},
        ),
        ([(Precedence.DEFAULT, {"x": 1}), (Precedence.OVERRIDE, None)], {"x": 1}),
        ([(Precedence.DEFAULT, {"x": 1}), (Precedence.OVERRIDE, {"x": None})], {"x": 1}),
        ([(Precedence.DEFAULT, {"x": 1}), (Precedence.OVERRIDE, 7)], 7),
    ],
)
def test_layers_merge_as_in_chef(layers: list[tuple[Precedence, Any]], expected: Any):
    assert merged([layer(precedence, value) for precedence, value in layers], PATH) == expected


def test_closed_wins_over_ports_and_ports_over_open():
    said = read_said(
        [
            Layer(
                Precedence.DEFAULT,
                "chef:role[x] default_attributes",
                {
                    "vedette": {
                        "ports": {"22-23/tcp": "office"},
                        "open_ports": ["20-25"],
                        "closed_ports": [23, "24/tcp"],
                    }
                },
            )
        ],
        WORDS,
        100,
    )
    assert sorted((str(one.ports), one.sources) for one in said.openings) == [
        ("20-21", ("world",)),
        ("22", ("office",)),
        ("23", (NOBODY,)),
        ("24", (NOBODY,)),
        ("25", ("world",)),
    ]


def test_an_item_of_a_list_comes_from_the_layer_that_has_it():
    layers = [
        Layer(Precedence.DEFAULT, f"chef:role[{name}] default_attributes", {"vedette": {"open_ports": ports}})
        for name, ports in (("one", [22, 80]), ("two", [80, 443]))
    ]
    said = read_said(layers, WORDS, 100)
    assert {one.ports.first: one.origin.file.partition(" ")[0] for one in said.openings} == {
        22: "chef:role[one]",
        80: "chef:role[two]",
        443: "chef:role[two]",
    }


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 70_000)
    | st.floats()
    | st.sampled_from(["world", "22/tcp", "1-9", "\x1b[0m"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["22/tcp", "22", "from", "until", "vedette", "ports", "open_ports", "gateway", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(ports=JSON, opened=JSON, closed=JSON, gateway=JSON, whole=JSON)
def test_whatever_a_node_writes_is_openings_or_an_error_of_its_own(
    ports: Any, opened: Any, closed: Any, gateway: Any, whole: Any
):
    written = {"vedette": {"ports": ports, "open_ports": opened, "closed_ports": closed, "gateway": gateway}}
    for attributes in (written, {"vedette": whole}, {"vedette": {"open_ports": opened}}, {"vedette": {"ports": ports}}):
        wrong, said = None, Said()
        try:
            said = read_said([Layer(Precedence.NORMAL, "chef:node[x] normal", attributes)], WORDS, 20)
        except InventoryError as error:
            wrong = error
        assert wrong is None or wrong.reason in (InventoryReason.WRONG_WORDS, InventoryReason.TOO_MANY)
        assert "\x1b" not in str(wrong)
        assert all(1 <= one.ports.first <= one.ports.last <= HIGHEST_PORT for one in said.openings)
        assert len(said.openings) <= 60


@settings(max_examples=20, deadline=None)
@given(run_list=JSON, environment=JSON, policy=JSON, address=JSON, fqdn=JSON)
def test_whatever_a_node_says_it_has_is_text_or_odd(
    run_list: Any, environment: Any, policy: Any, address: Any, fqdn: Any
):
    said = {"run_list": run_list, "environment": environment, "policy_name": policy, "policy_group": policy}
    node = _node("x", said, {"ipaddress": address, "fqdn": fqdn}, ())
    assert all(isinstance(item, str) for item in node.has.run_list)
    assert node.has.environment == (
        environment
        if isinstance(environment, str) and "\x1b" not in environment and "/" not in environment
        else "_default"
    )
    assert bool(node.has.policy_name) == bool(node.has.policy_group)
    assert isinstance(run_list, list) or not run_list or node.odd
    assert all(isinstance(one, str) for one in (*node.addresses, *node.names))
