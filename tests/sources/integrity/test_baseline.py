"""What is written comes back as it was, and nothing that is not whole, not ours or newer is believed.
Counterpart: vedette.sources.integrity.baseline."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.model.errors import StateError
from vedette.sources.integrity import baseline as module
from vedette.sources.integrity.baseline import Baseline, BaselineWriter, Footer, Header
from vedette.sources.integrity.digest import Beside, Read

UNSIGNED = st.integers(0, 2**64 - 1)
TIME = st.integers(-(2**63), 2**63 - 1)
READS = st.builds(
    Read,
    st.tuples(UNSIGNED, UNSIGNED, UNSIGNED, UNSIGNED, TIME, TIME, UNSIGNED, UNSIGNED, UNSIGNED),
    st.one_of(st.just(b""), st.binary(min_size=32, max_size=32).filter(any)),
    st.builds(
        Beside,
        st.binary(max_size=5),
        st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=2).map(tuple),
        st.binary(max_size=4),
        st.binary(max_size=4),
        st.sampled_from(["", "denied"]),
    ),
)


def write(path: Path, reads: list[Read], sign: module.Sign | None = None) -> None:
    writer = BaselineWriter(path, Header([b"/t"], [b"/t/x*"], 7, host="h"), sign)
    for number, read in enumerate(reads):
        writer.add(b"/t/%03d" % (number // 3), b"\xff%03d" % number, read)
    writer.finish(Footer(writer.rows, 9, [(b"/t/denied", "denied")]))
    writer.abandon()


@settings(max_examples=25, deadline=None)
@given(reads=st.lists(READS, max_size=12))
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, reads: list[Read]):
    path = tmp_path_factory.mktemp("baseline") / "file"
    together = module._ROWS_TOGETHER
    module._ROWS_TOGETHER = 4  # so that there are several blocks
    try:
        write(path, reads)
    finally:
        module._ROWS_TOGETHER = together
    with Baseline(path) as found:
        assert [row.read for row in found.rows()] == reads
        assert found.footer.rows == len(reads)
        assert found.header.trees == [b"/t"]
        for number, read in enumerate(reads):
            assert found.find(b"/t/%03d" % (number // 3), b"\xff%03d" % number) == read
        assert found.find(b"/t/000", b"none") is None
        assert found.find(b"/", b"none") is None


ONE = [Read((0o100644, 0, 0, 1, 2, 3, 4, 5, 1), b"d" * 32)]


@pytest.mark.parametrize("cut", [1, 20, 34, 35, 100])
def test_one_that_is_cut_short_is_refused(tmp_path: Path, cut: int):
    path = tmp_path / "file"
    write(path, ONE)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(StateError):
        Baseline(path)


def test_one_with_any_byte_changed_is_refused(tmp_path: Path):
    path = tmp_path / "file"
    write(path, ONE)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StateError):
            Baseline(path)


def test_a_newer_version_is_refused_with_a_hint(tmp_path: Path):
    path = tmp_path / "file"
    write(path, ONE)
    path.write_bytes(path.read_bytes().replace(b"baseline 1\n", b"baseline 2\n", 1))
    with pytest.raises(StateError, match=r"newer.*hint"):
        Baseline(path)


def test_what_is_no_baseline_is_refused(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"root:x:0:0\n")
    with pytest.raises(StateError, match="no baseline"):
        Baseline(path)
    with pytest.raises(StateError, match="cannot be read"):
        Baseline(tmp_path / "none")


def test_only_a_signature_of_ours_is_believed(tmp_path: Path):
    path = tmp_path / "file"

    def sign(digest: bytes) -> bytes:
        return hashlib.sha256(b"secret" + digest).digest()

    def check(digest: bytes, signature: bytes) -> bool:
        return sign(digest) == signature

    write(path, ONE, sign)
    Baseline(path, check).close()
    write(path, ONE)
    with pytest.raises(StateError, match="not signed"):
        Baseline(path, check)


def test_one_that_is_given_up_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "file"
    write(path, ONE)
    before = path.read_bytes()
    writer = BaselineWriter(path, Header([b"/"], [], 0))
    writer.add(b"", b"x", ONE[0])
    writer.abandon()
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
