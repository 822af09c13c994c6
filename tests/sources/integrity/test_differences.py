"""Differences of configuration files: what is shown, what is masked, and of which files there is none.
Counterpart: differences.py; the trees stand for /etc by a list of what is configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.model.integrity import Attribute, Change, ChangeKind, Entry, FileType
from vedette.sources.integrity import differences
from vedette.sources.integrity.differences import Differences, NoDifference, mask


class Etc:
    """A folder that counts as /etc, and the copies kept of it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "etc"
        self.root.mkdir()
        self.kept = root / "kept"
        self.asked = Differences(self.kept)

    def put(self, name: str, content: str | bytes, mode: int = 0o644) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def changed(self, name: str, kind: ChangeKind = ChangeKind.CHANGED) -> differences.Difference:
        entry = Entry(os.fsencode(self.root / name), FileType.FILE, 0o644, 0, 0, 1, 0, 0, 0, 0, 1)
        after = None if kind is ChangeKind.REMOVED else entry
        found = self.asked.of(Change(kind, entry.path, (Attribute.CONTENT,), entry, after))
        assert found is not None
        return found


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Etc:
    monkeypatch.setattr(differences, "_CONFIGURATION", (f"{tmp_path}/etc/*",))
    return Etc(tmp_path)


def test_what_changed_is_shown_line_by_line(etc: Etc) -> None:
    etc.put("sshd_config", "Port 22\nPermitRootLogin no\nUsePAM yes\n")
    assert etc.asked.learn([os.fsencode(etc.root)]) == 1
    etc.put("sshd_config", "Port 22\nPermitRootLogin yes\nUsePAM yes\n")
    assert etc.changed("sshd_config").text.splitlines() == [
        "@@ -1,3 +1,3 @@",
        " Port 22",
        "-PermitRootLogin no",
        "+PermitRootLogin yes",
        " UsePAM yes",
    ]
    # The copy is what is there now.
    etc.put("sshd_config", "Port 22\nPermitRootLogin yes\nUsePAM no\n")
    assert "+UsePAM no" in etc.changed("sshd_config").text
    (etc.root / "sshd_config").unlink()
    assert "-Port 22" in etc.changed("sshd_config", ChangeKind.REMOVED).text
    etc.put("new.conf", "a\n")
    assert "+a" in etc.changed("new.conf", ChangeKind.ADDED).text


def test_what_is_masked_is_kept_nowhere(etc: Etc) -> None:
    etc.put("app.conf", "user = me\npassword = hunter2hunter2\n")
    etc.asked.learn([os.fsencode(etc.root)])
    etc.put("app.conf", "user = me\npassword = correcthorse\n")
    assert etc.changed("app.conf").text == "(nothing but masked values, or how lines end)"
    etc.put("app.conf", "user = you\npassword = batterystaple\n")
    assert "+user = you" in etc.changed("app.conf").text
    everything = b"".join(one.read_bytes() for one in etc.kept.iterdir())
    for secret in (b"hunter2", b"correcthorse", b"batterystaple"):
        assert secret not in everything


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("password = x y", "password = [masked]"),
        ("db_password: 'x'", "db_password: [masked]"),
        ('"api_key": "x",', '"api_key": [masked]'),
        ("requirepass foo", "requirepass [masked]"),
        ("url = postgres://me:secretword@db/x", "url = postgres://me:[masked]@db/x"),
        ("root:$6$salt$abcdefghijk:1", "root:[masked]:1"),
        ("x = 0123456789abcdef0123456789abcdef01234567", "x = [masked]"),
        ("path = /usr/lib/x86_64-linux-gnu/a/very/long/path/to/some/file.so.1", None),
        ("PermitRootLogin no", None),
        ("use_token = yes", None),
        ("password no such word", "password [masked]"),
        ("PasswordAuthentication no", None),
        ("", None),
    ],
)
def test_what_looks_like_a_secret_is_masked(line: str, masked: str | None) -> None:
    assert mask(line) == (line if masked is None else masked)


@pytest.mark.parametrize(
    "line",
    [
        "0 1 * * * root mysqldump -u root -p{} db",
        "0 1 * * * curl -u admin:{} https://x/",
        "0 1 * * * tool --password {} --all",
        "0 1 * * * tool --password '{} and more'",
        "0 1 * * * sshpass -p {} ssh host",
        "bindpw {}",
        'key "x" {{ algorithm hmac-sha256; secret "{}"; }};',
        "define('DB_PASSWORD', '{}');",
        "<password>{}</password>",
    ],
)
def test_secrets_within_a_line_are_masked_too(line: str) -> None:
    assert "hunter2" not in mask(line.format("hunter2"))


def test_the_lines_of_pam_are_no_secrets() -> None:
    line = "password required pam_unix.so sha512"
    assert mask(line, spaced=False) == line
    assert mask(line) != line


@pytest.mark.parametrize(
    ("name", "content", "mode", "why"),
    [
        ("shadow", "root:*:1", 0o640, NoDifference.HOLDS_KEYS),
        ("ssl/private/a", "x", 0o644, NoDifference.HOLDS_KEYS),
        ("ssh_host_ed25519_key", "x", 0o644, NoDifference.HOLDS_KEYS),
        ("x.conf", "-----BEGIN RSA PRIVATE KEY-----\n", 0o644, NoDifference.HOLDS_KEYS),
        ("closed.conf", "x", 0o600, NoDifference.NOT_FOR_ALL),
        ("binary.conf", b"a\0b", 0o644, NoDifference.NOT_TEXT),
        ("long.conf", "x" * 300_000, 0o644, NoDifference.TOO_LONG),
        ("lines.conf", "x\n" * 6_000, 0o644, NoDifference.TOO_LONG),
    ],
)
def test_of_keys_and_of_what_is_not_for_all_there_is_none(
    etc: Etc, name: str, content: str | bytes, mode: int, why: NoDifference
) -> None:
    etc.put(name, content, mode)
    assert etc.asked.learn([os.fsencode(etc.root)]) == 0
    assert etc.changed(name, ChangeKind.ADDED).why is why
    assert list(etc.kept.iterdir()) == []


def test_what_is_no_configuration_or_was_never_seen_has_none(etc: Etc, tmp_path: Path) -> None:
    etc.put("a.conf", "a\n")
    assert etc.changed("a.conf").why is NoDifference.NOT_KEPT
    entry = Entry(b"/usr/bin/ls", FileType.FILE, 0o755, 0, 0, 1, 0, 0, 0, 0, 1)
    found = etc.asked.of(Change(ChangeKind.ADDED, entry.path, after=entry))
    assert found is not None
    assert found.why is NoDifference.NOT_CONFIGURATION
    assert etc.asked.of(Change(ChangeKind.CHANGED, entry.path, (Attribute.MODE,), entry, entry)) is None


def test_it_is_bounded_and_escaped(etc: Etc) -> None:
    etc.put("a.conf", "\n")
    etc.asked.learn([os.fsencode(etc.root)])
    etc.put("a.conf", b"\x1b[31m\xff" + b"y" * 900 + b"\n" + b"line\n" * 500)
    text = etc.changed("a.conf").text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 300
    assert len(text.splitlines()) == 61
    assert text.endswith("more lines)")
