"""Settings say what is wrong with them before anything runs.
Counterpart: src/vedette/sources/settings.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from vedette.sources.settings import (
    FileSettings,
    JournalSettings,
    Listen,
    SourcesSettings,
    SyslogSettings,
    Transport,
    zone_name,
)


def test_the_defaults_are_a_working_configuration():
    assert SourcesSettings().file == ()
    assert JournalSettings().begin == "end"
    file = FileSettings(paths=("/var/log/auth.log",))
    assert file.begin == "end"
    assert not file.accept_forgeable


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"paths": []}, "at least one"),
        ({"paths": ["auth.log"]}, "not absolute"),
        ({"paths": ["/a"], "timezone": "Mars/Olympus"}, "no such time zone"),
        ({"paths": ["/a"], "poll": "often"}, "poll"),
        ({"paths": ["/a"], "multiline": {"start": "("}}, "RE2"),
        ({"paths": ["/a"], "multiline": {"start": r"(?=x)"}}, "RE2"),
        ({"paths": ["/a"], "max_record": 2048, "multiline": {}}, "max_bytes"),
        ({"paths": ["/a"], "max_record": 1 << 30}, "max_record"),
        ({"paths": ["/a"], "accept_forgable": True}, "accept_forgable"),
    ],
)
def test_what_is_wrong_is_named(words: dict[str, object], said: str):
    with pytest.raises(ValidationError, match=said):
        FileSettings.model_validate(words)


TLS = {"listen": [{"tls": "[::]:6514"}], "certificate": "/c", "key": "/k"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"listen": []}, "at least 1"),
        ({"listen": [{}]}, "one of udp, tcp and tls"),
        ({"listen": [{"udp": "0.0.0.0:514", "tcp": "0.0.0.0:514"}]}, "one of udp, tcp and tls"),
        ({"listen": [{"udp": "514"}]}, "ADDRESS:PORT"),
        ({"listen": [{"udp": "0.0.0.0:70000"}]}, "ADDRESS:PORT"),
        ({"listen": [{"udp": "localhost:514"}]}, "not looked up"),
        ({"listen": [{"udp": "[::1]:514"}, {"udp": "[0::1]:514"}]}, "twice"),
        ({"listen": [{"tls": "0.0.0.0:6514"}]}, "needs certificate and key"),
        ({**TLS, "key": ""}, "belong together"),
        ({**TLS, "certificate": "c"}, "not absolute"),
        ({"listen": [{"udp": "0.0.0.0:514"}], "certificate": "/c", "key": "/k"}, "for `listen: tls`"),
        ({"listen": [{"udp": "0.0.0.0:514"}], "client_ca": "/a"}, "for `listen: tls`"),
        ({**TLS, "require_client": True}, "client_ca"),
        ({**TLS, "accept_forgeable": True}, "never block"),
        ({"listen": [{"udp": "0.0.0.0:514"}], "accept_forgeable": True}, "never block"),
    ],
)
def test_what_is_wrong_with_syslog_is_named(words: dict[str, object], said: str):
    with pytest.raises(ValidationError, match=said):
        SyslogSettings.model_validate(words)


def test_syslog_may_block_where_clients_are_known():
    made = SyslogSettings.model_validate({**TLS, "client_ca": "/a", "accept_forgeable": True})
    assert made.places == (Listen(Transport.TLS, "::", 6514),)
    assert SourcesSettings(syslog=made).names_logs
    assert not SourcesSettings().names_logs


def test_the_zone_of_this_host_is_one_that_exists(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", ":Europe/Berlin")
    assert zone_name("local") == "Europe/Berlin"
    monkeypatch.setenv("TZ", "nonsense")
    assert zone_name("local") == "UTC"
    assert zone_name("Asia/Tokyo") == "Asia/Tokyo"
    monkeypatch.delenv("TZ")
    monkeypatch.setattr(Path, "resolve", lambda path: Path("/usr/share/zoneinfo/posix/America/Lima"))
    assert zone_name("local") == "America/Lima"
