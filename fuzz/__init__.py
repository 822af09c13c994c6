"""Hostile bytes against everything that reads what others wrote, guided by coverage (atheris).
Counterpart: `make fuzz` runs it; tests/test_fuzz_found.py runs again whatever it ever found."""
