"""Measures Vedette and its peers on this machine: `python -m bench`, or `make bench`.
Counterpart: docs/benchmarks.md holds what came out; no test asserts any of it."""
