"""`vedette tail`: records that satisfy a query, as they come into the lake.
Counterpart: `app.search_tail` follows the lake; `search` looks back."""

from __future__ import annotations

import sys
import time

from vedette.cli.options import Config, Data, Output
from vedette.cli.output import Format, errors_said, say, write_json
from vedette.cli.searching import Hosts, QueryLine, Streams, lake_folder, opened, shown

_PAUSE = 0.5
"""Seconds between two looks at the manifest."""


def tail(
    query: QueryLine = "",
    host: Hosts = None,
    source: Streams = None,
    config: Config = None,
    data: Data = None,
    output: Output = Format.TEXT,
) -> None:
    """Show what comes into the lake from now on and satisfies the query, until Ctrl-C."""
    with errors_said():
        folder = lake_folder(config, data)
        from vedette.app.counters import Counters
        from vedette.app.search import Confirming, record_of
        from vedette.app.search_tail import follow, last_sequence
        from vedette.model.errors import VedetteError
        from vedette.rules.query import parse_query

        asked = parse_query(query)
        if asked.since is not None or asked.until is not None:
            raise VedetteError("tail shows what comes from now on", hint="`vedette search` looks back")
        confirming = Confirming(asked.node, Counters())

        def wait() -> bool:
            time.sleep(_PAUSE)
            return True

        after = last_sequence(folder)
        with opened(folder) as lake:
            found = follow(
                lake,
                confirming,
                after=after,
                wait=wait,
                hosts=frozenset(host or ()),
                streams=frozenset(source or ()),
            )
            for hits in found:
                parsed = confirming.table(hits[0].batch)
                records = [record_of(hit, parsed) for hit in hits]
                if output is Format.JSON:
                    write_json(records)
                else:
                    for record in records:
                        say(shown(record))
                    sys.stdout.flush()
