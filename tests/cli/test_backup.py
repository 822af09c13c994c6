"""`vedette backup` and `restore` as a person types them.
Counterpart: vedette.cli.backup."""

from __future__ import annotations

from pathlib import Path

from tests.cli.parts import Place


def test_there_and_back(place: Place, tmp_path: Path):
    (alert,) = place.fire(("ssh-got-in", {"user.name": "root"}))
    archive, bare = tmp_path / "hub.vedette", tmp_path / "bare"
    ran = place.run("backup", archive)
    assert ran.code == 0, ran.err
    assert "not sealed" in ran.err
    verified = place.run("restore", archive, "--verify")
    assert (verified.code, bare.exists()) == (0, False)
    assert "whole" in verified.out
    restored = place.run("restore", archive, "--data", bare)
    assert restored.code == 0, restored.err
    assert (bare / "configuration" / "vedette.yml").read_bytes() == place.config.read_bytes()
    assert alert.id in place.run("alerts", "list", "--data", bare).out


def test_a_restore_over_something_is_refused(place: Place, tmp_path: Path):
    place.fire(("ssh-got-in", {"user.name": "root"}))
    archive = tmp_path / "hub.vedette"
    assert place.run("backup", archive).code == 0
    ran = place.run("restore", archive)
    assert ran.code == 2
    assert "not empty" in ran.err


def test_a_passphrase_is_long_or_refused(place: Place, tmp_path: Path):
    place.fire(("ssh-got-in", {"user.name": "root"}))
    secret = tmp_path / "passphrase"
    secret.write_text("short\n")
    ran = place.run("backup", tmp_path / "archive", "--passphrase-file", secret)
    assert ran.code == 2
    assert "12 characters" in ran.err
    assert "short\n" not in ran.err
    assert not (tmp_path / "archive").exists()
