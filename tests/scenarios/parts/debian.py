"""A small Debian of one's own: packages of dpkg-deb, an archive signed with gpg, a root that dpkg installs into.
Counterpart: test_integrity_packages.py; `sources.integrity` reads all of it as it would the machine's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path


def _run(*argv: str | Path, env: Mapping[str, str] | None = None) -> bytes:
    whole = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **(env or {})}
    ended = subprocess.run([str(one) for one in argv], env=whole, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


class Debian:
    """Everything lies under `folder`: `root` (dpkg's), `pool` (.deb files), `lists` (as apt keeps them), `keyring`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.pool, self.lists = folder / "root", folder / "pool", folder / "lists"
        self.log, self.keyring = folder / "dpkg.log", folder / "archive.gpg"
        for one in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "tmp", "etc"):
            (self.root / one).mkdir(parents=True)
        for name in ("status", "available"):
            (self.root / "var/lib/dpkg" / name).touch()
        for made in (self.pool, self.lists, folder / "build"):
            made.mkdir()
        (folder / "gnupg").mkdir(mode=0o700)
        self._listed: list[str] = []
        self.repository = folder / "repository"
        self._gpg("--passphrase", "", "--quick-gen-key", "archive@example.org", "ed25519", "sign", "never")
        self.keyring.write_bytes(self._gpg("--export"))

    def close(self) -> None:
        """End the agent that gpg started."""
        _run("gpgconf", "--kill", "all", env={"GNUPGHOME": str(self.folder / "gnupg")})

    def _gpg(self, *arguments: str | Path) -> bytes:
        return _run(
            "gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", *arguments,
            env={"GNUPGHOME": str(self.folder / "gnupg")},
        )  # fmt: skip

    def build(
        self,
        name: str,
        version: str,
        files: Mapping[str, bytes],
        *,
        conffiles: tuple[str, ...] = (),
        scripts: Mapping[str, str] | None = None,
        packing: str = "xz",
        listed: bool = True,
        folder: str = "pool",
        depends: str = "",
    ) -> Path:
        """A package in the pool, with its md5sums; files under bin/ and scripts are executable.

        listed: in the signed archive. folder: where else it is to lie.
        """
        tree = self.folder / "build" / folder / f"{name}-{version}"
        control = tree / "DEBIAN"
        control.mkdir(parents=True)
        sums = []
        for path, content in files.items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o755 if "bin/" in path or content.startswith(b"#!") else 0o644)
            if f"/{path}" not in conffiles:
                sums.append(f"{hashlib.md5(content).hexdigest()}  {path}\n")
        fields = (
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n"
            f"{f'Depends: {depends}' if depends else 'Priority: optional'}\nDescription: a test\n"
        )
        (control / "control").write_text(fields)
        (control / "md5sums").write_text("".join(sums))
        if conffiles:
            (control / "conffiles").write_text("".join(f"{one}\n" for one in conffiles))
        for script, text in (scripts or {}).items():
            (control / script).write_text(text)
            (control / script).chmod(0o755)
        deb = self.folder / folder / f"{name}_{version}_all.deb"
        deb.parent.mkdir(exist_ok=True)
        _run("dpkg-deb", "--root-owner-group", f"-Z{packing}", "-b", tree, deb)
        if listed:
            self._listed.append(f"{fields}SHA256: {hashlib.sha256(deb.read_bytes()).hexdigest()}\n")
            self.publish()
        return deb

    def publish(self) -> None:
        """Write the archive's lists anew, signed."""
        packages = "\n".join(self._listed).encode()
        prefix = "example.org_debian_dists_stable_"
        (self.lists / f"{prefix}main_binary-amd64_Packages").write_bytes(packages)
        digest = hashlib.sha256(packages).hexdigest()
        release = self.folder / "Release"
        release.write_text(
            f"Origin: Example\nCodename: stable\nSHA256:\n {digest} {len(packages)} main/binary-amd64/Packages\n"
        )
        target = self.lists / f"{prefix}InRelease"
        self._gpg("--yes", "--output", target, "--clear-sign", release)

    def publish_repository(self) -> None:
        """All of the pool as an archive that apt can ask, at `repository`."""
        lists = self.repository / "dists/stable/main/binary-amd64"
        lists.mkdir(parents=True, exist_ok=True)
        stanzas = []
        for deb in sorted(self.pool.glob("*.deb")):
            shutil.copy(deb, self.repository / deb.name)
            content = deb.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            control = _run("dpkg-deb", "-f", deb).decode()
            stanzas.append(f"{control}Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {digest}\n")
        packages = "\n".join(stanzas).encode()
        (lists / "Packages").write_bytes(packages)
        release = self.repository / "Release"
        release.write_text(
            "Origin: Example\nSuite: stable\nCodename: stable\nArchitectures: amd64 all\nComponents: main\n"
            f"Date: {format_datetime(datetime.now(UTC), usegmt=True)}\nSHA256:\n"
            f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-amd64/Packages\n"
        )
        self._gpg("--yes", "--output", self.repository / "dists/stable/InRelease", "--clear-sign", release)

    def install(self, deb: Path) -> None:
        """Install or upgrade, as dpkg does."""
        self._dpkg("-i", deb)

    def remove(self, name: str) -> None:
        """Take it away, its configuration too."""
        self._dpkg("-P", name)

    def _dpkg(self, *arguments: str | Path) -> None:
        _run(
            "dpkg", f"--root={self.root}", f"--log={self.log}", "--force-depends", "--force-script-chrootless",
            "--force-confold", *arguments,
        )  # fmt: skip

    def path(self, name: str) -> bytes:
        """A path of the root, as this machine names it."""
        return os.fsencode(self.root / name)
