"""Stand-ins for clock, host and state: shipped, for people who write rules and plug-ins.
Counterpart: the protocols of `model`, which these fulfil without a machine underneath."""
