"""The forwarders a configuration asks for, over the lake of this program.
Counterpart: `fleet.forward` sends; `app.keeping` runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

from vedette.app.counters import Counters
from vedette.app.routed import routed_parser
from vedette.fleet.forward import Forwarder, Headed, Heads, Stored, Target
from vedette.fleet.forward_files import FilesForward
from vedette.fleet.forward_http import HttpForward
from vedette.fleet.forward_settings import FilesTarget, ForwardTarget, HttpTarget, OtlpTarget, S3Target, SyslogTarget
from vedette.fleet.forward_syslog import SyslogForward
from vedette.model.batch import Batch
from vedette.model.clock import Clock
from vedette.model.protocols import Counter

FOLDER = "forward"


def heads() -> Heads:
    """Reads the headers of batches; one for each thread."""
    # What cannot be read was counted when it was kept.
    parser = routed_parser([], Counters())

    def of(batch: Batch) -> Headed:
        table = parser.parse(batch)
        return Headed(
            time=table.time,
            host=table.column("host.name"),
            program=table.column("process.name"),
            pid=table.column("process.pid"),
            facility=table.column("log.syslog.facility.code"),
            severity=table.column("log.syslog.severity.code"),
            message=table.message,
        )

    return of


def forwarders(
    targets: Sequence[ForwardTarget],
    data: Path,
    read: Callable[[int, int], Sequence[Stored]],
    *,
    clock: Clock,
    counter: Counter,
) -> list[Forwarder]:
    """One for each target; cursors lie in `data`/forward."""
    folder = data / FOLDER
    return [
        Forwarder(
            settings.name,
            _target(settings, folder),
            folder / settings.name,
            read,
            clock=clock,
            counter=counter,
            streams=settings.streams,
            exclude=settings.exclude,
        )
        for settings in targets
    ]


def _target(settings: ForwardTarget, folder: Path) -> Target:
    match settings:
        case SyslogTarget():
            return SyslogForward(settings, heads())
        case HttpTarget():
            return HttpForward(settings, heads())
        case OtlpTarget():
            from vedette.fleet.forward_otlp import OtlpForward

            return OtlpForward(settings, heads())
        case S3Target():
            from vedette.fleet.forward_s3 import S3Forward

            return S3Forward(settings, folder / f"{settings.name}.intent")
        case FilesTarget():
            # A target's name holds no dot.
            return FilesForward(settings, folder / f"{settings.name}.intent")
        case _:
            assert_never(settings)
