from __future__ import annotations

import errno
import socket
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from vedette.app import reading
from vedette.app.counters import Counters
from vedette.app.reading import Reading, check_listening, open_listeners, plan_sources
from vedette.model.errors import ConfigError, StateError
from vedette.sources.discover import Discovery, Lack, Lacking
from vedette.sources.file import FileSource
from vedette.sources.ports.source import PortsSource
from vedette.sources.settings import FileSettings, Listen, SourcesSettings, Transport
from vedette.sources.stdin import StdinSource
from vedette.sources.syslog import SyslogSource
from vedette.sources.syslog_sockets import Listeners, hint_of
from vedette.testing.clock import FakeClock


def plan(cursors: dict[str, str] | None = None, **settings: object) -> Reading:
    made = SourcesSettings.model_validate(settings)
    return plan_sources(made, "host-1", FakeClock(), Counters(), cursors or {})


def test_what_is_configured_is_read_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "discover", lambda: pytest.fail("nobody asked for it"))
    made = plan(file=[{"paths": ["/var/log/auth.log", "/srv/*/auth.log"]}, {"paths": ["/var/log/secure"]}], stdin={})
    assert [type(source) for source in made.sources] == [FileSource, FileSource, StdinSource]
    assert made.lines == [
        "reads: /var/log/auth.log, /srv/*/auth.log",
        "reads: /var/log/secure",
        "reads: standard input",
    ]
    assert not made.accept_forgeable("file:/var/log/auth.log")


def test_only_the_sources_that_say_so_may_block_and_it_is_called_a_risk():
    made = plan(file=[{"paths": ["/srv/*/auth.log"], "accept_forgeable": True}, {"paths": ["/var/log/auth.log"]}])
    assert made.accept_forgeable("file:/srv/web/auth.log")
    assert not made.accept_forgeable("file:/var/log/auth.log")
    assert not made.accept_forgeable("stdin")
    assert not made.accept_forgeable("/srv/web/auth.log")
    assert [line for line in made.lines if line.startswith("risk:")] == [
        "risk: file:/srv/*/auth.log may cause blocks, though any local user can write such records"
    ]


def test_standard_input_that_may_block(monkeypatch: pytest.MonkeyPatch):
    made = plan(stdin={"accept_forgeable": True})
    assert made.accept_forgeable("stdin")
    assert not made.accept_forgeable("stdin2")


def test_nothing_configured_reads_what_the_host_has_and_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch):
    found = Discovery(
        None,
        FileSettings(paths=("/var/log/auth.log",)),
        (
            Lacking(Lack.JOURNAL_ABSENT, "/var/log/journal", "start systemd-journald"),
            Lacking(Lack.NOTHING_TO_READ, "", "name a log"),
        ),
    )
    monkeypatch.setattr(reading, "discover", lambda: found)
    made = plan()
    assert [type(source) for source in made.sources] == [FileSource]
    assert made.lines == [
        "lacks: journal absent (/var/log/journal); start systemd-journald",
        "lacks: nothing to read; name a log",
        "reads: /var/log/auth.log",
    ]
    assert not made.accept_forgeable("file:/var/log/auth.log")


async def test_a_cursor_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "auth.log"
    path.touch()
    made = plan({f"file:{path}": '{"name":"file-cursor","version":99}'}, file=[{"paths": [str(path)]}])

    async def emit(_batch):
        pytest.fail("nothing may be read from a place that is not understood")

    with pytest.raises(StateError):
        await made.sources[0].run(emit)


def test_ports_are_watched_beside_the_logs_that_were_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(reading, "discover", lambda: Discovery(None, FileSettings(paths=("/var/log/secure",)), ()))
    policy = tmp_path / "ports.yml"
    policy.write_text("version: 1\nown_networks: [192.0.2.0/24]\nhosts: {web: {addresses: [192.0.2.1]}}\n")
    made = plan(ports={"policy": str(policy)})
    assert [type(source) for source in made.sources] == [FileSource, PortsSource]
    assert made.lines[-1] == f"watches: ports of 1 hosts, as {policy} says"
    policy.write_text("version: 1\nown_networks: [192.0.2.0/24]\nhostz: {}\n")
    with pytest.raises(ConfigError, match="hostz: is not a key"):
        plan(ports={"policy": str(policy)})
    policy.write_text("version: 1\nown_networks: [192.0.2.0/24]\nhosts: {web: {addresses: [192.0.2.1]}}\n")
    with pytest.raises(ConfigError, match="no vantage office"):
        plan(ports={"policy": str(policy), "vantage": "office"})


def test_what_is_listened_on_is_said_with_its_port_and_what_cannot_be_is_lacking(tmp_path: Path):
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with socket.create_server(("127.0.0.1", 0)) as taken, closing(Listeners()) as listeners:
        port = taken.getsockname()[1]
        settings = SourcesSettings.model_validate(
            {
                "syslog": {
                    "listen": [{"udp": "[::1]:0"}, {"tls": "127.0.0.1:0"}, {"tcp": f"127.0.0.1:{port}"}],
                    "certificate": f"{tmp_path}/server.pem",
                    "key": f"{tmp_path}/server.pem",
                    "client_ca": f"{tmp_path}/ca.pem",
                    "accept_forgeable": True,
                }
            }
        )
        assert settings.syslog is not None
        open_listeners(settings, listeners)
        ports = [listeners.open(place).getsockname()[1] for place in settings.syslog.places[:2]]
        reading = plan_sources(settings, "host-1", FakeClock(), Counters(), {}, listeners=listeners)
        assert [type(source) for source in reading.sources] == [SyslogSource], "what is named is what is read"
        assert reading.lines == [
            f"listens: udp [::1]:{ports[0]} (syslog)",
            f"listens: tls 127.0.0.1:{ports[1]} (syslog)",
            f"lacks: syslog by tcp 127.0.0.1 port {port}: Address already in use; "
            "another program listens there: stop it, or name another port",
            "risk: syslog:tls/* may cause blocks, though whoever holds such a certificate can write such records",
        ]
        assert reading.accept_forgeable("syslog:tls/web1")
        assert not reading.accept_forgeable("syslog:tls-anonymous/192.0.2.1")
        (tmp_path / "ca.pem").unlink()
        with pytest.raises(ConfigError, match=r"ca\.pem"):
            check_listening(settings.syslog)


def test_who_posts_is_listened_to_by_token(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHOP", "a-token-of-the-shop")
    named = {"tokens": [{"name": "shop", "token": {"env": "SHOP"}}], "accept_forgeable": True}
    settings = SourcesSettings.model_validate(
        {
            "http": {"listen": [{"tcp": "0.0.0.0:0"}], **named},
            "otlp": {"listen": [{"tcp": "127.0.0.1:0"}], "anonymous": True},
        }
    )
    with closing(Listeners()) as listeners:
        open_listeners(settings, listeners)
        ports = [listeners.open(place).getsockname()[1] for place in settings.places]
        reading = plan_sources(settings, "host-1", FakeClock(), Counters(), {}, listeners=listeners)
    assert [source.name for source in reading.sources] == ["http", "otlp"], "what is named is what is read"
    assert reading.lines == [
        "risk: tokens of http come unencrypted: listen by tls",
        f"listens: tcp 0.0.0.0:{ports[0]} (http)",
        f"listens: tcp 127.0.0.1:{ports[1]} (otlp)",
        "risk: http:token/* may cause blocks, though whoever holds such a token can write such records",
    ]
    assert reading.accept_forgeable("http:token/shop")
    assert not reading.accept_forgeable("http:anonymous/192.0.2.1")
    monkeypatch.delenv("SHOP")
    for listening in settings.listening[:1]:
        with pytest.raises(ConfigError, match="SHOP is not set"):
            check_listening(listening)


@pytest.mark.parametrize(
    ("port", "error", "said"),
    [
        (514, errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (5514, errno.EACCES, "sources.relp.listen"),
        (514, errno.EADDRNOTAVAIL, "no such address"),
    ],
)
def test_how_to_mend_that_there_is_no_listening(port: int, error: int, said: str):
    assert said in hint_of(Listen(Transport.UDP, "192.0.2.1", port), OSError(error, "words"), "relp")
