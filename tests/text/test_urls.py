"""Which URLs a person may set.
Counterpart: src/vedette/text/urls.py."""

from __future__ import annotations

import pytest

from vedette.text.urls import check_url, is_loopback


@pytest.mark.parametrize("url", ["https://a.example/x", "http://127.0.0.1:80/", "http://[::1]/", "http://x.localhost/"])
def test_https_goes_anywhere_and_plain_http_to_this_machine(url: str):
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url", ["http://a.example/", "ftp://a.example/", "https:///x", "https://a b/", "https://a/\x1b", "https://a:99999/"]
)
def test_what_would_leak_or_cannot_be_meant_is_refused_without_being_repeated(url: str):
    with pytest.raises(ValueError, match=r"URL|https") as refused:
        check_url(url)
    assert url not in str(refused.value)


def test_what_only_looks_like_this_machine_is_not():
    assert not is_loopback("localhost.example")
    assert not is_loopback("127.0.0.1.example")
    assert is_loopback("[::1]")
