"""A whole small Debian: real packages copied out of this machine's own, in a memory file system and a namespace.
Counterpart: test_integrity_day.py lives a day in it; `debian` builds the archive that its apt asks."""

# Copied are the packages named and all they depend on, by dpkg's own lists, with dpkg's database cut down to them:
# what debootstrap would give, without a mirror. The process that keeps the mount namespace is `keep` below.
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .debian import Debian
from .netns import Namespace
from .processes import PartError, Process, run, wait_until

PACKAGES = (
    "adduser", "apt", "base-files", "base-passwd", "bash", "ca-certificates", "cron", "debianutils", "dpkg",
    "initramfs-tools", "kmod", "libpam-modules", "login", "logrotate", "man-db", "openssh-client", "openssl", "passwd",
    "procps", "python3", "util-linux", "vim-tiny", "zstd", "cpio", "gpgv",
    "debian-archive-keyring", "libpam-runtime", "bzip2", "xz-utils",
    "init-system-helpers", "sysvinit-utils", "mount", "hostname", "findutils", "grep", "sed", "gzip", "diffutils",
)  # fmt: skip
_DPKG = Path("/var/lib/dpkg")
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_MADE = (
    # What scripts of packages made of them, or an installer would.
    "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/shells", "etc/nsswitch.conf", "etc/environment",
    "etc/pam.d/common-account", "etc/pam.d/common-auth", "etc/pam.d/common-password", "etc/pam.d/common-session",
    "etc/pam.d/common-session-noninteractive", "etc/ld.so.conf", "etc/ssl/certs", "etc/ca-certificates.conf",
    "etc/initramfs-tools", "etc/profile", "root/.bashrc", "root/.profile",
)  # fmt: skip
_NOT_COPIED = ("/usr/share/doc/", "/usr/share/locale/", "/usr/share/info/", "/usr/share/bash-completion/")


def _stanzas(dpkg: Path = _DPKG) -> dict[str, str]:
    found: dict[str, str] = {}
    for stanza in (dpkg / "status").read_text().split("\n\n"):
        if "\nStatus: install ok installed" in stanza:
            found.setdefault(_field(stanza, "Package"), stanza)
    return found


def _field(stanza: str, name: str) -> str:
    return next((line.partition(": ")[2] for line in stanza.splitlines() if line.startswith(f"{name}: ")), "")


def closure(wanted: Sequence[str]) -> dict[str, str]:
    """The stanzas of packages that are installed here, and of all they need; PartError where one is missing."""
    stanzas = _stanzas()
    provided: dict[str, str] = {}
    for name, stanza in stanzas.items():
        for one in _field(stanza, "Provides").split(","):
            provided.setdefault(one.split(" ")[0].strip() if one.strip() == one else one.split()[0], name)
    found: dict[str, str] = {}
    waiting = [*wanted, *(name for name, stanza in stanzas.items() if _field(stanza, "Essential") == "yes")]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in stanzas:
            raise PartError(f"the package {name} is not installed (make packages)")
        found[name] = stanzas[name]
        for field in ("Pre-Depends", "Depends"):
            for alternatives in filter(None, _field(stanzas[name], field).split(", ")):
                names = [one.split()[0].partition(":")[0] for one in alternatives.split("|")]
                here = next((one for one in names if one in stanzas), None)
                here = here or next((provided[one] for one in names if one in provided), None)
                if here is not None:
                    waiting.append(here)
    return found


def populate(root: Path) -> None:
    """Lay it into the empty folder `root`."""
    stanzas = closure(PACKAGES)
    for name in _MERGED:
        if (Path("/") / name).is_symlink():
            (root / f"usr/{name}").mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(f"usr/{name}")
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    paths: set[str] = set()
    for name, stanza in stanzas.items():
        stem = f"{name}:{_field(stanza, 'Architecture')}"
        stem = stem if (_DPKG / f"info/{stem}.list").exists() else name
        for file in (_DPKG / "info").glob(f"{stem}.*"):
            shutil.copy2(file, info / file.name)
        for line in (_DPKG / f"info/{stem}.list").read_text().splitlines():
            if not line.startswith(_NOT_COPIED) and os.path.lexists(line):
                paths.add(line.lstrip("/"))
    paths |= {one for one in _MADE if os.path.lexists(f"/{one}")}
    paths |= {str(one).lstrip("/") for one in Path("/etc/ssl/certs").iterdir()}
    (root / "var/lib/dpkg/status").write_text("".join(f"{one}\n\n" for one in stanzas.values()))
    for name in ("available", "diversions", "statoverride"):
        (root / "var/lib/dpkg" / name).touch()
    for name in ("updates", "triggers", "parts"):
        (root / "var/lib/dpkg" / name).mkdir()
    (info / "format").write_text("1\n")
    _alternatives(root, paths)
    packing = subprocess.Popen(
        ["tar", "-C", "/", "--no-recursion", "--null", "-T", "-", "--ignore-failed-read", "-cf", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    unpacking = subprocess.Popen(
        ["tar", "-C", str(root), "--keep-directory-symlink", "-xpf", "-"], stdin=packing.stdout
    )
    assert packing.stdin is not None
    packing.stdin.write(b"\0".join(os.fsencode(one) for one in sorted(paths - {""})))
    packing.stdin.close()
    if unpacking.wait() != 0:
        raise PartError("the packages could not be copied")
    packing.wait()
    for one in ("tmp", "proc", "sys", "dev", "run", "home", "boot", "root", "var/log", "var/tmp", "var/mail"):
        (root / one).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/hostname").write_text("small\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost small\n")
    (root / "etc/fstab").write_text("# <file system> <mount point> <type> <options> <dump> <pass>\n")


def _alternatives(root: Path, paths: set[str]) -> None:
    """The groups of which something was copied, and their links."""
    target = root / "var/lib/dpkg/alternatives"
    target.mkdir()
    for file in (_DPKG / "alternatives").iterdir():
        lines = file.read_text().splitlines()
        if not any(line.lstrip("/") in paths for line in lines[1:]):
            continue
        shutil.copy2(file, target / file.name)
        paths |= {f"etc/alternatives/{file.name}", lines[1].lstrip("/")}
        at = 2
        while at + 1 < len(lines) and lines[at]:
            for one in (f"/etc/alternatives/{lines[at]}", lines[at + 1]):
                if os.path.lexists(one):
                    paths.add(one.lstrip("/"))
            at += 2


def keep(root: Path, shown: Sequence[Path]) -> None:
    """In a fresh mount namespace: make it, mount what it needs, and stay until the end of the input."""
    for arguments in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", "mode=755,size=3g", "small", str(root)]):
        subprocess.run(["mount", *arguments], check=True)
    populate(root)
    mounts: list[tuple[str, ...]] = [("-t", "proc", "proc", f"{root}/proc"), ("--rbind", "/dev", f"{root}/dev")]
    mounts += [("-t", "tmpfs", "run", f"{root}/run"), ("-t", "tmpfs", "tmp", f"{root}/tmp")]
    for mount in mounts:
        subprocess.run(["mount", *mount], check=True)
    for one in shown:
        there = root / str(one).lstrip("/")
        there.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", str(one), str(there)], check=True)
    print("ready", flush=True)
    sys.stdin.read()


class Machine:
    """A small Debian of its own, whose `/` is a memory file system: nothing of it is left when it is closed.

    shown: folders of this machine that are seen there under the same path. network: where its programs are.
    """

    def __init__(self, network: Namespace, folder: Path, shown: Sequence[Path]) -> None:
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self._network = network
        whole = ["unshare", "-m", sys.executable, "-m", "tests.scenarios.parts.debian_machine", str(self.root)]
        self._keeper = network.start([*whole, *map(str, shown)], name="machine", stdin=True)
        wait_until(
            "the small Debian", lambda: "ready" in self._keeper.stdout or self._keeper.poll() is not None, 120
        )  # fmt: skip
        if "ready" not in self._keeper.stdout:
            raise PartError(f"no small Debian: {self._keeper.stderr}")

    @property
    def seen(self) -> Path:
        """Its root as this machine may read and write it."""
        return Path(f"/proc/{self._keeper.pid}/root{self.root}")

    def argv(self, argv: Sequence[str]) -> list[str]:
        """What runs `argv` inside."""
        return self._network.argv(
            ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", "chroot", str(self.root), *argv]
        )

    def run(
        self, *argv: str, stdin: str | None = None, check: bool = True, env: Mapping[str, str] | None = None
    ) -> str:
        """Run to the end; output."""
        more = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root", **(env or {})}
        words = [f"{name}={value}" for name, value in more.items()]
        return run(self.argv(["env", "-i", *words, *argv]), stdin=stdin, check=check, timeout=60.0)

    def start(
        self, argv: Sequence[str], *, name: str | None = None, env: Mapping[str, str] | None = None, stdin: bool = False
    ) -> Process:
        """As `Namespace`, so that other parts can run in it."""
        inner = ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", "chroot", str(self.root), *argv]
        return self._network.start(inner, name=name or Path(argv[0]).name, env=env, stdin=stdin)

    def prepare(self) -> None:
        """What the scripts of the copied packages had done here: caches, alternatives, compiled modules."""
        for file in sorted((self.seen / "var/lib/dpkg/alternatives").iterdir()):
            self.run("update-alternatives", "--quiet", "--auto", file.name)
        self.run("ldconfig")
        self.run("python3", "-m", "compileall", "-q", "/usr/lib/python3.11", "/usr/lib/python3", check=False)

    def repack(self, archive: Debian, name: str) -> Path:
        """The next version of a package that is here, in the archive: its programs and libraries are other ones."""
        stanza = _stanzas(self.seen / "var/lib/dpkg")[name]
        architecture, version = _field(stanza, "Architecture"), f"{_field(stanza, 'Version')}+next1"
        info = self.seen / "var/lib/dpkg/info"
        stem = f"{name}:{architecture}"
        stem = stem if (info / f"{stem}.list").exists() else name
        tree = archive.folder / "build" / f"{name}-{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        for line in (info / f"{stem}.list").read_text().splitlines():
            source, target = self.seen / line.lstrip("/"), tree / line.lstrip("/")
            if line == "/." or line.startswith(_NOT_COPIED) or not os.path.lexists(source):
                continue
            if source.is_dir() and (not source.is_symlink() or line.lstrip("/") in _MERGED):
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
            if target.is_file() and not target.is_symlink() and not line.startswith("/etc/"):
                with target.open("ab") as stream:
                    stream.write(b"\n")
        for kind in ("conffiles", "postinst", "preinst", "prerm", "postrm", "triggers", "templates", "shlibs"):
            if (info / f"{stem}.{kind}").exists():
                shutil.copy2(info / f"{stem}.{kind}", tree / "DEBIAN" / kind)
        lines = [line for line in stanza.splitlines() if not line.startswith("Status: ")]
        kept, skipping = [], False
        for line in lines:
            if not line.startswith(" "):
                skipping = line.startswith("Conffiles:")
            if not skipping:
                kept.append(f"Version: {version}" if line.startswith("Version: ") else line)
        (tree / "DEBIAN/control").write_text("\n".join(kept) + "\n")
        deb = archive.pool / f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
        run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(deb)])
        return deb

    def close(self) -> None:
        """End it."""
        self._keeper.close()


if __name__ == "__main__":
    keep(Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]])
