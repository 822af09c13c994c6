"""How a host joins: the token, what is said at the door, and what the host keeps afterwards.
Counterpart: `door` is where hosts enrol; `authority` signs, a `Roll` says who may."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import msgspec
from cryptography import x509

from vedette.fleet import subjects
from vedette.fleet.authority import (
    HUB_NAME,
    UNREADABLE,
    Authority,
    Identity,
    Issued,
    RequestError,
    certified_host,
    check_request,
    fingerprint,
    new_key,
    read_certificate,
    request,
    trusting,
)
from vedette.fleet.link import Endpoint
from vedette.model.clock import Clock
from vedette.model.errors import StateError, VedetteError
from vedette.model.fleet import AgentState, EnrolReason, Joining, JoinToken, Roll, is_host_id
from vedette.model.protocols import Counter
from vedette.system.files import write_atomic

_TOKEN = re.compile(r"([0-9a-f]{64})\.([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_GROUP = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
MOST_BODY = 16 * 1024
_MOST_USES = 100_000
_SECONDS = 20.0
_FILE, _PENDING = "membership.json", "membership.key"
_VERSION = 1


# ------------------------------------------------------------------------------------------------- tokens
def new_token(authority: str, group: str, *, uses: int, expires_at: int, by: str, now: int) -> tuple[str, JoinToken]:
    """A token's text, which is shown once, and what is kept of it. authority: fingerprint. VedetteError if unfit."""
    if not _GROUP.fullmatch(group):
        raise VedetteError(f"not a group: {group!r}", hint="lower-case letters, digits and hyphens")
    if not 1 <= uses <= _MOST_USES:
        raise VedetteError(f"a token lets 1 to {_MOST_USES} hosts join, not {uses}")
    if expires_at <= now:
        raise VedetteError("a token that has ended lets nobody join")
    secret = secrets.token_urlsafe(32)
    digest = digest_of(secret)
    return f"{authority}.{secret}", JoinToken(digest[:32], digest, group, uses, uses, now, expires_at, by)


def digest_of(secret: str) -> str:
    """What is kept of a secret: SHA-256, hexadecimal. It has 256 random bits, so nothing slower is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


# ------------------------------------------------------------------------------------------------- what is said
class EnrolRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a host says at the door. csr: PEM."""

    version: int
    host_id: str
    name: str
    secret: str
    csr: str


class EnrolAnswer(msgspec.Struct, frozen=True):
    """What it is told. certificate, broker_authority: PEM; urls: of the broker; broker_name: in its certificate."""

    version: int
    certificate: str
    urls: tuple[str, ...]
    broker_authority: str
    broker_name: str


class Refused(msgspec.Struct, frozen=True):
    """What it is told otherwise. refused: an `EnrolReason`."""

    refused: str


@dataclass(frozen=True, slots=True)
class Told:
    """Where agents find the broker. urls: `{host}` in them stands for the host they enrolled at."""

    urls: tuple[str, ...]
    authority: bytes
    name: str = HUB_NAME


class Registrar:
    """Lets hosts in and gives them certificates. changed: awaited after somebody was let in, before he is told."""

    def __init__(
        self,
        authority: Authority,
        roll: Roll,
        told: Callable[[], Told],
        *,
        clock: Clock,
        counter: Counter,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self.authority = authority
        self._roll = roll
        self._told = told
        self._clock = clock
        self._counter = counter
        self.changed = changed

    def join(self, asked: EnrolRequest, host: str) -> tuple[EnrolReason, EnrolAnswer | None]:
        """What becomes of a request; may wait for the disk. host: the name or address the hub was reached at.

        StateError where the disk refuses: nobody joined then.
        """
        if asked.version != _VERSION or not _NAME.fullmatch(asked.name):
            return EnrolReason.BAD_REQUEST, None
        if not is_host_id(asked.host_id):
            return EnrolReason.BAD_HOST_ID, None
        csr = asked.csr.encode()
        try:
            _, key_hash = check_request(csr, asked.host_id)
        except RequestError:
            return EnrolReason.BAD_CSR, None
        joining = Joining(asked.host_id, asked.name, digest_of(asked.secret), key_hash)
        reason, agent = self._roll.join(joining, enrolment=secrets.token_hex(16), now=self._clock.now())
        if agent is None:
            return reason, None
        issued = self.authority.issue_agent(csr, agent.host_id, agent.enrolment)
        if not self._note(agent.host_id, agent.enrolment, issued):
            return EnrolReason.NOT_ENROLLED, None
        told = self._told()
        urls = tuple(url.replace("{host}", host) for url in told.urls)
        return reason, EnrolAnswer(_VERSION, issued.pem.decode(), urls, told.authority.decode(), told.name)

    def renew(self, host_id: str, csr: bytes) -> bytes:
        """The answer to a host that asks over its own connection: who it is was proven by the broker."""
        agent = self._roll.agent(host_id)
        if agent is None or agent.state is not AgentState.ACTIVE:
            return self._refuse(EnrolReason.NOT_ENROLLED)
        try:
            issued = self.authority.issue_agent(csr, host_id, agent.enrolment)
        except RequestError:
            return self._refuse(EnrolReason.BAD_CSR)
        if not self._note(host_id, agent.enrolment, issued):
            return self._refuse(EnrolReason.NOT_ENROLLED)
        self._counter.add("enrolments", EnrolReason.RENEWED)
        return msgspec.json.encode({"certificate": issued.pem.decode()})

    def _note(self, host_id: str, enrolment: str, issued: Issued) -> bool:
        return self._roll.certified(
            host_id,
            enrolment=enrolment,
            serial=issued.serial,
            key_hash=issued.key_hash,
            expires_at=issued.expires_at,
        )

    def _refuse(self, reason: EnrolReason) -> bytes:
        self._counter.add("enrolments", reason)
        return msgspec.json.encode(Refused(reason.value))


# ------------------------------------------------------------------------------------------------- agent
class _Kept(msgspec.Struct, frozen=True):
    format: str
    version: int
    host_id: str
    key: str
    certificate: str
    authority: str
    urls: tuple[str, ...]
    broker_authority: str
    broker_name: str


@dataclass(frozen=True, slots=True)
class Membership:
    """What a host keeps of its enrolment. broker_authority: whom the broker is certified by, PEM."""

    host_id: str
    identity: Identity
    urls: tuple[str, ...]
    broker_authority: bytes
    broker_name: str = HUB_NAME

    @classmethod
    def load(cls, folder: Path) -> Membership | None:
        """What is kept in this folder; None where the host is not enrolled. StateError where it cannot be read."""
        place = folder / _FILE
        try:
            kept = msgspec.json.decode(place.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise StateError(f"{place} cannot be read: {error}", hint="enrol again") from None
        if kept.format != "vedette-membership" or kept.version != _VERSION:
            raise StateError(f"{place} is of version {kept.version}", hint="a newer Vedette wrote it")
        identity = Identity(kept.key.encode(), kept.certificate.encode(), kept.authority.encode())
        return cls(kept.host_id, identity, kept.urls, kept.broker_authority.encode(), kept.broker_name)

    def save(self, folder: Path) -> None:
        """Keep it, readable by the owner alone; key and certificate change together or not at all."""
        kept = _Kept(
            "vedette-membership",
            _VERSION,
            self.host_id,
            self.identity.key.decode(),
            self.identity.certificate.decode(),
            self.identity.authority.decode(),
            self.urls,
            self.broker_authority.decode(),
            self.broker_name,
        )
        write_atomic(folder / _FILE, msgspec.json.encode(kept), follow=False)

    @property
    def certificate(self) -> Issued:
        """The certificate it has now."""
        return read_certificate(self.identity.certificate)

    def endpoint(self) -> Endpoint:
        """Where to connect, and as whom."""
        trusted = self.identity.with_authority(self.broker_authority)
        return Endpoint(self.urls, trusted.client_context(), subjects.inbox(self.host_id), self.broker_name)

    def renewed(self, key: bytes, certificate: bytes) -> Membership:
        """With its next key and certificate. VedetteError where that is not one for this host by our authority."""
        _check(certificate, key, self.host_id, self.identity.authority)
        return replace(self, identity=Identity(key, certificate, self.identity.authority))


async def enrol(hub: str, token: str, folder: Path, *, host_id: str, name: str) -> Membership:
    """Join the fleet of the hub at this https:// URL; what was kept in `folder` afterwards.

    Nothing is said before the hub has shown the authority that the token names. The key is made here and stays here;
    an answer that got lost is asked for again with the same key. VedetteError says why it was refused.
    """
    matched = _TOKEN.fullmatch(token.strip())
    if matched is None:
        raise VedetteError("this is no join token", hint="it is shown once by `vedette fleet token`")
    wanted, secret = matched.groups()
    url = httpx.URL(hub)
    if url.scheme != "https" or not url.host or url.path.strip("/"):
        raise VedetteError(f"not the address of a hub: {hub}", hint="https://HOST:PORT")
    key = _pending_key(folder)
    try:
        authority = await _authority_of(url, wanted)
        said = EnrolRequest(_VERSION, host_id, name, secret, request(key, host_id).decode())
        status, body = await _ask(url.copy_with(path="/v1/enrol"), trusting(authority), msgspec.json.encode(said))
    except (httpx.HTTPError, ssl.SSLError, OSError) as error:
        raise VedetteError(f"the hub at {hub} cannot be reached: {type(error).__name__}: {error}") from None
    answer = _answer(status, body)
    _check(answer.certificate.encode(), key, host_id, authority)
    identity = Identity(key, answer.certificate.encode(), authority)
    membership = Membership(host_id, identity, answer.urls, answer.broker_authority.encode(), answer.broker_name)
    membership.save(folder)
    (folder / _PENDING).unlink(missing_ok=True)
    return membership


def _pending_key(folder: Path) -> bytes:
    place = folder / _PENDING
    try:
        return place.read_bytes()
    except FileNotFoundError:
        key = new_key()
        write_atomic(place, key, follow=False)
        return key


async def _authority_of(url: httpx.URL, wanted: str) -> bytes:
    # Whoever answers is nobody yet: what it gives is believed for its fingerprint alone.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    status, body = await _ask(url.copy_with(path="/v1/authority"), context, None)
    if status != httpx.codes.OK or not hmac.compare_digest(fingerprint(body), wanted):
        raise VedetteError(
            "this hub is not the one the token is for", hint="somebody may be in between: nothing was said to it"
        )
    return body


async def _ask(url: httpx.URL, context: ssl.SSLContext, body: bytes | None) -> tuple[int, bytes]:
    named = {"sni_hostname": HUB_NAME}
    async with httpx.AsyncClient(verify=context, timeout=_SECONDS, trust_env=False) as client:
        method = "GET" if body is None else "POST"
        async with client.stream(method, url, content=body, extensions=named) as answer:
            said = b""
            async for part in answer.aiter_raw():
                said += part
                if len(said) > MOST_BODY:
                    raise VedetteError("the hub's answer is too long")
            return answer.status_code, said


def _answer(status: int, body: bytes) -> EnrolAnswer:
    try:
        if status == httpx.codes.OK:
            return msgspec.json.decode(body, type=EnrolAnswer)
        refused = EnrolReason(msgspec.json.decode(body, type=Refused).refused)
    except (msgspec.MsgspecError, ValueError):
        raise VedetteError(f"the hub's answer cannot be understood (status {status})") from None
    raise VedetteError(f"the hub did not let this host in: {refused.value}", hint=_HINTS.get(refused, ""))


_HINTS = {
    EnrolReason.UNKNOWN_TOKEN: "`vedette fleet tokens` on the hub names those there are",
    EnrolReason.TOKEN_ENDED: "make a new one with `vedette fleet token`",
    EnrolReason.TOKEN_USED_UP: "make a new one with `vedette fleet token`",
    EnrolReason.HOST_ID_TAKEN: "`vedette fleet retire` it first; on a copied machine remove its file host-id",
    EnrolReason.REVOKED: "this host id may never join again; remove its file host-id to get a new one",
    EnrolReason.RATE_LIMITED: "too many wrong tokens came from this address; wait a minute",
}


def _check(certificate: bytes, key: bytes, host_id: str, authority: bytes) -> None:
    """VedetteError unless the certificate is for this key and host, and by this authority."""
    try:
        given, by = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificate(authority)
        given.verify_directly_issued_by(by)
    except UNREADABLE as error:
        raise VedetteError(f"the hub gave a certificate that is none of its authority's: {error}") from None
    _, asked = check_request(request(key, host_id), host_id)
    if read_certificate(certificate).key_hash != asked or certified_host(certificate)[0] != host_id:
        raise VedetteError("the hub gave a certificate for somebody else")
