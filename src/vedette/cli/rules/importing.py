"""`vedette rules import`: another program's installation as our configuration, in simulate, with a report.
Counterpart: `app.importing` has one importer for each kind; only this module writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import Output
from vedette.cli.output import Format, errors_said, note, say, write_json
from vedette.model.errors import VedetteError


def import_rules(
    path: Annotated[
        Path, typer.Argument(help="the installation: /var/ossec, /etc/fail2ban, a DenyHosts configuration")
    ],
    to: Annotated[Path, typer.Option("--to", help="a new folder for the configuration and the files it names")],
    kind: Annotated[str, typer.Option("--kind", help="what it is; none: by what lies there")] = "",
    output: Output = Format.TEXT,
) -> None:
    """Take over an installation: rules, what is read, who is never blocked, responses in simulate."""
    with errors_said():
        from vedette.app.importing import importer_of, written

        importer = importer_of(path, kind)
        imported = importer.read(path)
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise VedetteError(f"{to} is there already", hint="name a new folder")
        for name, data in {"vedette.yml": written(imported.settings, to), **imported.files}.items():
            _write(to / name, data)
        counts = Counter(remark.equal for remark in imported.remarks)
        if output is Format.JSON:
            write_json(
                {"equal": str(remark.equal), "origin": str(remark.place), "message": remark.words}
                for remark in imported.remarks
            )
        else:
            for remark in imported.remarks:
                say(f"{remark.equal}: {remark.place}: {remark.words}")
        total = ", ".join(f"{n} {equal}" for equal, n in sorted(counts.items()))
        note(f"{importer.name}: {total or 'nothing'}; written to {to}; look at it, then `vedette config check`")


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise VedetteError(f"cannot write {path}: {error.strerror}") from None
