from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.text import addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.01", None),
        ("0300.0.2.1", None),
        ("192.0.2", None),
        ("192.0.2.1 ", None),
        ("192.0.2.1\n", None),
        ("١٩٢.0.2.1", None),
        ("", None),
        ("UNKNOWN", None),
        ("1" * 10_000, None),
    ],
)
def test_canonical(text: str, expected: str | None) -> None:
    assert addresses.canonical(text) == expected


@given(st.ip_addresses())
def test_canonical_is_stable(address: object) -> None:
    once = addresses.canonical(str(address))
    assert once is not None
    assert addresses.canonical(once) == once


@given(st.from_regex(r"[0-9.:a-f%\x00 ]{0,20}", fullmatch=True))
def test_the_quick_way_is_the_careful_way(text: str) -> None:
    careful = addresses.parse(text)
    assert addresses.canonical(text) == (None if careful is None else str(careful))


@given(st.text(max_size=60))
def test_whatever_is_taken_is_an_address(text: str) -> None:
    found = addresses.canonical(text)
    assert found is None or str(ip_address(found)) == found


def test_prefix() -> None:
    assert addresses.prefix("198.51.100.77", 24, 64) == "198.51.100.0/24"
    assert addresses.prefix("2001:db8:1:2:3::9", 24, 64) == "2001:db8:1:2::/64"
    with pytest.raises(ValueError, match="not an address"):
        addresses.prefix("web03", 24, 64)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/8/9", "name/8", "2001:db8::/129"])
def test_bad_networks_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"number|not an address|does not fit"):
        addresses.parse_network(text)


def test_networks() -> None:
    assert str(addresses.parse_network("10.1.2.3/8")) == "10.0.0.0/8"
    assert str(addresses.parse_network("::ffff:198.51.100.0/120")) == "198.51.100.0/24"
    assert str(addresses.parse_network("192.0.2.1")) == "192.0.2.1/32"
    networks = [addresses.parse_network("10.0.0.0/8"), addresses.parse_network("2001:db8::/32")]
    assert addresses.contains(networks, "::ffff:10.9.9.9")
    assert addresses.contains(networks, "2001:db8:f::1")
    assert not addresses.contains(networks, "192.0.2.1")
    assert not addresses.contains(networks, "not an address")
