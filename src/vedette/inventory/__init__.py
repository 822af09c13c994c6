"""Which hosts exist and what is expected of them, from wherever that is written down.
Counterpart: `sources.ports` looks whether it is so; `app` hands expectations over and joins several inventories."""
