"""The settings of the rules: which run, and the few numbers of our packs that an operator may choose.
Counterpart: `config` composes them under `rules:`, `loading` resolves the packs' `${...}` from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from vedette.model.rules import NotifyStep
from vedette.rules.parameters import Parameter
from vedette.text.addresses import parse_network
from vedette.text.times import positive_duration


class Attempts(BaseModel):
    """DenyHosts' thresholds: how many failures of one address in a day, by whom it tried to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unknown_user: int = Field(
        default=5, ge=1, description="failures for users that do not exist (DENY_THRESHOLD_INVALID)"
    )
    known_user: int = Field(
        default=10, ge=1, description="failures for users that exist, root apart (DENY_THRESHOLD_VALID)"
    )
    root: int = Field(default=1, ge=1, description="failures for root (DENY_THRESHOLD_ROOT)")


class SshRules(BaseModel):
    """What the pack `ssh` may be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: Attempts | None = Field(
        default=None, description="given: the three rules that count as DenyHosts does are on; `{}` takes its defaults"
    )
    gateways: tuple[str, ...] = Field(
        default=(), description="addresses or prefixes people log in from; given: a login from elsewhere is a finding"
    )

    unattended: tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")], ...] = Field(
        default=(),
        description="USER@HOST, either may be *: logins that programs on that host make",
    )

    @field_validator("gateways")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(parse_network(text)) for text in value)


class RulesSettings(BaseModel):
    """`rules:` of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    packs: bool = Field(default=True, description="our own packs run")
    paths: tuple[Path, ...] = Field(default=(), description="rule files and folders besides")
    pipelines: tuple[str, ...] = Field(
        default=(), description="pySigma pipelines applied to the rules in `paths`: names of ours, or files"
    )
    placeholders: dict[str, tuple[str | int, ...]] = Field(
        default={}, description="what stands for a %name% in other people's rules (modifier expand)"
    )
    steps: dict[str, NotifyStep] = Field(
        default={}, description="rule id -> store, digest, mail or page: how far its alerts may go"
    )
    page_budget: int | None = Field(
        default=None, ge=1, description="incidents one rule may open on the pager in a day; then it goes by mail"
    )
    self_test: Annotated[str, AfterValidator(positive_duration)] | None = Field(
        default="24h", description="how often the case beside each rule is tried in service; null: never"
    )
    ssh: SshRules = SshRules()


def parameters(settings: RulesSettings) -> dict[str, Parameter]:
    """Every parameter by its name, which is its place under `rules:`."""
    attempts = settings.ssh.attempts
    return {
        "ssh.attempts.unknown_user": attempts.unknown_user if attempts else None,
        "ssh.attempts.known_user": attempts.known_user if attempts else None,
        "ssh.attempts.root": attempts.root if attempts else None,
        "ssh.gateways": settings.ssh.gateways or None,
    }
