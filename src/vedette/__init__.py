"""The package: what is watched becomes events, findings, alerts and decisions; holds the version only.
Counterpart: vedette.app, which wires the rooms together."""

__version__ = "0.1.0.dev0"
