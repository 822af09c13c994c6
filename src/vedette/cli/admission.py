"""The one place that asks, before a command runs, whether whoever calls may do that, and tells the audit how it ended.
Counterpart: `app.roles` is the table, `app.operators` decides; `cli.commands` puts this around every command."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer import Exit
from typer.core import TyperCommand, TyperGroup

from vedette.app.roles import UNTOLD, role_of
from vedette.cli.output import FOUND, OK, WRONG, errors_said
from vedette.model.operators import Role

TOKEN = "VEDETTE_TOKEN"
"""Environment variable with a named token, for programs."""
_INTERRUPTED = 130
"""How `tail` ends when a person has seen enough."""


def guard(command: TyperCommand | TyperGroup, name: str) -> None:
    """Put the question around a command and all below it. name: its words, as in the table."""
    if isinstance(command, TyperGroup):
        for word, below in command.commands.items():
            assert isinstance(below, TyperCommand | TyperGroup)
            guard(below, f"{name} {word}")
        return
    needed, callback = role_of(name), command.callback
    if needed is not None and callback is not None:
        command.callback = _asked(name, needed, callback)


def _asked(name: str, needed: Role, callback: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(callback)
    def run(**given: Any) -> Any:
        with errors_said(), _admitted(name, needed, given):
            return callback(**given)

    return run


@contextmanager
def _admitted(name: str, needed: Role, given: Mapping[str, Any]) -> Iterator[None]:
    from vedette.app.host import ACTING, STATE_FILE
    from vedette.cli.state import data_folder_of, is_configured, settings_of

    config, data = (Path(given[one]) if given.get(one) else None for one in ("config", "data"))
    if not is_configured(config) and not _is_there(data_folder_of(config, data) / STATE_FILE):
        yield
        return
    settings = settings_of(config, data)
    # Nobody is asked where there is no state, so what that takes is not imported either.
    if not settings.state_url and not _is_there(settings.data_folder() / STATE_FILE):
        yield
        return
    from vedette.app.audit import Action, Audit, arguments
    from vedette.app.operators import acting_for
    from vedette.model.clock import SystemClock
    from vedette.model.errors import StateError

    clock = SystemClock()
    acting = acting_for(settings, clock, name, needed, os.environ.get(TOKEN) or kept_session())
    if acting is None:
        yield
        return
    with Audit(settings.data_folder()) as audit:
        kept = ACTING.set(acting.name)
        code: object = WRONG
        try:
            yield
            code = OK
        except (SystemExit, Exit) as ended:
            code = ended.exit_code if isinstance(ended, Exit) else ended.code or OK
            raise
        finally:
            ACTING.reset(kept)
            about = {
                "role": acting.role.value,
                "token": acting.token,
                "command": name,
                "arguments": arguments(given, UNTOLD.get(name, frozenset())),
                "code": code,
            }
            done = code in (OK, FOUND, _INTERRUPTED)
            message = f"{acting.name} ran `{name}`" + ("" if done else ", which failed")
            try:
                audit.write(Action("command-run", acting.name, message, success=done, about=about), clock.now())
            except OSError as error:
                raise StateError(f"{message}; but the audit could not be written: {error.strerror}") from None


def _is_there(path: Path) -> bool:
    """What this process may not see it can neither read nor change."""
    try:
        return path.exists()
    except OSError:
        return False


# ---------------------------------------------------------------------------------------------- the session's file
def session_file() -> Path:
    """Where `vedette login` keeps the session: one for each account, behind sudo as well."""
    from vedette.app.host import account_name

    folder = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "vedette" / f"session-{account_name().replace('/', '_')}"


def kept_session() -> str:
    """The session of this account, "" where there is none. LoginError where others may read it."""
    from vedette.model.errors import LoginError
    from vedette.model.operators import LoginReason
    from vedette.system.files import open_own

    path = session_file()
    try:
        with os.fdopen(open_own(path, os.O_RDONLY), encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise LoginError(
                    f"others may read or write {path}",
                    reason=LoginReason.NOT_LOGGED_IN,
                    hint="remove it and `vedette login` again",
                )
            return file.read(1024).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def keep_session(token: str) -> Path:
    """Keep a session for the commands that follow, readable by nobody else."""
    from vedette.model.errors import VedetteError
    from vedette.system.files import write_atomic

    path = session_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, f"{token}\n".encode(), follow=False)
    except OSError as error:
        raise VedetteError(f"the session cannot be kept in {path}: {error.strerror}") from None
    return path
