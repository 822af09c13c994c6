"""Lets operators in and says what they may: login, tokens, roles, and who changes them; each an event of the audit.
Counterpart: `store.operators` keeps them, `cli.admission` asks before every command, `app.roles` holds the table."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from vedette.app.audit import TOKEN_PREFIX, Action, Audit
from vedette.app.host import STATE_FILE, account_name
from vedette.app.operating import owned_like_folder
from vedette.config.settings import Settings
from vedette.model.clock import MINUTE, SECOND, Clock
from vedette.model.errors import LoginError, StateError, VedetteError
from vedette.model.operators import Acting, Attempts, LoginReason, Operator, OperatorToken, Role, TokenKind
from vedette.store.operators import Operators
from vedette.store.settings import OperatorsSettings
from vedette.store.state import State
from vedette.system.passwords import fits, hashed
from vedette.text.times import parse_duration

STEP = 30
"""Seconds a code is for (RFC 6238); one step before and after counts, too."""
FREE = 3
LONGEST_WAIT = 15 * MINUTE
"""Wrong attempts in a row that cost no waiting; each one after doubles it up to this."""
KNOWN_PLACES = 16
SHORTEST_PASSWORD = 12
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")
_SESSION = "session"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is shown once and never again. uri: for an authenticator (otpauth)."""

    password: str
    totp: str
    uri: str


@contextmanager
def desk(settings: Settings, clock: Clock, *, who: str = "", create: bool = False) -> Iterator[Desk]:
    """The desk of a configuration's state, with its audit open. who: in whose name; "" is the account.

    create: make folder and state where none is yet.
    """
    folder = settings.data_folder()
    if not create and not has_state(settings):
        raise StateError(f"there is no state in {folder}", hint="--data names another folder")
    with Audit(folder) as audit:
        state = State(settings.state_url or folder / STATE_FILE)
        try:
            yield Desk(state, settings.operators, clock, audit, who or account_name())
        finally:
            state.close()
            owned_like_folder(folder)


def has_state(settings: Settings) -> bool:
    """Whether there is a state that may hold operators. What this process may not read it cannot change either."""
    try:
        return bool(settings.state_url) or (settings.data_folder() / STATE_FILE).exists()
    except OSError:
        return False


def acting_for(settings: Settings, clock: Clock, command: str, needed: Role, token: str) -> Acting | None:
    """Who may run `command` by `token`; None where there are no operators, so that nobody has to log in.

    LoginError otherwise, which the audit then has. Root may always add an admin.
    """
    folder = settings.data_folder()
    state = State(settings.state_url or folder / STATE_FILE)
    try:
        operators = Operators(state)
        if not operators.any():
            return None
        try:
            return _admitted(operators, clock.now(), needed, token)
        except LoginError as error:
            if command == "operators add" and os.geteuid() == 0:
                return Acting(account_name(), Role.ADMIN)
            with Audit(folder) as audit:
                about = {"command": command, "needed": needed.value, "reason": error.reason.value}
                message = f"{account_name()} was refused `{command}`: {error.message}"
                audit.write(Action("command-refused", account_name(), message, success=False, about=about), clock.now())
            raise
    finally:
        state.close()
        owned_like_folder(folder)


def _admitted(operators: Operators, now: int, needed: Role, token: str) -> Acting:
    if not token:
        raise LoginError(
            "this needs a login", reason=LoginReason.NOT_LOGGED_IN, hint="`vedette login`, or a token in $VEDETTE_TOKEN"
        )
    acting = acting_of(operators, token, now)
    if acting.role.rank < needed.rank:
        raise LoginError(
            f"{acting.name} is {acting.role.value} here, this needs {needed.value}",
            reason=LoginReason.ROLE,
            hint="an admin may change that: `vedette operators role`",
        )
    return acting


def acting_of(operators: Operators, token: str, now: int) -> Acting:
    """In whose name a token speaks, with the role both have. LoginError where it counts no more."""
    found = operators.token(digest_of(token))
    if found is None:
        raise LoginError(
            "this token or session is not known", reason=LoginReason.TOKEN_UNKNOWN, hint="`vedette login` again"
        )
    kept, operator = found
    if kept.expires_at <= now:
        raise LoginError("this token or session has ended", reason=LoginReason.TOKEN_ENDED, hint="`vedette login`")
    role = min(kept.role, operator.role, key=lambda one: one.rank)
    return Acting(operator.name, role, kept.name if kept.kind is TokenKind.NAMED else "")


def digest_of(token: str) -> str:
    """What is kept of a token; with 256 random bits it needs no salt and no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Desk:
    """What is done to operators: each verb is carried out, then told to the audit. VedetteError says why it was not.

    who: in whose name.
    """

    def __init__(self, state: State, settings: OperatorsSettings, clock: Clock, audit: Audit, who: str) -> None:
        self.operators = Operators(state)
        self._settings = settings
        self._clock = clock
        self._audit = audit
        self._who = who

    # ---------------------------------------------------------------- getting in
    def log_in(self, name: str, password: str, code: str, place: str) -> tuple[str, OperatorToken]:
        """A session by password and code. place: from where, so that guesses from elsewhere do not lock out a person.

        Every attempt counts as wrong before it is looked at: many at once are no more than one after the other.
        """
        now = self._clock.now()
        if self.operators.operator(name) is None:
            # As slow as for a name that is there.
            hashed(password, self._settings.password_cost)
            raise self._refused(name, place)
        operator = self.operators.change(name, lambda one: self._begun(one, place, now))
        right = fits(password, operator.password)
        step = code_step(operator.totp, code, now)
        if not right or not step:
            raise self._refused(name, place)
        self.operators.change(name, lambda one: self._in(one, place, step, now))
        token, kept = self._token(
            name, TokenKind.SESSION, _SESSION, operator.role, parse_duration(self._settings.session)
        )
        self._tell("operator-logged-in", f"{name} logged in from {place}", who=name, about={"place": place})
        return token, kept

    def _begun(self, operator: Operator, place: str, now: int) -> Operator:
        key = place if place in operator.known else ""
        before = operator.attempts.get(key, Attempts())
        if before.wait_until > now:
            seconds = -(-(before.wait_until - now) // SECOND)
            self._tell(
                "operator-login-failed",
                f"{operator.name} has to wait, from {place}",
                who=operator.name,
                success=False,
                about={"place": place, "reason": LoginReason.WAIT.value},
            )
            raise LoginError(
                f"too many wrong attempts: wait {seconds} s",
                reason=LoginReason.WAIT,
                hint="places this operator has logged in from wait apart from all others",
            )
        wrong = before.wrong + 1
        wait = min(LONGEST_WAIT, SECOND << min(wrong - FREE, 20)) if wrong >= FREE else 0
        return replace(operator, attempts={**operator.attempts, key: Attempts(wrong, now + wait)})

    def _in(self, operator: Operator, place: str, step: int, now: int) -> Operator:
        if step <= operator.code_used:
            raise self._refused(operator.name, place)
        key = place if place in operator.known else ""
        others = [one for one in operator.known if one != place]
        known = (place, *others)[:KNOWN_PLACES]
        attempts = {name: one for name, one in operator.attempts.items() if name != key and name in {"", *known}}
        return replace(operator, code_used=step, known=known, attempts=attempts, last_login=now)

    def _refused(self, name: str, place: str) -> LoginError:
        self._tell(
            "operator-login-failed",
            f"{name} could not log in from {place}",
            who=name,
            success=False,
            about={"place": place, "reason": LoginReason.WRONG.value},
        )
        return LoginError("name, password or code is wrong", reason=LoginReason.WRONG, hint="a code is good for once")

    def log_out(self, token: str) -> None:
        """End the session of this token, if it is one that counts."""
        found = self.operators.token(digest_of(token))
        if found is not None and found[0].kind is TokenKind.SESSION:
            self.operators.revoke(found[0].id)
            self._tell("operator-logged-out", f"{found[1].name} logged out", who=found[1].name)

    def set_password(self, name: str, password: str, *, keep: str = "") -> None:
        """Take a password a person chose; every session of theirs ends but the one with the id `keep`."""
        if len(password) < SHORTEST_PASSWORD:
            raise VedetteError(f"a password has {SHORTEST_PASSWORD} characters at least")
        made = hashed(password, self._settings.password_cost)
        self.operators.change(name, lambda one: replace(one, password=made))
        self.operators.end_sessions(name, keep=keep)
        self._tell("operator-password-changed", f"{name} has a new password", about={"operator": name})

    # ---------------------------------------------------------------- people
    def add(self, name: str, role: Role, *, root: bool) -> Secrets:
        """Take somebody in. root: whether root asks, who alone makes the first one, an admin."""
        if not _NAME.fullmatch(name):
            raise VedetteError(
                f"{name!r} is no name for an operator",
                hint="a lower-case letter, then up to 31 of a-z, 0-9, dot, dash, underscore",
            )
        made, kept = self._secrets(name)

        def may(first: bool) -> None:
            if first and not root:
                raise StateError("the first operator is made by root on this machine")
            if first and role is not Role.ADMIN:
                raise StateError("the first operator is an admin", hint=f"`vedette operators add {name} --role admin`")

        self.operators.add(Operator(name, role, kept, made.totp, self._clock.now(), self._who), may=may)
        self._tell(
            "operator-added", f"{self._who} made {name} {role.value}", about={"operator": name, "after": role.value}
        )
        return made

    def change_role(self, name: str, role: Role) -> Role:
        """Another role; the one before. The last admin stays one."""
        before = role

        def to(operator: Operator) -> Operator:
            nonlocal before
            before = operator.role
            return replace(operator, role=role)

        self.operators.change(name, to)
        up = role.rank > before.rank
        self._tell(
            "operator-role-raised" if up else "operator-role-lowered",
            f"{self._who} made {name} {role.value}, before {before.value}",
            about={"operator": name, "before": before.value, "after": role.value},
        )
        return before

    def remove(self, name: str) -> None:
        """Let somebody go with every session and token. The last admin stays."""
        self.operators.remove(name)
        self._tell("operator-removed", f"{self._who} removed {name}", about={"operator": name})

    def reset(self, name: str) -> Secrets:
        """A new password and a new secret for codes; waiting and sessions end, named tokens stay."""
        made, kept = self._secrets(name)
        self.operators.change(name, lambda one: replace(one, password=kept, totp=made.totp, code_used=0, attempts={}))
        self.operators.end_sessions(name)
        self._tell("operator-reset", f"{self._who} gave {name} a new password and code", about={"operator": name})
        return made

    def _secrets(self, name: str) -> tuple[Secrets, str]:
        import pyotp

        password, totp = secrets.token_urlsafe(15), pyotp.random_base32()
        uri = pyotp.TOTP(totp).provisioning_uri(name=name, issuer_name="Vedette")
        return Secrets(password, totp, uri), hashed(password, self._settings.password_cost)

    # ---------------------------------------------------------------- tokens
    def add_token(self, operator: str, name: str, role: Role, duration: int) -> tuple[str, OperatorToken]:
        """A named token for programs, `duration` microseconds long: the token itself is given this once."""
        token, kept = self._token(operator, TokenKind.NAMED, name, role, duration)
        about = {"operator": operator, "token": kept.id, "name": name, "after": role.value}
        self._tell("token-added", f"{self._who} made the token {name} for {operator}", about=about)
        return token, kept

    def revoke_token(self, token_id: str) -> OperatorToken:
        """Take a token back at once."""
        kept = self.operators.revoke(token_id)
        about = {"operator": kept.operator, "token": kept.id, "name": kept.name}
        self._tell("token-revoked", f"{self._who} revoked the token {kept.name} of {kept.operator}", about=about)
        return kept

    def _token(self, operator: str, kind: TokenKind, name: str, role: Role, duration: int) -> tuple[str, OperatorToken]:
        token, now = TOKEN_PREFIX + secrets.token_urlsafe(32), self._clock.now()
        kept = OperatorToken(digest_of(token), operator, kind, name, role, now, now + duration)
        self.operators.add_token(kept, now)
        return token, kept

    def _tell(
        self, action: str, message: str, *, who: str = "", success: bool = True, about: dict[str, str] | None = None
    ) -> None:
        told = Action(action, who or self._who, message, success=success, about=about or {})
        try:
            self._audit.write(told, self._clock.now())
        except OSError as error:
            raise StateError(f"{message}; but the audit could not be written: {error.strerror}") from None


def code_step(secret: str, code: str, now: int) -> int:
    """The 30-second step (RFC 6238) whose code this is, one before or after now counts; 0 for none."""
    import pyotp

    otp, at, found = pyotp.TOTP(secret, interval=STEP), now // SECOND // STEP, 0
    given = "".join(code.split()).encode("utf-8", "surrogateescape")
    for step in (at - 1, at, at + 1):
        if hmac.compare_digest(otp.generate_otp(step).encode(), given):
            found = step
    return found
