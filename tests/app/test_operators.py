from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest

from vedette.app.host import AUDIT_FILE, STATE_FILE
from vedette.app.operators import FREE, LONGEST_WAIT, Desk, Secrets, acting_for, acting_of, code_step, desk
from vedette.config.settings import Settings
from vedette.model.clock import DAY, HOUR, MINUTE, SECOND
from vedette.model.errors import LoginError, StateError, VedetteError
from vedette.model.operators import LoginReason, Role
from vedette.store.settings import OperatorsSettings
from vedette.testing.clock import START, FakeClock

RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""Of the RFC's test vectors: 12345678901234567890."""
HERE, THERE = "local:alice", "local:mallory"


def settings_in(folder: Path) -> Settings:
    return Settings(data=folder, operators=OperatorsSettings(password_cost=10))


class Place:
    """A data folder with alice, an admin; her password and codes."""

    def __init__(self, folder: Path, secrets: Secrets) -> None:
        self.settings = settings_in(folder)
        self.clock = FakeClock()
        self.secrets = secrets

    def code(self, steps: int = 0) -> str:
        return pyotp.TOTP(self.secrets.totp).at(self.clock.now() // SECOND + 30 * steps)

    def log_in(self, at: Desk, place: str = HERE) -> str:
        self.clock.advance(MINUTE)
        return at.log_in("alice", self.secrets.password, self.code(), place)[0]

    @property
    def audit(self) -> list[dict[str, Any]]:
        folder = self.settings.data_folder()
        return [json.loads(line) for line in (folder / AUDIT_FILE).read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Secrets]:
    """Made once: a new state takes longer than all that is done to it here."""
    folder = tmp_path_factory.mktemp("made") / "data"
    with desk(settings_in(folder), FakeClock(), who="root", create=True) as at:
        return folder, at.add("alice", Role.ADMIN, root=True)


@pytest.fixture
def place(made: tuple[Path, Secrets], tmp_path: Path) -> Place:
    shutil.copytree(made[0], tmp_path / "data")
    return Place(tmp_path / "data", made[1])


@pytest.fixture
def at(place: Place) -> Iterator[Desk]:
    with desk(place.settings, place.clock, who="alice") as found:
        yield found


def refused(at: Desk, password: str, code: str, where: str = HERE, name: str = "alice") -> LoginReason:
    with pytest.raises(LoginError) as error:
        at.log_in(name, password, code, where)
    return error.value.reason


# ---------------------------------------------------------------------------------------------- getting in
def test_password_and_code_give_a_session_that_ends(place: Place, at: Desk) -> None:
    token = place.log_in(at)
    acting = acting_of(at.operators, token, place.clock.now())
    assert (acting.name, acting.role, acting.token) == ("alice", Role.ADMIN, "")
    place.clock.advance(12 * HOUR)
    with pytest.raises(LoginError) as error:
        acting_of(at.operators, token, place.clock.now())
    assert error.value.reason is LoginReason.TOKEN_ENDED


def test_both_must_be_right_and_nobody_is_told_which_was_not(place: Place, at: Desk) -> None:
    wrong = [
        refused(at, "wrong", place.code()),
        refused(at, place.secrets.password, "000000"),
        refused(at, place.secrets.password, place.code(), name="eve"),
    ]
    assert wrong == [LoginReason.WRONG] * 3


def test_a_code_is_good_once_and_none_before_it_any_more(place: Place, at: Desk) -> None:
    password = place.secrets.password
    at.log_in("alice", password, place.code(), HERE)
    assert refused(at, password, place.code()) is LoginReason.WRONG
    assert refused(at, password, place.code(-1)) is LoginReason.WRONG
    assert at.log_in("alice", password, place.code(1), HERE)


@pytest.mark.parametrize(("steps", "right"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_code_counts_one_step_around(steps: int, right: bool) -> None:
    now = START
    code = pyotp.TOTP(RFC_SECRET).at(now // SECOND + 30 * steps)
    assert code_step(RFC_SECRET, code, now) == (now // SECOND // 30 + steps if right else 0)
    assert code_step(RFC_SECRET, "", now) == 0
    assert code_step(RFC_SECRET, "\uff11\udcff", now) == 0


def test_the_codes_are_those_of_rfc_6238() -> None:
    assert code_step(RFC_SECRET, "287082", 59 * SECOND) == 1
    assert code_step(RFC_SECRET, "081 804", 1_111_111_109 * SECOND) == 1_111_111_109 // 30


def test_waiting_doubles_and_nothing_is_looked_at_meanwhile(place: Place, at: Desk) -> None:
    waits = []
    for _ in range(FREE + 11):
        assert refused(at, "wrong", "0") is LoginReason.WRONG
        kept = at.operators.operator("alice")
        assert kept is not None
        wait = max(0, kept.attempts[""].wait_until - place.clock.now())
        waits.append(wait)
        if wait:
            place.clock.advance(wait - 1)
            assert refused(at, place.secrets.password, place.code()) is LoginReason.WAIT
            place.clock.advance(1)
    assert waits[:FREE] == [0, 0, SECOND]
    assert waits[FREE : FREE + 3] == [2 * SECOND, 4 * SECOND, 8 * SECOND]
    assert waits[-1] == LONGEST_WAIT
    assert place.log_in(at), "who waited and knows both gets in"


def test_guesses_from_elsewhere_do_not_lock_out_who_was_here_before(place: Place, at: Desk) -> None:
    place.log_in(at)
    for number in range(FREE):
        refused(at, "wrong", "0", f"203.0.113.{number}")
    assert refused(at, "wrong", "0", THERE) is LoginReason.WAIT, "all new places wait together"
    place.clock.advance(30 * SECOND)
    assert at.log_in("alice", place.secrets.password, place.code(), HERE)
    kept = at.operators.operator("alice")
    assert kept is not None
    assert kept.attempts[""].wrong == FREE, "a login here lets nobody guess faster there"


def test_many_at_once_are_no_more_than_one_after_the_other(
    place: Place, at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one guess is being looked at, it counts as wrong already."""
    looked_at: list[str] = []

    def slow(password: str, kept: str) -> bool:
        looked_at.append(password)
        if len(looked_at) < 2 * FREE:
            refused(at, "wrong", "0")
        return False

    monkeypatch.setattr("vedette.app.operators.fits", slow)
    refused(at, "wrong", "0")
    assert len(looked_at) == FREE


def test_names_nobody_has_leave_nothing_behind(place: Place, at: Desk) -> None:
    for number in range(10):
        refused(at, "wrong", "0", name=f"eve{number}")
    assert [one.name for one in at.operators.operators()] == ["alice"]


# ---------------------------------------------------------------------------------------------- who may what
def test_the_first_is_an_admin_made_by_root(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data", operators=OperatorsSettings(password_cost=10))
    with desk(settings, FakeClock(), create=True) as at:
        with pytest.raises(StateError, match="by root"):
            at.add("alice", Role.ADMIN, root=False)
        with pytest.raises(StateError, match="is an admin"):
            at.add("alice", Role.VIEWER, root=True)
        assert not at.operators.any()
        at.add("alice", Role.ADMIN, root=True)
        at.add("bob", Role.VIEWER, root=False)


def test_names_are_plain(at: Desk) -> None:
    for name in ("", "Alice", "a b", "a/b", "-a", "a" * 33, "a\n", "ä"):
        with pytest.raises(VedetteError, match="no name for an operator"):
            at.add(name, Role.VIEWER, root=True)


def test_without_operators_nobody_has_to_log_in(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    with desk(settings, FakeClock(), create=True):
        pass
    assert acting_for(settings, FakeClock(), "block add", Role.ADMIN, "") is None


def test_a_role_must_reach_and_a_refusal_is_told(place: Place, at: Desk) -> None:
    bob = at.add("bob", Role.RESPONDER, root=False)
    token, _ = at.log_in("bob", bob.password, pyotp.TOTP(bob.totp).at(place.clock.now() // SECOND), HERE)
    for needed, may in zip(Role, (True, True, False, False), strict=True):
        if may:
            acting = acting_for(place.settings, place.clock, "some command", needed, token)
            assert acting is not None
            assert acting.name == "bob"
        else:
            with pytest.raises(LoginError) as error:
                acting_for(place.settings, place.clock, "some command", needed, token)
            assert error.value.reason is LoginReason.ROLE
    refusals = [one for one in place.audit if one["event"]["action"] == "command-refused"]
    assert [one["vedette"]["audit"]["needed"] for one in refusals] == ["rule-author", "admin"]


def test_only_root_adds_without_a_login(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vedette.app.operators.os.geteuid", lambda: 0)
    monkeypatch.setattr("vedette.app.operators.owned_like_folder", lambda _: None)
    acting = acting_for(place.settings, place.clock, "operators add", Role.ADMIN, "")
    assert acting is not None
    for command in ("operators remove", "block add"):
        with pytest.raises(LoginError):
            acting_for(place.settings, place.clock, command, Role.ADMIN, "")
    monkeypatch.setattr("vedette.app.operators.os.geteuid", lambda: 1000)
    with pytest.raises(LoginError):
        acting_for(place.settings, place.clock, "operators add", Role.ADMIN, "")


def test_a_token_never_has_more_than_its_operator_has_now(place: Place, at: Desk) -> None:
    at.add("bob", Role.ADMIN, root=False)
    token, kept = at.add_token("bob", "ci", Role.RESPONDER, DAY)
    assert acting_of(at.operators, token, place.clock.now()).role is Role.RESPONDER
    assert acting_of(at.operators, token, place.clock.now()).token == "ci"
    at.change_role("bob", Role.VIEWER)
    assert acting_of(at.operators, token, place.clock.now()).role is Role.VIEWER
    at.revoke_token(kept.id)
    with pytest.raises(LoginError) as error:
        acting_of(at.operators, token, place.clock.now())
    assert error.value.reason is LoginReason.TOKEN_UNKNOWN


def test_a_reset_ends_sessions_and_waiting(place: Place, at: Desk) -> None:
    token = place.log_in(at)
    for _ in range(FREE):
        refused(at, "wrong", "0")
    made = at.reset("alice")
    with pytest.raises(LoginError):
        acting_of(at.operators, token, place.clock.now())
    assert refused(at, place.secrets.password, place.code()) is LoginReason.WRONG
    assert at.log_in("alice", made.password, pyotp.TOTP(made.totp).at(place.clock.now() // SECOND), HERE)


def test_a_chosen_password(place: Place, at: Desk) -> None:
    with pytest.raises(VedetteError, match="12 characters"):
        at.set_password("alice", "short")
    token = place.log_in(at)
    at.set_password("alice", "correct horse battery")
    with pytest.raises(LoginError):
        acting_of(at.operators, token, place.clock.now())
    place.secrets = type(place.secrets)("correct horse battery", place.secrets.totp, "")
    token = place.log_in(at)
    at.log_out(token)
    with pytest.raises(LoginError):
        acting_of(at.operators, token, place.clock.now())


def test_nothing_secret_lies_anywhere_but_the_code_s_secret_in_the_state(place: Place, at: Desk) -> None:
    session = place.log_in(at)
    token, _ = at.add_token("alice", "ci", Role.VIEWER, DAY)
    refused(at, "a wrong password", "123456")
    folder = place.settings.data_folder()
    kept = b"".join(path.read_bytes() for path in folder.iterdir())
    for secret in (session, token, place.secrets.password, "a wrong password"):
        assert secret.encode() not in kept
    assert place.secrets.totp.encode() not in (folder / AUDIT_FILE).read_bytes()
    assert (folder / STATE_FILE).stat().st_mode & 0o077 == 0


def test_every_verb_is_told(place: Place, at: Desk) -> None:
    at.add("bob", Role.VIEWER, root=False)
    at.change_role("bob", Role.ADMIN)
    at.change_role("bob", Role.VIEWER)
    _, kept = at.add_token("bob", "ci", Role.VIEWER, DAY)
    at.revoke_token(kept.id)
    at.reset("bob")
    at.remove("bob")
    at.log_out(place.log_in(at))
    refused(at, "wrong", "0")
    assert [one["event"]["action"] for one in place.audit] == [
        "operator-added",
        "operator-added",
        "operator-role-raised",
        "operator-role-lowered",
        "token-added",
        "token-revoked",
        "operator-reset",
        "operator-removed",
        "operator-logged-in",
        "operator-logged-out",
        "operator-login-failed",
    ]
    assert {one["user"]["name"] for one in place.audit} == {"root", "alice"}
    assert place.audit[2]["vedette"]["audit"] == {"operator": "bob", "before": "viewer", "after": "admin"}
