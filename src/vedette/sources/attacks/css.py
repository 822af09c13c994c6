"""XML that programs wrote, and CSS selectors asked of it: read without entities, bounded in size.
Counterpart: `steps` refuses a selector that is none, `expect` and `evidence` look into the files."""

from __future__ import annotations

from functools import lru_cache
from xml.etree import ElementTree

XML_LIMIT = 8 * 1024 * 1024


@lru_cache(256)
def selector(css: str) -> str:
    """A CSS selector as XPath 1.0; ValueError where it is none, or can match nothing in a file."""
    import elementpath
    from cssselect import GenericTranslator
    from cssselect.parser import SelectorError

    try:
        path = GenericTranslator().css_to_xpath(css)
        # What is a selector and no path for us: prefixes of namespaces, which nothing declares.
        elementpath.XPath2Parser().parse(path)
    except (SelectorError, elementpath.ElementPathError) as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # What cssselect makes of `:hover` and the like: a test that is never true.
    if "[0]" in path:
        raise ValueError(f"{css!r} can match nothing in a file")
    return path


def parse_xml(raw: bytes) -> ElementTree.Element:
    """The root of a document; ValueError where it is none, too large or declares entities."""
    if len(raw) > XML_LIMIT:
        raise ValueError(f"larger than {XML_LIMIT} bytes")
    if b"<!ENTITY" in raw or raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in raw[:4]:
        raise ValueError("declares entities, or is not in UTF-8")
    try:
        return ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"is no XML: {error}") from None


def has(root: ElementTree.Element, css: str) -> bool:
    """Whether an element is there that `css` selects; ValueError where the document is nested too deeply to tell."""
    import elementpath

    try:
        found = elementpath.select(root, selector(css))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return bool(found)
