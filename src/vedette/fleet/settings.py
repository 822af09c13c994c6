"""What an operator may say about what leaves a host, and what holds when nothing is said.
Counterpart: `config` composes these into the one file; spool, lanes and masks are made from them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vedette.fleet import messages
from vedette.text.regex import compile_re2
from vedette.text.times import positive_duration

_MIB = 1 << 20


def _pattern(text: str) -> str:
    try:
        pattern = compile_re2(text)
    except ValueError as error:
        raise ValueError(f"not a pattern RE2 can run: {error}") from None
    if re.search(r"(?<!\\)(?:\\\\)*\\[Az]", text):
        raise ValueError("use ^ and $ for the ends of a record")
    if pattern.search("") is not None:
        raise ValueError("matches the empty text, so it would match everywhere")
    return text


Size = Annotated[int, Field(ge=4 * _MIB, le=1 << 44)]


class SpoolSettings(BaseModel):
    """Room on the disk, in bytes. security: for what must not be pushed out by a flood; bulk: for the rest.

    segment: of one file; what has to go goes by files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    security: Size = 256 * _MIB
    bulk: Size = 1024 * _MIB
    segment: Annotated[int, Field(ge=64 * 1024, le=256 * _MIB)] = 8 * _MIB


class LanesSettings(BaseModel):
    """What goes by the security lane. sources: by name, `*` for any text; programs: records of any other source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...] = (
        "*/auth.log",
        "*/secure",
        "*/audit.log",
        "*/sudo.log",
        "*/faillog",
        "findings",
        "decisions",
        "vedette",
        "audit",
        "ports",
        "attacks",
        "integrity",
        "liveness",
    )
    programs: tuple[str, ...] = (
        "sshd",
        "sshd-session",
        "sshd-auth",
        "sudo",
        "su",
        "doas",
        "login",
        "systemd-logind",
        "polkitd",
        "pkexec",
        "audit",
        "auditd",
        "useradd",
        "userdel",
        "usermod",
        "groupadd",
        "groupdel",
        "passwd",
        "chpasswd",
        "cron",
        "CRON",
        "vsftpd",
        "dropbear",
        "vedette",
    )


class HubLostSettings(BaseModel):
    """Whom this agent tells itself that its hub does not answer, and after how long.

    receiver: of `notify: receivers`; on an agent it is told of this and of nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    receiver: str
    after: Annotated[str, AfterValidator(positive_duration)] = "5m"


class ShippingSettings(BaseModel):
    """What leaves this host, and how. masks: name -> what must not leave it (RE2, on the bytes of a record).

    A mask with a group hides that group, one without hides all that it matches; the length stays.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    spool: SpoolSettings = SpoolSettings()
    lanes: LanesSettings = LanesSettings()
    masks: dict[str, Annotated[str, AfterValidator(_pattern)]] = Field(default_factory=dict)
    window: Annotated[int, Field(ge=messages.LIMIT, le=256 * _MIB, description="bytes of a lane under way")] = 16 * _MIB
    hub_lost: HubLostSettings | None = Field(
        default=None, description="whom this agent tells by itself that its hub does not answer"
    )
