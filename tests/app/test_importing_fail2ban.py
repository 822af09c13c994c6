"""fail2ban's and DenyHosts' installations taken over: what comes out loads, blocks nobody, and says what is missing.
Counterpart: `app.importing_fail2ban` and `app.importing_denyhosts`."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.app.importing import Equal, Imported, importer_of, written
from vedette.config.load import load_settings
from vedette.model.decisions import Rung
from vedette.model.errors import VedetteError
from vedette.rules.loading import load


def taken_over(path: Path, to: Path) -> Imported:
    imported = importer_of(path).read(path)
    for name, data in {"vedette.yml": written(imported.settings, to), **imported.files}.items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(data)
    return imported


@pytest.fixture
def fail2ban(tmp_path: Path) -> Path:
    folder = tmp_path / "fail2ban"
    (folder / "filter.d").mkdir(parents=True)
    (folder / "filter.d" / "demo.conf").write_text("[Definition]\nfailregex = ^ denied <ADDR>$\n")
    (folder / "jail.conf").write_text(
        "[DEFAULT]\nenabled = false\nmaxretry = 4\nbanaction = iptables\nignorecommand = /bin/true\n"
        "ignoreip = 127.0.0.1/8 192.0.2.7\n           office.example.net\n[demo]\nlogpath = /var/log/demo.log tail\n"
    )
    (folder / "jail.local").write_text(
        "[demo]\nenabled = true\nbantime = -1\n[journal]\nenabled = true\nfilter = demo\nbackend = systemd\n"
        "[broken]\nenabled = true\n"
    )
    return folder


def test_jails_are_rules_in_simulate(fail2ban: Path, tmp_path: Path) -> None:
    to = tmp_path / "new"
    imported = taken_over(fail2ban, to)
    settings = load_settings(to / "vedette.yml")
    assert settings.respond == {"fail2ban-demo": Rung.SIMULATE, "fail2ban-journal": Rung.SIMULATE}
    assert [entry.network for entry in settings.blocking.allowlist] == ["127.0.0.0/8", "192.0.2.7/32"]
    assert settings.sources.file is not None
    assert settings.sources.file[0].paths == ("/var/log/demo.log",)
    rules = load(settings.rules.paths, keep_going=True).rules
    assert {rule.id for rule in rules if not rule.silent} == set(settings.respond)
    assert (to / "fail2ban" / "jail.local").read_bytes() == (fail2ban / "jail.local").read_bytes()
    said = {(str(one.equal), one.words.split(":")[0].split(" is ")[0]) for one in imported.remarks}
    assert (Equal.NONE, "ignoreip office.example.net") in said
    assert (Equal.NONE, "left out") in said
    assert (Equal.NONE, "DEFAULT") in said
    assert (Equal.CHANGED, "jail demo") in said
    assert (Equal.SAME, "jail journal") in said
    assert all(one.place.line for one in imported.remarks if one.words.startswith("ignoreip"))


def test_what_is_no_installation(tmp_path: Path) -> None:
    with pytest.raises(VedetteError, match="no installation that is known"):
        importer_of(tmp_path)
    with pytest.raises(VedetteError, match="holds no jails"):
        importer_of(tmp_path, "fail2ban").read(tmp_path)


def test_denyhosts(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    (folder / "work").mkdir(parents=True)
    (folder / "denyhosts.conf").write_text(
        "SECURE_LOG = /var/log/auth.log\nDENY_THRESHOLD_INVALID = 3\nDENY_THRESHOLD_ROOT = 1\nSYNC_UPLOAD = yes\n"
        "ADMIN_EMAIL = root@example.org\n"
    )
    (folder / "work" / "allowed-hosts").write_text("192.0.2.7\n198.51.100.*\n")
    to = tmp_path / "new"
    imported = taken_over(folder, to)
    settings = load_settings(to / "vedette.yml")
    assert settings.rules.ssh.attempts is not None
    assert settings.rules.ssh.attempts.unknown_user == 3
    assert set(settings.respond.values()) == {Rung.SIMULATE}
    assert len(settings.blocking.allowlist_files) == 1
    assert "192.0.2.7" in Path(settings.blocking.allowlist_files[0]).read_text()
    assert any("SYNC_UPLOAD" in one.words and one.equal is Equal.NONE for one in imported.remarks)
    assert any("mail to was root@example.org" in one.words for one in imported.remarks)


@pytest.mark.corpus
def test_fail2bans_own_installation(corpus: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "fail2ban"
    shutil.copytree(corpus / "fail2ban" / "config", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    (folder / "jail.local").write_text("[DEFAULT]\nenabled = true\n")
    imported = taken_over(folder, tmp_path / "new")
    enabled = imported.settings["respond"]
    assert isinstance(enabled, dict)
    assert len(enabled) > 80
    assert not [one for one in imported.remarks if one.words.startswith("left out") and "sshd" in one.words]
