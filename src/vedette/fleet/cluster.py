"""An existing broker cluster in place of our own server: reached by URL, told by a file who may say what.
Counterpart: `broker` is the other way; whoever runs the cluster includes the file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from vedette.fleet import subjects
from vedette.fleet.authority import HUB_NAME, Authority, subject_text, trusting
from vedette.fleet.broker import HUB_INBOX, HUB_USER, user_of
from vedette.fleet.enrolment import Told
from vedette.fleet.hub_settings import BrokerSettings
from vedette.fleet.link import Endpoint
from vedette.model.errors import ConfigError
from vedette.model.fleet import Agent
from vedette.system.files import write_atomic


class Cluster:
    """As `Broker`, with nothing to start. `accounts.conf` in the folder is for the cluster's configuration."""

    def __init__(self, folder: Path, authority: Authority, settings: BrokerSettings) -> None:
        self._folder = folder
        self._authority = authority
        self._settings = settings
        self._written = b""
        self._credentials = folder / "hub.creds"

    async def __aenter__(self) -> Self:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self.allow(())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._credentials.unlink(missing_ok=True)

    async def allow(self, agents: Iterable[Agent]) -> None:
        """Write who may say what; in force once the cluster has read it."""
        accounts = subjects.accounts(list(agents), subject_text(HUB_USER, HUB_NAME), user_of)
        text = f"accounts: {json.dumps(accounts, indent=1)}\n".encode()
        if text != self._written:
            await asyncio.to_thread(write_atomic, self._folder / "accounts.conf", text, follow=False)
            self._written = text

    def hub_endpoint(self) -> Endpoint:
        """For the hub's own connection: by certificate, or by the credentials of the settings. ConfigError without."""
        context = self._authority.identity(HUB_USER, server=False).with_authority(self._trust()).client_context()
        if self._settings.credentials is None:
            return Endpoint(self._settings.urls, context, HUB_INBOX, "")
        # The library reads credentials from a file only.
        write_atomic(self._credentials, self._settings.credentials.read().encode(), follow=False)
        return Endpoint(self._settings.urls, context, HUB_INBOX, "", str(self._credentials))

    def told(self, advertise: tuple[str, ...] = ()) -> Told:
        """What agents are told of it."""
        return Told(advertise or self._settings.urls, self._trust(), "")

    def _trust(self) -> bytes:
        if not self._settings.trust:
            return self._authority.certificate
        try:
            trusted = Path(self._settings.trust).read_bytes()
        except OSError as error:
            raise ConfigError(f"hub.broker.trust {self._settings.trust}: {error.strerror}") from None
        trusting(trusted)
        return trusted
