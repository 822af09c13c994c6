"""Rootkits and tampering: what hides, what runs without a file, what was made to start first or cannot be changed.
Counterpart: `rules/packs/rootkit.yml` gives levels and advice; docs/rootkit.md says what each check can see."""
