"""Trees and proofs, held to the RFC's own recursion and to roots known from elsewhere.
Counterpart: vedette.store.ledger.tree; reference.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.ledger import reference

from vedette.store.ledger import tree

# The leaves and roots that implementations of Certificate Transparency test themselves with.
KNOWN_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
]
KNOWN_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


class Store:
    """Nodes as the ledger keeps them, counting what is read."""

    def __init__(self, leaves: list[bytes], cuts: list[int]) -> None:
        self.nodes: dict[tree.Node, bytes] = {}
        self.reads = 0
        size = 0
        for end in [*sorted(cut for cut in cuts if cut <= len(leaves)), len(leaves)]:
            frontier = tree.cover(0, size)
            edge = [(node, self.nodes[node]) for node in frontier]
            for node, found in tree.grow(edge, size, [tree.leaf_hash(leaf) for leaf in leaves[size:end]]):
                assert node not in self.nodes
                self.nodes[node] = found
            size = end

    def read(self, nodes):
        self.reads += len(nodes)
        return [self.nodes[node] for node in nodes]


@pytest.mark.parametrize("size", KNOWN_ROOTS)
def test_roots_are_those_known_from_elsewhere(size: int):
    hashes = [tree.leaf_hash(leaf) for leaf in KNOWN_LEAVES[:size]]
    assert tree.root_of(hashes).hex() == KNOWN_ROOTS[size]
    store = Store(KNOWN_LEAVES, [])
    assert tree.read_root(size, store.read).hex() == KNOWN_ROOTS[size]


logs = st.integers(1, 70).map(lambda n: [b"%d" % i for i in range(n)])


@settings(max_examples=40)
@given(logs, st.lists(st.integers(0, 70), max_size=4), st.data())
def test_proofs_are_those_of_the_rfc_however_the_log_grew(leaves: list[bytes], cuts: list[int], data: st.DataObject):
    store = Store(leaves, cuts)
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    held = leaves[:size]
    path = tree.read_spans(tree.inclusion_spans(index, size), store.read)
    assert path == reference.path(index, held)
    assert path == tree.path_in([tree.leaf_hash(leaf) for leaf in held], index)
    proof = tree.read_spans(tree.consistency_spans(old, size), store.read)
    assert proof == reference.proof(old, held)
    root, old_root = reference.mth(held), reference.mth(leaves[:old])
    assert tree.read_root(size, store.read) == root == tree.root_of([tree.leaf_hash(leaf) for leaf in held])
    assert tree.inclusion_holds(tree.leaf_hash(held[index]), index, size, path, root)
    assert tree.consistency_holds(old, size, old_root, root, proof)


@settings(max_examples=40)
@given(logs, st.data())
def test_a_proof_with_anything_changed_proves_nothing(leaves: list[bytes], data: st.DataObject):
    size = len(leaves)
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    root, old_root = reference.mth(leaves), reference.mth(leaves[:old])
    path, proof = reference.path(index, leaves), reference.proof(old, leaves)
    leaf = tree.leaf_hash(leaves[index])
    assert not tree.inclusion_holds(tree.leaf_hash(b"other"), index, size, path, root)
    assert not tree.inclusion_holds(leaf, index, size, path, tree.leaf_hash(b"other"))
    assert not tree.inclusion_holds(leaf, index, size, [*path, root], root)
    assert not tree.inclusion_holds(leaf, size, size, path, root)
    for other in {index - 1, index + 1} - {-1}:
        assert not tree.inclusion_holds(leaf, other, size, path, root)
    assert not tree.consistency_holds(old, size, tree.leaf_hash(b"other"), root, proof)
    assert not tree.consistency_holds(old, size, old_root, tree.leaf_hash(b"other"), proof)
    assert not tree.consistency_holds(old, size, old_root, root, [*proof, root])
    assert not tree.consistency_holds(size + 1, size, old_root, root, proof)
    for steps, holds in [
        (path, lambda changed: tree.inclusion_holds(leaf, index, size, changed, root)),
        (proof, lambda changed: tree.consistency_holds(old, size, old_root, root, changed)),
    ]:
        if steps:
            place = data.draw(st.integers(0, len(steps) - 1))
            flipped = bytes([steps[place][0] ^ 1]) + steps[place][1:]
            assert not holds([*steps[:place], flipped, *steps[place + 1 :]])
            assert not holds([*steps[:place], *steps[place + 1 :]])


def test_a_proof_reads_as_many_nodes_as_the_tree_is_high():
    class Deep:
        reads = 0

        def read(self, nodes):
            self.reads += len(nodes)
            return [bytes(32)] * len(nodes)

    size = 10**9 + 7
    for index in [0, 1, size // 3, size - 2, size - 1]:
        for spans in [tree.inclusion_spans(index, size), tree.consistency_spans(index + 1, size)]:
            deep = Deep()
            tree.read_spans(spans, deep.read)
            assert deep.reads <= 2 * size.bit_length()


def test_what_is_not_in_the_log_has_no_proof():
    with pytest.raises(ValueError, match="no leaf 3 in a tree of 3"):
        tree.inclusion_spans(3, 3)
    with pytest.raises(ValueError, match="does not go on"):
        tree.consistency_spans(4, 3)
