"""Who may run a command, and what stays of it: one place asks before every command.
Counterpart: vedette.cli.admission, login and operators."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyotp
import pytest
from tests.cli.parts import Place, vedette

from vedette.app.host import AUDIT_FILE
from vedette.app.operators import Secrets, desk
from vedette.cli.admission import session_file
from vedette.config.load import load_settings
from vedette.model.clock import DAY, MINUTE, SystemClock
from vedette.model.operators import Role
from vedette.testing.clock import FakeClock


class Guarded(Place):
    """A place with an admin, alice, and tokens of every role."""

    secrets: Secrets
    tokens: Mapping[Role, str]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.configure("operators: {password_cost: 10}\n")

    def make(self) -> None:
        with desk(load_settings(self.config), SystemClock(), who="root", create=True) as at:
            self.secrets = at.add("alice", Role.ADMIN, root=True)
            self.tokens = {role: at.add_token("alice", role.value, role, DAY)[0] for role in Role}

    def log_in(self, *more: str, answers: tuple[str, ...] = ()) -> Any:
        code = pyotp.TOTP(self.secrets.totp).at(int(time.time()))
        given = "\n".join((self.secrets.password, code, *answers)) + "\n"
        return vedette("login", "alice", *more, "--config", self.config, stdin=given.encode())

    @property
    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.data / AUDIT_FILE).read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    """Made once: a new state takes longer than most commands here."""
    made = Guarded(tmp_path_factory.mktemp("made"))
    made.make()
    return made


@pytest.fixture
def guarded(made: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("VEDETTE_TOKEN", raising=False)
    guarded = Guarded(tmp_path)
    shutil.copytree(made.data, guarded.data)
    guarded.secrets, guarded.tokens = made.secrets, made.tokens
    return guarded


def test_a_host_without_operators_stays_as_it_is(place: Place) -> None:
    place.state().close()
    assert place.run("block", "add", "203.0.113.7", "--reason", "x").code == 0
    assert place.run("alerts", "list").code == 0
    assert not (place.data / AUDIT_FILE).exists()
    ran = place.run("login", "alice")
    assert ran.code == 2
    assert "nobody has to log in here" in ran.err


def test_without_a_login_nothing_is_shown_nor_done(guarded: Guarded) -> None:
    for words in (("alerts", "list"), ("block", "add", "203.0.113.7", "--reason", "x"), ("operators", "list")):
        ran = guarded.run(*words)
        assert ran.code == 2
        assert ran.out == ""
        assert "this needs a login" in ran.err
    assert guarded.state().active_decisions(SystemClock().now()) == []
    refused = [one for one in guarded.audit if one["event"]["action"] == "command-refused"]
    assert [one["vedette"]["audit"]["command"] for one in refused] == ["alerts list", "block add", "operators list"]
    assert guarded.run("rules", "list").code == 0, "what needs no role asks nobody"


def test_a_role_does_what_the_table_says(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_TOKEN", guarded.tokens[Role.VIEWER])
    assert guarded.run("alerts", "list").code == 0
    ran = guarded.run("block", "add", "203.0.113.7", "--reason", "x")
    assert ran.code == 2
    assert "alice is viewer here, this needs responder" in ran.err
    monkeypatch.setenv("VEDETTE_TOKEN", guarded.tokens[Role.RESPONDER])
    assert guarded.run("block", "add", "203.0.113.7", "--reason", "x").code == 0
    state = guarded.state()
    [decision] = state.active_decisions(SystemClock().now())
    state.close()
    assert "alice" in decision.owner


def test_what_ran_and_what_failed_is_told_with_its_arguments(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    token = guarded.tokens[Role.RESPONDER]
    monkeypatch.setenv("VEDETTE_TOKEN", token)
    guarded.run("block", "add", "203.0.113.7", "--reason", f"as {token} said")
    guarded.run("block", "add", "127.0.0.1", "--reason", "x")
    done, failed = guarded.audit[-2:]
    assert done["user"] == {"name": "alice"}
    assert done["event"]["outcome"] == "success"
    about = done["vedette"]["audit"]
    assert (about["role"], about["token"], about["command"]) == ("responder", "responder", "block add")
    assert "reason=as *** said" in about["arguments"]
    assert token not in (guarded.data / AUDIT_FILE).read_text()
    assert failed["event"]["outcome"] == "failure"
    assert failed["vedette"]["audit"]["code"] == 2


def test_a_command_that_cannot_be_told_is_not_run(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_TOKEN", guarded.tokens[Role.ADMIN])
    (guarded.data / AUDIT_FILE).unlink()
    (guarded.data / AUDIT_FILE).mkdir()
    ran = guarded.run("block", "add", "203.0.113.7", "--reason", "x")
    assert ran.code == 2
    assert "the audit" in ran.err
    state = guarded.state()
    assert state.active_decisions(SystemClock().now()) == []
    state.close()


def test_what_was_done_and_could_not_be_told_is_said(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_TOKEN", guarded.tokens[Role.ADMIN])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vedette.app.audit.Audit.write", full)
    ran = guarded.run("alerts", "list")
    assert ran.code == 2
    assert "the audit could not be written: No space left on device" in ran.err


def test_a_session_holds_until_logout(guarded: Guarded) -> None:
    ran = guarded.log_in()
    assert ran.code == 0, ran.err
    assert "alice is logged in as admin" in ran.out
    assert session_file().stat().st_mode & 0o777 == 0o600
    assert session_file().parent.stat().st_mode & 0o777 == 0o700
    assert guarded.run("operators", "list").out.splitlines()[1].startswith("alice  admin")
    token = session_file().read_text()
    assert vedette("logout", "--config", guarded.config).code == 0
    assert not session_file().exists()
    session_file().write_text(token)
    session_file().chmod(0o600)
    assert "not known" in guarded.run("operators", "list").err, "a copy of an ended session is worth nothing"


def test_a_session_that_others_may_read_is_refused(guarded: Guarded) -> None:
    guarded.log_in()
    session_file().chmod(0o644)
    assert "others may read or write" in guarded.run("alerts", "list").err


def test_a_wrong_login_is_told_and_keeps_nothing(guarded: Guarded) -> None:
    guarded.secrets = type(guarded.secrets)("wrong password", guarded.secrets.totp, "")
    ran = guarded.log_in()
    assert ran.code == 2
    assert "name, password or code is wrong" in ran.err
    assert not session_file().exists()
    assert guarded.audit[-1]["event"] == {
        "kind": "event",
        "category": ["iam"],
        "action": "operator-login-failed",
        "outcome": "failure",
        "dataset": "vedette.audit",
    }
    assert "wrong password" not in (guarded.data / AUDIT_FILE).read_text()


def test_another_password_is_chosen_at_a_login(guarded: Guarded) -> None:
    # A code is good once, so the first login takes the one before.
    clock = FakeClock(SystemClock().now() - MINUTE)
    with desk(load_settings(guarded.config), clock) as at:
        code = pyotp.TOTP(guarded.secrets.totp).at(clock.now() // 1_000_000)
        at.log_in("alice", guarded.secrets.password, code, "elsewhere")
    ran = guarded.log_in("--new-password", answers=("correct horse battery",) * 2)
    assert ran.code == 0, ran.err
    assert guarded.run("alerts", "list").code == 0, "the session that chose it goes on"
    guarded.secrets = type(guarded.secrets)("correct horse battery", guarded.secrets.totp, "")


def test_operators_from_the_command_line(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_TOKEN", guarded.tokens[Role.ADMIN])
    [made] = guarded.run("operators", "add", "bob", "--role", "viewer", "--output", "json").records
    assert pyotp.parse_uri(made["uri"]).secret == made["totp"]
    assert "password" in guarded.run("operators", "reset", "bob").out
    assert guarded.run("operators", "role", "bob", "responder").out == "bob is responder, before viewer\n"
    [one] = guarded.run("operators", "token", "add", "bob", "ci", "--for", "1d", "--output", "json").records
    listed = guarded.run("operators", "token", "list", "--output", "json").records
    assert [(each["operator"], each["name"]) for each in listed if each["id"] == one["id"]] == [("bob", "ci")]
    assert one["token"] not in json.dumps(listed)
    assert "counts no more" in guarded.run("operators", "token", "revoke", one["id"]).out
    assert guarded.run("operators", "remove", "bob").code == 0
    assert "alice is the last admin" in guarded.run("operators", "remove", "alice").err
    assert made["password"] not in (guarded.data / AUDIT_FILE).read_text()
    assert [one["name"] for one in guarded.run("operators", "list", "--output", "json").records] == ["alice"]
