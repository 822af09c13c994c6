"""`vedette up`, `agent`, `hub`: until it is told to stop.
Counterpart: `app.up` is the program; here are signals, the log and the first words a person sees."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from vedette.cli.output import errors_said, note

if TYPE_CHECKING:
    from vedette.app import own
    from vedette.app.bundled import Starting
    from vedette.app.counters import Counters
    from vedette.app.keep import Keep
    from vedette.config.settings import Settings
    from vedette.model.clock import Clock


def up(
    config: Annotated[
        Path | None, typer.Option("--config", help="default: /etc/vedette/vedette.yml if it is there")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="data folder")] = None,
) -> None:
    """Watch this host: read, judge, tell people, block where it is allowed; stays up."""
    with errors_said():
        from vedette.cli.hub import needs_hub

        needs_hub()
        run_program(config, data)


def agent(
    config: Annotated[
        Path | None, typer.Option("--config", help="default: /etc/vedette/vedette.yml if it is there")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="data folder")] = None,
) -> None:
    """Watch this host as one of a fleet: judge here, ship to the hub; blocks go on while the hub is away."""
    with errors_said():
        from vedette.app.agent import AgentKeeping
        from vedette.app.bundled import Starting

        starting = Starting()

        def keep(settings: Settings, me: own.Self, clock: Clock, counters: Counters) -> AgentKeeping:
            return AgentKeeping(
                settings, me, clock=clock, counter=counters, starting=starting, reload=lambda: starting.reload()
            )

        run_program(config, data, keep, starting)


def hub(
    config: Annotated[
        Path | None, typer.Option("--config", help="default: /etc/vedette/vedette.yml if it is there")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="data folder")] = None,
) -> None:
    """Watch this host, and be the place that agents ship to; one lake, one ledger, one place that tells people."""
    with errors_said():
        from vedette.cli.hub import needs_hub

        needs_hub()
        from vedette.app.hub import HubKeeping

        run_program(config, data, lambda *given: HubKeeping(*given[:2], clock=given[2], counter=given[3]))


def run_program(
    config: Path | None, data: Path | None, keep: Keep | None = None, starting: Starting | None = None
) -> None:
    """Run until told to stop. keep: where what is read stays, where that is not a lake of this host alone.

    starting: of an agent, what its hub makes of its settings.
    """
    _log_to_stderr()
    asyncio.run(_until_told(config, data, keep, starting))


async def _until_told(config: Path | None, data: Path | None, keep: Keep | None, starting: Starting | None) -> None:
    """Run; SIGTERM and SIGINT end it, SIGHUP takes a new configuration, all of it or nothing."""
    from vedette.app.up import Up, check
    from vedette.config.load import load_settings
    from vedette.model.clock import SystemClock
    from vedette.model.errors import VedetteError
    from vedette.system.priority import Priority

    def read() -> Settings:
        settings = load_settings(config)
        settings = settings if data is None else settings.model_copy(update={"data": data})
        return settings if starting is None else starting.settings(settings)

    settings = read()
    program = Up(clock=SystemClock(), say=note, priority=Priority(), keep=keep)
    loop = asyncio.get_running_loop()
    stop, ended = asyncio.Event(), asyncio.Event()
    fresh: list[Settings] = []

    def on_reload() -> None:
        try:
            settings = read()
            # All or nothing: what cannot be loaded must not end a program that runs well.
            check(settings)
            fresh.append(settings)
        except VedetteError as error:
            note(f"reload refused, the old configuration stays: {error}")
        else:
            stop.set()

    if starting is not None:
        starting.reload = on_reload

    def on_end() -> None:
        # Also in the middle of a reload, which begins by clearing `stop`.
        ended.set()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, on_end)
    loop.add_signal_handler(signal.SIGINT, on_end)
    loop.add_signal_handler(signal.SIGHUP, on_reload)
    try:
        await program.run(settings, stop)
        while fresh and not ended.is_set():
            settings = fresh.pop()
            fresh.clear()
            stop.clear()
            note("configuration reloaded")
            await program.run(settings, stop)
    finally:
        program.close()


def _log_to_stderr() -> None:
    """One line an event: for a terminal readable, for a service manager as key=value."""
    from vedette.text.escape import terminal

    def harmless(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        return {key: terminal(value) if isinstance(value, str) else value for key, value in event.items()}

    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.LogfmtRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            harmless,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
