"""Merkle trees of RFC 9162, section 2.1: hashes, roots, proofs of inclusion and consistency; pure.
Counterpart: `store.ledger.ledger` keeps the nodes; the tests hold every function to the RFC's own recursion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256

HASH_SIZE = 32
EMPTY = sha256(b"").digest()
LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"

Node = tuple[int, int]
"""(level, index): the complete subtree over leaves index << level up to (index + 1) << level."""

Span = tuple[int, int]
"""(start, end) of leaves, end not included."""

Reader = Callable[[Sequence[Node]], Sequence[bytes]]
"""Gives the hashes of these nodes, in this order."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf (RFC 9162, 2.1.1)."""
    return sha256(LEAF_PREFIX + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees (RFC 9162, 2.1.1)."""
    return sha256(NODE_PREFIX + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over neighbouring complete subtrees, largest first."""
    if not hashes:
        return EMPTY
    found = hashes[-1]
    for left in reversed(hashes[:-1]):
        found = node_hash(left, found)
    return found


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes held in memory."""
    if not hashes:
        return EMPTY
    level = list(hashes)
    while len(level) > 1:
        # Without the call of node_hash: this runs once a record.
        upper = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            upper.append(level[-1])
        level = upper
    return level[0]


def path_in(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The inclusion proof of leaf `index` among leaf hashes held in memory."""
    path, level = [], list(hashes)
    while len(level) > 1:
        if (sibling := index ^ 1) < len(level):
            path.append(level[sibling])
        upper = [node_hash(*pair) for pair in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            upper.append(level[-1])
        level, index = upper, index >> 1
    return path


def cover(start: int, end: int) -> list[Node]:
    """The complete subtrees of a span that the tree itself cuts out, largest first."""
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def grow(frontier: Sequence[tuple[Node, bytes]], size: int, hashes: Iterable[bytes]) -> list[tuple[Node, bytes]]:
    """Every node that is complete once these leaves stand behind `size` others; leaves are nodes of level 0.

    frontier: `cover(0, size)` with its hashes.
    """
    edge = [(level, found) for (level, _), found in frontier]
    made = []
    for found in hashes:
        level, index = 0, size
        made.append(((0, index), found))
        while edge and edge[-1][0] == level:
            found = node_hash(edge.pop()[1], found)
            level, index = level + 1, index >> 1
            made.append(((level, index), found))
        edge.append((level, found))
        size += 1
    return made


def roots_at(hashes: Iterable[bytes], sizes: Collection[int]) -> dict[int, bytes]:
    """The roots of the trees over the first `size` leaf hashes, for each size there is; in one pass."""
    edge: list[tuple[int, bytes]] = []
    wanted = set(sizes)
    found = {0: EMPTY} if 0 in wanted else {}
    for size, one in enumerate(hashes, start=1):
        level = 0
        while edge and edge[-1][0] == level:
            one = node_hash(edge.pop()[1], one)
            level += 1
        edge.append((level, one))
        if size in wanted:
            found[size] = fold([held for _, held in edge])
    return found


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Which subtrees make the inclusion proof of leaf `index` in a tree of `size` (RFC 9162, 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    spans, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            spans.append((middle, high))
            high = middle
        else:
            spans.append((low, middle))
            low = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """Which subtrees prove that a tree of `new` goes on from its first `old` leaves (RFC 9162, 2.1.4.1)."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} does not go on from one of {old}")
    if old == 0:
        return []
    spans, low, high, whole = [], 0, new, True
    while old != high - low:
        half = _split(high - low)
        if old <= half:
            spans.append((low + half, high))
            high = low + half
        else:
            spans.append((low, low + half))
            low, old, whole = low + half, old - half, False
    if not whole:
        spans.append((low, high))
    return spans[::-1]


def _split(width: int) -> int:
    """The largest power of two below `width`."""
    return 1 << ((width - 1).bit_length() - 1)


def read_spans(spans: Sequence[Span], read: Reader) -> list[bytes]:
    """The hash of each span; at most 2 log2(size) nodes are read, all at once."""
    covers = [cover(*span) for span in spans]
    hashes = iter(read([node for nodes in covers for node in nodes]))
    return [fold([next(hashes) for _ in nodes]) for nodes in covers]


def read_root(size: int, read: Reader) -> bytes:
    """The root of the first `size` leaves."""
    return fold(read(cover(0, size)))


def inclusion_holds(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves that the leaf hash stands at `index` in the tree of `size` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(step, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, step)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def consistency_holds(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree of `new` goes on from the tree of `old` (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node_hash(after, step)
        place, last = place >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root
