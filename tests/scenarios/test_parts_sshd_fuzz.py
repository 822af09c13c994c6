"""Proves the fuzzer of a real sshd: its texts reach the log in many grammars, and all of it came from one address.
Counterpart: parts/sshd_fuzz.py and parts/sshd_sessions.py."""

from __future__ import annotations

import random
import re
from itertools import islice
from pathlib import Path

import pytest
from tests.scenarios.parts import netns
from tests.scenarios.parts.netns import Wire
from tests.scenarios.parts.sshd_fuzz import aligned_name, collect, texts
from tests.scenarios.parts.sshd_sessions import Sessions

_HEADER = re.compile(rb"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d bastion sshd\[(\d+)\]: ")


def test_the_same_seed_makes_the_same_texts():
    first, second, other = (list(islice(texts(random.Random(seed)), 300)) for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert sum(netns.VICTIM.encode() in text for text in first) > 290


def test_an_aligned_name_fills_the_message_to_the_last_byte():
    line, tail = b"Connection closed by invalid user ", b"x 203.0.113.9 port 22 [preauth]"
    name = aligned_name(line, tail)
    assert len(name) <= 187
    assert len(line + name.rstrip(b" ").replace(b"\xff", rb"\\377")) == 500
    assert name.rstrip(b" ").endswith(tail)


@pytest.mark.root
@pytest.mark.slow
def test_hostile_texts_reach_the_log_in_many_grammars(wire: Wire, scratch: Path):
    run = collect(wire, scratch / "fuzz", seed=2, sessions=330)
    messages = [_HEADER.sub(b"", line) for line in run.lines]
    assert all(_HEADER.match(line) for line in run.lines)
    planted = [message for message in messages if netns.VICTIM.encode() in message]
    assert len(planted) > 300
    for start in (
        b"Invalid user ",
        b"Failed password for invalid user ",
        b"Failed publickey for ",
        b"Received disconnect from ",
        b"Disconnected from invalid user ",
        b"Connection closed by invalid user ",
        b"Disconnecting invalid user ",
        b"Unable to negotiate with ",
        b"probed from ",
        b"error: kex_exchange_identification: client sent invalid protocol identifier ",
        b"error: maximum authentication attempts exceeded for invalid user ",
        b"userauth_hostbased mismatch: client sends ",
        b"userauth_pubkey: unsupported public key algorithm: ",
        b"Nasty PTR record ",
        b"User alice from 203.0.113.9.attacker.example not allowed ",
    ):
        assert any(message.startswith(start) for message in planted), start
    # sshd's cut at 500 bytes leaves whole, well-formed lines in which only the planted address is to be seen.
    cut_off = [message for message in planted if len(message) == 500 and netns.ATTACKER.encode() not in message]
    assert any(
        re.search(rb"^Connection closed by invalid user .* 203\.0\.113\.9 port 22 \[preauth\]$", one) for one in cut_off
    )
    # Written by sshd itself, a user name's newlines make whole lines of the attacker's.
    assert b"Failed password for root from 203.0.113.9 port 22 ssh2" in run.headerless
    connected = {message.split()[2] for message in messages if message.startswith(b"Connection from ")}
    assert connected == {netns.ATTACKER.encode()}


@pytest.mark.root
@pytest.mark.slow
def test_the_round_of_sessions_causes_every_kind_of_line(wire: Wire, scratch: Path):
    (scratch / "round").mkdir()
    lines = Sessions(wire, scratch / "round").collect()
    messages = [_HEADER.sub(b"", line) for line in lines]
    for pattern in (
        rb"Accepted password for alice from 198\.18\.0\.20 ",
        rb"Accepted publickey for alice from .* ssh2: RSA SHA256:",
        rb"Accepted publickey for alice from .* ED25519-CERT .* ID alice@example\.org ",
        rb"Accepted keyboard-interactive/pam for alice from ",
        rb"Failed keyboard-interactive/pam for invalid user ghost from ",
        rb"Failed password for root from ",
        rb"Failed password for alice from 2001:db8:7::7 ",
        rb"Failed none for alice from ",
        rb"Invalid user  from ",
        rb"error: maximum authentication attempts exceeded for ",
        rb"Disconnecting authenticating user alice .*: Too many authentication failures",
        rb"Disconnecting authenticating user alice .*: Change of username or service not allowed",
        rb"Connection reset by ",
        rb"Unable to negotiate with .*: no matching cipher found\.",
        rb"error: Protocol major versions differ: 2 vs\. 1",
        rb"User noshell not allowed because shell ",
        rb"User locked not allowed because account is locked",
        rb"User denied from .* not allowed because listed in DenyUsers",
        rb"drop connection #\d+ from \[198\.51\.100\.7\]:\d+ on \[192\.0\.2\.1\]:22 past MaxStartups",
        rb"pam_unix\(sshd:auth\): authentication failure; .* rhost=198\.51\.100\.7  user=alice",
        rb"pam_unix\(sshd:session\): session opened for user alice",
        rb"fatal: Access denied for user expired by PAM account configuration",
        rb"subsystem request for nosuch by user alice failed",
        rb"Received SIGHUP; restarting\.",
    ):
        assert any(re.match(pattern, message) for message in messages), pattern
