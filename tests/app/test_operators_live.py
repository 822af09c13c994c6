"""What operators do reaches people through the running `up`: file, source, pack, alert.
Counterpart: vedette.app.operators, vedette.sources.audit and rules/packs/operators.yml."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.app.test_up import Life, settings_for

from vedette.app import holding
from vedette.app.host import AUDIT_FILE, STATE_FILE
from vedette.app.operators import desk
from vedette.model.clock import SystemClock
from vedette.model.errors import LoginError
from vedette.model.operators import Role
from vedette.store.state import State


async def alerts(state: State, *wanted: str) -> list[str]:
    for _ in range(600):
        found = sorted(alert.rule_id for alert in state.alerts())
        if set(wanted) <= set(found):
            break
        await asyncio.sleep(0.02)
    return found


@pytest.mark.slow
def test_a_new_admin_wrong_logins_and_an_emptied_audit_are_alerts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "drop_privileges", lambda folder, user: "running as who we are")
    log = tmp_path / "auth.log"
    log.write_text("")
    settings = settings_for(log, operators={"password_cost": 10})

    async def main() -> None:
        life = Life()
        await life.start(settings)
        assert life.task is not None
        state = State(settings.data_folder() / STATE_FILE)
        try:
            with desk(settings, SystemClock(), who="root") as at:
                at.add("alice", Role.ADMIN, root=True)
                assert await alerts(state, "operators-admin-added") == ["operators-admin-added"]
                for _ in range(5):
                    with pytest.raises(LoginError):
                        at.log_in("alice", "wrong", "0", "elsewhere")
            assert "operators-login-failures" in await alerts(state, "operators-login-failures")
            (settings.data_folder() / AUDIT_FILE).write_bytes(b"")
            assert "operators-audit-shrunk" in await alerts(state, "operators-audit-shrunk")
        finally:
            state.close()
            life.stop.set()
            await life.task
            life.up.close()

    asyncio.run(main())
