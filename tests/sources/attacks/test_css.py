"""CSS selectors asked of XML that programs wrote, hostile documents too.
Counterpart: vedette.sources.attacks.css."""

from __future__ import annotations

import pytest

from vedette.sources.attacks import css
from vedette.sources.attacks.css import has, parse_xml, selector

XML = b"""<?xml version="1.0"?><!DOCTYPE nmaprun>
<nmaprun><host><ports><port protocol="tcp" portid="80"><state state="open"/></port>
<port protocol="tcp" portid="443"><state state="closed"/></port></ports></host>
<testcase name="Http200Check"><failure>code was 302</failure></testcase></nmaprun>"""


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ('ports port[protocol="tcp"][portid="80"] state[state="open"]', True),
        ('ports port[portid="443"] state[state="open"]', False),
        ('port[portid="80"] + port[portid="443"] > state', True),
        ('testcase[name="Http200Check"] failure', True),
        ('failure:contains("302")', True),
        ("port:not([portid])", False),
        ("nmaprun", True),
        ("nothing, host", True),
        ("Host", False),
    ],
)
def test_an_element_is_there_or_not(asked: str, there: bool):
    assert has(parse_xml(XML), asked) is there


@pytest.mark.parametrize("asked", ["", "a[", "a::text", "a:hover", "a:nosuch", "$x", "a >", "x|a", "a " * 3000])
def test_what_is_no_selector_or_matches_nothing_in_a_file(asked: str):
    with pytest.raises(ValueError):
        selector(asked)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no xml",
        b"<a>",
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        '<?xml version="1.0" encoding="utf-16"?><a/>'.encode("utf-16"),
        b'<?xml version="1.0" encoding="nosuch"?><a/>',
        b"<a>\xff</a>",
    ],
)
def test_what_is_no_document_we_read(raw: bytes, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError):
        parse_xml(raw)
    monkeypatch.setattr(css, "XML_LIMIT", 20)
    with pytest.raises(ValueError, match="larger"):
        parse_xml(b"<a>" + b" " * 20 + b"</a>")


def test_a_document_that_is_nested_too_deeply_is_none_we_can_tell_of(monkeypatch: pytest.MonkeyPatch):
    def deep(*_: object) -> object:
        raise RecursionError

    monkeypatch.setattr("elementpath.select", deep)
    with pytest.raises(ValueError, match="nested"):
        has(parse_xml(XML), "nmaprun")
