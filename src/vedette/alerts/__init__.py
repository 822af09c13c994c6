"""Findings to alerts to notifications: pure logic over a transaction and a time, no I/O.
Counterpart: `store` keeps what is decided here, `notify` delivers what is planned here."""
