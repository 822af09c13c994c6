"""`vedette backup` and `vedette restore`: a hub into one file, and back onto a bare machine.
Counterpart: `app.backup`; docs/backup.md says how to try it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import Config, Data
from vedette.cli.output import errors_said, note, say
from vedette.cli.state import settings_of
from vedette.config.folders import DEFAULT_PATH
from vedette.model.clock import SystemClock
from vedette.model.errors import VedetteError
from vedette.system.secrets import Secret
from vedette.text.times import rfc3339

Env = Annotated[str, typer.Option("--passphrase-env", help="environment variable that holds the passphrase")]
InFile = Annotated[str, typer.Option("--passphrase-file", help="file that holds the passphrase")]


def backup(
    file: Annotated[Path, typer.Argument(help="the archive to write; one that is there is replaced")],
    lake: Annotated[bool, typer.Option("--lake", help="the records of the event store, too")] = False,
    passphrase_env: Env = "",
    passphrase_file: InFile = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Write state, keys and configuration to one file, while everything runs."""
    with errors_said():
        from vedette.app.backup import backup as write
        from vedette.app.backup import passphrase_of

        settings = settings_of(config, data)
        passphrase = _passphrase(passphrase_env, passphrase_file)
        done = write(
            settings.data_folder(),
            file,
            now=SystemClock().now(),
            host=socket.gethostname(),
            configuration=_configuration(config or DEFAULT_PATH),
            lake=lake,
            passphrase=passphrase_of(passphrase) if passphrase else "",
            state_url=settings.state_url,
        )
        say(f"{file}: {done.files} files, {done.size} bytes before compression")
        for words in done.notes:
            note(words)
        if not passphrase:
            note("not sealed: whoever reads this file has the keys of the hub; --passphrase-file seals it")


def restore(
    file: Annotated[Path, typer.Argument(help="the archive")],
    verify: Annotated[bool, typer.Option("--verify", help="look at every byte, restore nothing")] = False,
    passphrase_env: Env = "",
    passphrase_file: InFile = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Make a data folder of an archive: verified first, all of it or nothing, into an empty folder only."""
    with errors_said():
        from vedette.app.backup import inspect
        from vedette.app.backup import restore as make

        passphrase = _passphrase(passphrase_env, passphrase_file)
        if verify:
            found = inspect(file, passphrase=passphrase)
            say(f"{file}: whole; {len(found.files)} files of {found.host}, {rfc3339(found.created)}")
            return
        settings = settings_of(config, data)
        folder = settings.data_folder()
        found, done = make(file, folder, passphrase=passphrase, user=settings.user)
        say(f"{folder}: {done.files} files of {found.host}, as it was {rfc3339(found.created)}")
        for words in done.notes:
            note(words)
        note("make sure that the old one never runs again beside it: both would be the same host")


def _passphrase(env: str, file: str) -> str:
    if env and file:
        raise VedetteError("--passphrase-env and --passphrase-file: one of them")
    return Secret(env=env, file=file).read() if env or file else ""


def _configuration(main: Path) -> dict[str, Path]:
    """Name in the archive -> file: the main one and those of conf.d beside it."""
    if not main.is_file():
        return {}
    beside = sorted((main.parent / "conf.d").glob("*.yml"))
    return {main.name: main, **{f"conf.d/{path.name}": path for path in beside}}
