"""Takes logins and failures out of what matched, for `respond.known_logins`.
Counterpart: `detections.Engine` hands in every batch's matches before it correlates them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vedette.detections.matches import Matches
from vedette.model.batch import Batch, Trust
from vedette.model.events import Column
from vedette.model.rules import Rule
from vedette.respond.known_logins import KnownLogins


class Knowing:
    """Tells `known` who logged in and who failed. One thread owns it.

    rules: as the matcher has them, `login` among them: its records are successful logins. accept_forgeable: of a
    source name, whether the operator believes its forgeable records.
    """

    def __init__(
        self, known: KnownLogins, rules: Sequence[Rule], login: str, accept_forgeable: Callable[[str], bool]
    ) -> None:
        self.known = known
        self._accept = accept_forgeable
        self._login = {index for index, rule in enumerate(rules) if rule.id == login}
        self._counted: dict[int, list[str]] = {}
        for rule_id, counting in known.counting.items():
            for index, rule in enumerate(rules):
                if not {rule.id, *rule.groups}.isdisjoint(counting.of):
                    self._counted.setdefault(index, []).append(rule_id)

    def see(self, batch: Batch, matches: Matches) -> None:
        """The records of one batch, in order."""
        addresses = matches.fields.get("source.ip")
        users = matches.fields.get("user.name")
        if addresses is None or users is None:
            return
        least = Trust.FORGEABLE if self._accept(batch.origin.source) else Trust.ATTESTED
        rows: list[tuple[int, int]] = []
        for index in self._login & matches.hits.keys():
            hits = matches.hits[index]
            sure = (matches.trust[hits] >= least) & ~matches.ambiguous[hits]
            rows += [(at, index) for at in hits[sure].tolist()]
        coming = {_text(addresses, at) for at, _ in rows}
        if len(self.known) or coming:
            codes = [
                code
                for code, value in enumerate(addresses.values)
                if isinstance(value, str) and (value in coming or self.known.knows(value))
            ]
            for index in self._counted.keys() & matches.hits.keys() if codes else ():
                hits = matches.hits[index]
                rows += [(at, index) for at in hits[np.isin(addresses.codes[hits], codes)].tolist()]
        for at, index in sorted(rows):
            user, address, time = _text(users, at), _text(addresses, at), int(matches.time[at])
            if index in self._login:
                if user and address:
                    self.known.succeeded(user, address, min(time, batch.read_at))
                continue
            for rule_id in self._counted[index]:
                self.known.failed(rule_id, user, address, time, int(matches.repeat[at]))


def _text(column: Column, at: int) -> str:
    value = column.value(at)
    return value if isinstance(value, str) else ""
