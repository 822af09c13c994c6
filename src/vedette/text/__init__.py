"""Pure functions on text: escaping, addresses, times.
Counterpart: every stage may import it; it imports nothing of ours."""
