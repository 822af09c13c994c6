from hypothesis import given
from hypothesis import strategies as st

from vedette.model.batch import split_lines


@given(st.binary(max_size=200).map(lambda raw: raw.replace(b"\x0b", b"\n").replace(b"\x0c", b"\r\n")))
def test_lines_are_as_bytes_split_gives_them(block: bytes) -> None:
    starts, ends = split_lines(block)
    lines = block.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    expected = [line[:-1] if line.endswith(b"\r") else line for line in lines]
    assert [block[a:b] for a, b in zip(starts, ends, strict=True)] == expected
