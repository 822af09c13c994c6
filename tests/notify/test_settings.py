from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vedette.notify.settings import (
    EmailSettings,
    HeartbeatSettings,
    NotifySettings,
    PagerDutySettings,
    PagerDutyWebhookSettings,
    Rate,
    WebhookSettings,
    mail_address,
)

MAIL = {"type": "email", "to": ["ops@example.org"]}
PAGER = {"type": "pagerduty", "routing_key": {"env": "KEY"}}


def test_nothing_set_is_a_configuration():
    settings = NotifySettings()
    assert settings.receivers == {}
    assert settings.heartbeat is None
    assert settings.pagerduty_webhook is None


def test_type_chooses_the_kind_of_receiver():
    settings = NotifySettings.model_validate(
        {
            "receivers": {
                "mail": MAIL,
                "pager": PAGER | {"fallback": {"receiver": "mail", "after": "5m"}},
                "hook": {"type": "webhook", "url": "https://example.org/hook", "secret": {"env": "S"}},
                "hidden": {"type": "webhook", "url": {"file": "/etc/vedette/hook"}},
                "chat": {"type": "apprise", "url": {"env": "CHAT"}},
            }
        }
    )
    assert [type(one).__name__ for one in settings.receivers.values()] == [
        "EmailSettings",
        "PagerDutySettings",
        "WebhookSettings",
        "WebhookSettings",
        "AppriseSettings",
    ]
    pager = settings.receivers["pager"]
    assert isinstance(pager, PagerDutySettings)
    assert pager.rate.per_minute == 100


@pytest.mark.parametrize(
    ("receivers", "said"),
    [
        ({"mail": MAIL | {"typo": 1}}, "typo"),
        ({"mail": {"type": "pigeon"}}, "pigeon"),
        ({"bad name\n": MAIL}, "pattern"),
        ({"mail": MAIL | {"to": []}}, "at least 1"),
        ({"mail": MAIL | {"to": ["nobody"]}}, "not a mail address"),
        ({"mail": MAIL | {"to": ["a@b\r\nBcc: c@d"]}}, "not a mail address"),
        ({"mail": MAIL | {"host": "mail.example.org", "security": "none"}}, "encrypted only"),
        ({"mail": MAIL | {"username": "u"}}, "belong together"),
        ({"mail": MAIL | {"timeout": "soon"}}, "not a duration"),
        ({"mail": MAIL | {"timeout": "0s"}}, "above zero"),
        ({"mail": MAIL | {"rate": {"per_minute": 5, "burst": 5}}}, "burst must be less"),
        ({"pager": PAGER | {"url": "http://events.example.org/"}}, "use https"),
        ({"pager": PAGER | {"url": "https://exa mple.org/"}}, "neither spaces"),
        ({"pager": {"type": "pagerduty", "routing_key": "plain"}}, "routing_key"),
        ({"pager": PAGER | {"fallback": {"receiver": "mail"}}}, "is not a receiver"),
        (
            {
                "one": PAGER | {"fallback": {"receiver": "two"}},
                "two": PAGER | {"fallback": {"receiver": "one"}},
            },
            "in a circle",
        ),
    ],
)
def test_what_cannot_work_is_refused(receivers: dict[str, Any], said: str):
    with pytest.raises(ValidationError) as caught:
        NotifySettings.model_validate({"receivers": receivers})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("values", "mode", "port"),
    [
        ({}, "none", 25),
        ({"host": "127.0.0.1", "port": 2525}, "none", 2525),
        ({"host": "mail.example.org"}, "starttls", 587),
        ({"host": "mail.example.org", "security": "tls"}, "tls", 465),
        ({"host": "localhost", "security": "starttls"}, "starttls", 25),
        ({"host": "localhost.evil.example"}, "starttls", 587),
    ],
)
def test_mail_is_encrypted_unless_it_stays_here(values: dict[str, Any], mode: str, port: int):
    settings = EmailSettings.model_validate(MAIL | values)
    assert (settings.mode, settings.effective_port) == (mode, port)


def test_mail_addresses():
    address = mail_address('"Vedette, web01" <vedette@example.org>')
    assert (address.display_name, address.addr_spec) == ("Vedette, web01", "vedette@example.org")
    assert mail_address("ops@example.org").addr_spec == "ops@example.org"
    for wrong in ("", "a", "@b", "a@", "a@b@c", "a b@c", "<a@b", "A <a@b> B", "ä@b", "a@b,c@d"):
        with pytest.raises(ValueError, match="not a mail address"):
            mail_address(wrong)


def test_a_secret_url_is_not_repeated_in_an_error():
    with pytest.raises(ValidationError) as caught:
        WebhookSettings.model_validate({"type": "webhook", "url": "http://hooks.example.org/T0KEN"})
    assert "use https" in str(caught.value)
    assert "T0KEN" not in str(caught.value)


def test_the_listener_needs_a_secret_and_an_address():
    good = {"secrets": [{"env": "HOOK"}]}
    assert PagerDutyWebhookSettings.model_validate(good).listen == "127.0.0.1"
    for wrong in ({"secrets": []}, good | {"listen": "everywhere"}, good | {"key": "k"}, good | {"path": "x"}):
        with pytest.raises(ValidationError):
            PagerDutyWebhookSettings.model_validate(wrong)


def test_heartbeat_and_rate_defaults():
    assert HeartbeatSettings.model_validate({"url": "https://beat.example.org/x"}).interval == "1m"
    assert Rate().at_once == 12
    assert Rate(per_minute=2).at_once == 1
