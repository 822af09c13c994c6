"""What a person sets about receivers, retries, heartbeat and the pager's answers; pure data, opens nothing.
Counterpart: `receivers` builds the notifiers from it, `outbox` reads rates, fallbacks and limits."""

from __future__ import annotations

import ssl
from email.headerregistry import Address
from ipaddress import ip_address
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from vedette.model.clock import HOUR, SECOND
from vedette.system.secrets import Secret
from vedette.text.times import parse_duration, positive_duration
from vedette.text.urls import check_url, is_loopback


def _mail_address(text: str) -> str:
    mail_address(text)
    return text


def mail_address(text: str) -> Address:
    """`user@domain` or `Name <user@domain>`, ASCII address; ValueError where it is none."""
    name, bracket, rest = text.rpartition("<")
    spec = rest.removesuffix(">") if bracket else text
    if bracket and not rest.endswith(">"):
        raise ValueError(f"{text!r} is not a mail address")
    if not text.isprintable() or not spec.isascii() or any(character in spec for character in ' <>,;:"()[]\\'):
        raise ValueError(f"{text!r} is not a mail address")
    user, at, domain = spec.rpartition("@")
    if not (at and user and domain) or "@" in user:
        raise ValueError(f"{text!r} is not a mail address: write user@domain")
    return Address(display_name=name.strip().strip('"'), username=user, domain=domain)


NEVER = "never"


def _every(text: str) -> str:
    if text != NEVER and parse_duration(text) < HOUR:
        raise ValueError(f"{text!r}: at least 1h, or `{NEVER}`")
    return text


Duration = Annotated[str, AfterValidator(positive_duration)]
Url = Annotated[str, AfterValidator(check_url)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
ReceiverName = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$")]


class _Settings(BaseModel):
    # An error never repeats what was written: it may be a secret in the wrong place.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Rate(_Settings):
    """At most `per_minute` calls in ANY 60 seconds, `burst` of them at once (0: a fifth of them)."""

    per_minute: int = Field(default=60, ge=2, le=6000)
    burst: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _burst_fits(self) -> Self:
        if self.burst >= self.per_minute:
            raise ValueError("burst must be less than per_minute")
        return self

    @property
    def at_once(self) -> int:
        """`burst` with 0 decided."""
        return self.burst or max(self.per_minute // 5, 1)

    @property
    def interval(self) -> int:
        """Microseconds between calls once the burst is used up: burst + a minute of these = per_minute."""
        return -(-60 * SECOND // (self.per_minute - self.at_once))


class Fallback(_Settings):
    """Tell `receiver` the same when this one could not be told within `after`."""

    receiver: ReceiverName
    after: Duration = "10m"


class _Receiver(_Settings):
    fallback: Fallback | None = None
    rate: Rate = Rate()
    timeout: Duration = "15s"

    @property
    def timeout_seconds(self) -> float:
        """How long one attempt may take, seconds."""
        return parse_duration(self.timeout) / SECOND


class TlsTrust(_Settings):
    """Which authorities to trust: those of the system, or `ca_file` alone. Host names are always checked."""

    ca_file: str = ""

    def context(self) -> ssl.SSLContext:
        """A fresh client context; OSError or ssl.SSLError where ca_file cannot be used."""
        return ssl.create_default_context(cafile=self.ca_file or None)


class EmailSettings(_Receiver):
    """E-mail over SMTP.

    security: `starttls` (required, not merely tried), `tls` (from the first byte), `none` (plain; to this
    machine only), `auto` = starttls, but plain to this machine. port 0: 465 for tls, 25 on this machine, else 587.
    ledger_head: digests carry the ledger's head, and one goes out at least so often; `never` = none do.
    """

    type: Literal["email"] = "email"
    host: str = Field(default="localhost", min_length=1, pattern=r"^[A-Za-z0-9_.:\[\]-]+$")
    port: int = Field(default=0, ge=0, le=65535)
    security: Literal["auto", "starttls", "tls", "none"] = "auto"
    username: str = ""
    password: Secret | None = None
    sender: MailAddress = Field(default="Vedette <vedette@localhost>", alias="from")
    to: tuple[MailAddress, ...] = Field(min_length=1, max_length=50)
    trust: TlsTrust = TlsTrust()
    digest_interval: Duration = "1h"
    ledger_head: Annotated[str, AfterValidator(_every)] = "24h"

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if bool(self.username) != bool(self.password):
            raise ValueError("username and password belong together")
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError("mail leaves this machine encrypted only: security starttls or tls")
        return self

    @property
    def mode(self) -> Literal["starttls", "tls", "none"]:
        """`security` with `auto` decided."""
        if self.security != "auto":
            return self.security
        return "none" if is_loopback(self.host) else "starttls"

    @property
    def effective_port(self) -> int:
        """`port`, or the usual one for where and how."""
        if self.port:
            return self.port
        if self.mode == "tls":
            return 465
        return 25 if is_loopback(self.host) else 587


class PagerDutySettings(_Receiver):
    """PagerDuty Events API v2. PagerDuty takes about 120 calls a minute and key; we keep to 100."""

    type: Literal["pagerduty"] = "pagerduty"
    routing_key: Secret
    url: Url = "https://events.pagerduty.com/v2/enqueue"
    rate: Rate = Rate(per_minute=100)
    trust: TlsTrust = TlsTrust()


class WebhookSettings(_Receiver):
    """Alertmanager's webhook JSON (version 4) to `url`. secret: signs the body, `X-Vedette-Signature: v1=<hex>`."""

    type: Literal["webhook"] = "webhook"
    url: Url | Secret
    secret: Secret | None = None
    trust: TlsTrust = TlsTrust()


class AppriseSettings(_Receiver):
    """Whatever apprise can reach. url: an apprise URL, which holds its credentials."""

    type: Literal["apprise"] = "apprise"
    url: Secret
    timeout: Duration = "30s"


Receiver = Annotated[EmailSettings | PagerDutySettings | WebhookSettings | AppriseSettings, Field(discriminator="type")]


class HeartbeatSettings(_Settings):
    """Call `url` every `interval`, as long as the engine committed or looped within `stale_after`."""

    url: Url | Secret
    method: Literal["GET", "POST"] = "GET"
    interval: Duration = "1m"
    stale_after: Duration = "2m"
    timeout: Duration = "10s"
    trust: TlsTrust = TlsTrust()


class DrillSettings(_Settings):
    """Every `interval` a page and its end go to `receiver`: a service of one's own that wakes nobody."""

    receiver: ReceiverName
    interval: Duration = "24h"


class PagerDutyWebhookSettings(_Settings):
    """The listener for PagerDuty's webhooks v3. It answers only requests signed with one of `secrets`."""

    listen: str = "127.0.0.1"
    port: int = Field(default=8470, ge=0, le=65535)
    path: str = Field(default="/pagerduty", pattern=r"^/[A-Za-z0-9_./-]{0,200}$")
    secrets: tuple[Secret, ...] = Field(min_length=1, max_length=4)
    certificate: str = ""
    key: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        ip_address(self.listen)
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key belong together")
        return self


class NotifySettings(_Settings):
    """Everything about telling people.

    keep_trying: how old an item may get before it counts as failed.
    """

    receivers: dict[ReceiverName, Receiver] = {}
    keep_trying: Duration = "7d"
    heartbeat: HeartbeatSettings | None = None
    pagerduty_webhook: PagerDutyWebhookSettings | None = None
    drill: DrillSettings | None = None

    @model_validator(mode="after")
    def _drill_goes_somewhere(self) -> Self:
        if self.drill is not None and self.drill.receiver not in self.receivers:
            raise ValueError(f"drill: {self.drill.receiver} is not a receiver")
        return self

    @model_validator(mode="after")
    def _fallbacks_lead_somewhere(self) -> Self:
        for start in self.receivers:
            seen = [start]
            while (fallback := self.receivers[seen[-1]].fallback) is not None:
                if fallback.receiver not in self.receivers:
                    raise ValueError(f"receiver {seen[-1]}: its fallback {fallback.receiver} is not a receiver")
                if fallback.receiver in seen:
                    raise ValueError(f"receiver {start}: fallbacks go in a circle: {' -> '.join(seen)}")
                seen.append(fallback.receiver)
        return self
