"""What an operator may say about where records are sent on to from the lake.
Counterpart: `fleet.forward` and its kinds are made from these; `config` composes them as `forward:`."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from vedette.system.secrets import Secret
from vedette.text.urls import check_url


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not (name.isascii() and name.replace("-", "").isalnum()):
            raise ValueError(f"{name!r} is no name of a header")
        if name.lower() in ("authorization", "content-type", "content-length", "host", "transfer-encoding"):
            raise ValueError(f"{name} is set by us; a token goes under `token`")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the value of {name} is not plain ASCII")
    return headers


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("write the whole path, from /")
    return path


class _Target(BaseModel):
    """streams: which to send, exclude: which of these not; `*` for any text. `S#security` goes as `S` does."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="also of its cursor's file")]
    streams: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


class _NetworkTarget(_Target):
    ca_file: str = Field(default="", description="authorities to trust, PEM; none: those of the system")
    timeout: Annotated[float, Field(gt=0, le=300, description="seconds one attempt may take")] = 30.0

    def tls_context(self) -> ssl.SSLContext:
        """A fresh client context, names checked; OSError or ssl.SSLError where ca_file cannot be used."""
        return ssl.create_default_context(cafile=self.ca_file or None)


class SyslogTarget(_NetworkTarget):
    """RFC 5424, octet-counted (RFC 6587 section 3.4.1), by TCP or TLS (RFC 5425)."""

    type: Literal["syslog"]
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    protocol: Literal["tls", "tcp"] = "tls"


class PostTarget(_NetworkTarget):
    """What is posted to. url: may itself be a secret. token: sent as `Authorization: Bearer`."""

    url: Annotated[str, AfterValidator(check_url)] | Secret
    token: Secret | None = None
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default_factory=dict)


class HttpTarget(PostTarget):
    """JSON lines by POST."""

    type: Literal["http"]


class OtlpTarget(PostTarget):
    """OTLP/HTTP 1, protobuf: url ends in /v1/logs where the receiver keeps to the specification."""

    type: Literal["otlp"]


class S3Target(_NetworkTarget):
    """The records themselves, a line each, as objects in an S3-compatible bucket.

    A key is PREFIX/DAY/HOST/STREAM/SEQUENCE.log.gz; day: when it was read, UTC; sequence: of the first batch in it.
    """

    type: Literal["s3"]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_=/-]*$", max_length=200)] = ""
    endpoint: Annotated[str, AfterValidator(check_url)] | None = Field(
        default=None, description="of a service that is not Amazon's, as https://host:port"
    )
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "us-east-1"
    access_key: Secret | None = Field(default=None, description="without it: the role of this machine")
    secret_key: Secret | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> S3Target:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key go together")
        return self


class FilesTarget(_Target):
    """The records themselves, a line each, in `folder`/DAY/HOST/STREAM.log; day: when it was read, UTC."""

    type: Literal["files"]
    folder: Annotated[Path, AfterValidator(_absolute)]
    compress: Literal["gz", "none"] = "gz"


ForwardTarget = Annotated[SyslogTarget | HttpTarget | OtlpTarget | S3Target | FilesTarget, Field(discriminator="type")]


def _names_apart(targets: tuple[ForwardTarget, ...]) -> tuple[ForwardTarget, ...]:
    names = [target.name for target in targets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two targets are named {twice[0]}: each has a cursor of its own")
    return targets


ForwardTargets = Annotated[tuple[ForwardTarget, ...], AfterValidator(_names_apart)]
