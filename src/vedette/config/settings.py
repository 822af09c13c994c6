"""Everything a person can set, in one frozen object; nothing set is a working configuration.
Counterpart: `config.load` makes it from files, `app` hands each stage its part."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vedette.alerts.settings import AlertsSettings
from vedette.config.folders import default_data_folder
from vedette.fleet.forward_settings import ForwardTargets
from vedette.fleet.hub_settings import HubSettings
from vedette.fleet.settings import ShippingSettings
from vedette.model.decisions import Rung
from vedette.notify.settings import NotifySettings
from vedette.respond.settings import RespondSettings
from vedette.rules.settings import RulesSettings
from vedette.sources.settings import SourcesSettings
from vedette.store.lake.settings import LakeSettings
from vedette.store.settings import OperatorsSettings, RetentionSettings


class Settings(BaseModel):
    """The whole configuration. `respond` says how far each rule's response has climbed; `blocking` how it blocks."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = 1
    data: Path | None = Field(default=None, description="data folder; default /var/lib/vedette, or the user's own")
    user: str = Field(default="nobody", description="whom `up` becomes when started by root")
    priority: Literal["real-time", "normal"] = Field(
        default="real-time",
        description="how `up` gets the processor: before everything that takes turns while it is not busy, or in turn",
    )
    state_url: str = Field(default="", description="SQLAlchemy URL of the state; default: SQLite in the data folder")
    retention: RetentionSettings = RetentionSettings()
    operators: OperatorsSettings = OperatorsSettings()
    lake: LakeSettings = LakeSettings()
    shipping: ShippingSettings = ShippingSettings()
    hub: HubSettings = HubSettings()
    forward: ForwardTargets = Field(default=(), description="where what is in the lake is sent on to")
    sources: SourcesSettings = SourcesSettings()
    rules: RulesSettings = RulesSettings()
    alerts: AlertsSettings = AlertsSettings()
    notify: NotifySettings = NotifySettings()
    respond: dict[str, Rung] = Field(default_factory=dict, description="rule id -> observe, simulate, canary, enforce")
    blocking: RespondSettings = RespondSettings()

    @model_validator(mode="after")
    def _one_place_for_rungs(self) -> Settings:
        if self.blocking.rungs:
            raise ValueError("rules and their rungs stand under `respond:`")
        if Rung.CANARY in self.respond.values() and not self.blocking.canary_hosts:
            raise ValueError("`respond:` has a rule on the rung canary: name the hosts under `blocking: canary_hosts:`")
        return self

    @property
    def responding(self) -> RespondSettings:
        """What the respond stage is constructed from: `blocking` with the rungs of `respond`."""
        return self.blocking.model_copy(update={"rungs": dict(self.respond)})

    def data_folder(self) -> Path:
        """Where this host keeps its data, by configuration or by who runs it."""
        return default_data_folder() if self.data is None else self.data
