"""Run as a program in a namespace: looks at ports of addresses with the prober, prints what it saw and what it cost.
Counterpart: `bench.ports` starts it, and nmap beside it."""

from __future__ import annotations

import json
import sys

from vedette.model.clock import SystemClock
from vedette.model.ports import PortRange, PortState
from vedette.sources.ports.prober import Prober, Target


def main() -> None:
    """`ports_look.py FIRST-LAST ADDRESS...`: a line of JSON, {address: {state: ports}} of every state but closed."""
    first, last = map(int, sys.argv[1].split("-"))
    prober = Prober(SystemClock())
    surveys = prober.look([Target(one, one, (PortRange(first, last),)) for one in sys.argv[2:]], "here")
    seen = {
        one.address: {state.value: sorted(one.ports_in(state)) for state in PortState if state is not PortState.CLOSED}
        for one in surveys
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
