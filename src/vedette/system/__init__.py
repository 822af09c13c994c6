"""I/O leaves: programs without a shell, files replaced whole, secrets.
Counterpart: stages that touch the machine do it through here."""
