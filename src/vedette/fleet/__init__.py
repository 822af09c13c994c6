"""Agents and hub: what is shipped, how, by whom, and what is known to be missing.
Counterpart: `app` wires both sides; `store` keeps what arrives."""
