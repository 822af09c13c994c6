"""A day of ordinary use on a small Debian that is real but for its kernel: what happened, and what was said of it.
Counterpart: sources/integrity with its usual settings, rules/packs/integrity.yml; parts.debian_machine."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.scenarios.parts.debian import Debian
from tests.scenarios.parts.debian_machine import Machine
from tests.scenarios.parts.netns import NetLab
from tests.scenarios.parts.processes import wait_until
from tests.scenarios.parts.vedette import Vedette

from vedette.sources.integrity.settings import TREES

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

UPGRADED = ("procps", "openssl", "ca-certificates", "bash", "man-db", "util-linux")
KERNEL = "6.1.0-99-amd64"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0"
PROJECT = Path(__file__).parents[2]


# As packages with microcode do it: an archive of its own that is not packed, before the rest.
UCODE_HOOK = b"""#!/bin/sh
set -e
[ "$1" != prereqs ] || exit 0
. /usr/share/initramfs-tools/hook-functions
early=$(mktemp -d)
mkdir -p "$early/kernel/x86/microcode"
cp /lib/firmware/example-ucode.bin "$early/kernel/x86/microcode/GenuineIntel.bin"
(cd "$early" && find . | cpio -o -H newc --quiet -R 0:0) > "$early.cpio"
prepend_earlyinitramfs "$early.cpio"
"""


def kernel(number: str) -> dict[str, bytes]:
    modules = f"lib/modules/{KERNEL}"
    return {
        f"boot/vmlinuz-{KERNEL}": f"a kernel {number}\n".encode(),
        f"boot/config-{KERNEL}": b"".join(b"CONFIG_RD_%s=y\n" % one for one in (b"ZSTD", b"GZIP", b"XZ", b"BZIP2")),
        f"{modules}/modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
        f"{modules}/modules.order": b"",
        "lib/firmware/example-ucode.bin": b"microcode " * 400,
        "usr/share/initramfs-tools/hooks/example-ucode": UCODE_HOOK,
    }


KERNEL_SCRIPTS = {
    "postinst": f"#!/bin/sh\nset -e\ndepmod {KERNEL}\nupdate-initramfs -c -k {KERNEL}\n",
    "postrm": f"#!/bin/sh\nset -e\n[ $1 != purge ] || rm -rf /lib/modules/{KERNEL}\n",
}
TOOL_SCRIPTS = {
    "postinst": (
        "#!/bin/sh\nset -e\n"
        "adduser --quiet --system --group --no-create-home --home /nonexistent toold\n"
        "update-alternatives --quiet --install /usr/bin/pager pager /usr/bin/tool 99\n"
        "py3compile -p tool\nldconfig\n"
    ),
    "prerm": "#!/bin/sh\nset -e\npy3clean -p tool\nupdate-alternatives --quiet --remove pager /usr/bin/tool\n",
}


def tool(number: str) -> dict[str, bytes]:
    return {
        "usr/bin/tool": f"#!/bin/sh\necho tool {number}\n".encode(),
        "usr/lib/python3/dist-packages/tool.py": f"VERSION = {number!r}\n".encode(),
        "usr/share/man/man1/tool.1": b".TH TOOL 1\n.SH NAME\ntool \\- does things\n",
        "lib/systemd/system/tool.service": b"[Service]\nExecStart=/usr/bin/tool\nUser=toold\n",
        "etc/cron.d/tool": b"17 * * * * toold /usr/bin/tool\n",
        "etc/logrotate.d/tool": b"/var/log/tool.log {\n  daily\n  rotate 7\n  missingok\n  create\n}\n",
        "etc/tool.conf": f"version = {number}\n".encode(),
    }


TOOL_CONF = ("/etc/cron.d/tool", "/etc/logrotate.d/tool", "/etc/tool.conf")


@pytest.fixture
def machine(lab: NetLab, scratch: Path) -> Iterator[Machine]:
    scratch.chmod(0o755)
    interpreter = Path(os.path.realpath(sys.executable)).parents[1]
    made = Machine(lab.namespace(), scratch / "machine", [scratch, PROJECT, Path(sys.prefix), interpreter])
    yield made
    made.close()


@pytest.fixture
def archive(machine: Machine, scratch: Path) -> Iterator[Debian]:
    made = Debian(scratch / "debian")
    made.keyring.chmod(0o644)
    keyring = machine.seen / "usr/share/keyrings/example.gpg"
    shutil.copy(made.keyring, keyring)
    for one in (machine.seen / "etc/apt/sources.list.d", machine.seen / "etc/apt/apt.conf.d"):
        one.mkdir(exist_ok=True)
    (machine.seen / "etc/apt/sources.list.d/example.sources").write_text(
        f"Types: deb\nURIs: copy:{made.repository}\nSuites: stable\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/example.gpg\n"
    )
    # The daily job of apt sleeps up to half an hour before it begins.
    (machine.seen / "etc/apt/apt.conf.d/90day").write_text('APT::Periodic::RandomSleep "0";\n')
    yield made
    made.close()


class Day:
    """Does one thing after the other, and writes down what was told of each."""

    def __init__(self, machine: Machine, program: Vedette) -> None:
        self._machine = machine
        self._program = program
        self._findings = 0
        self._known: set[str] = set()
        self._sentinel = 0
        self.table: list[str] = []
        self.alerts: list[tuple[str, str]] = []

    def does(self, what: str, *commands: str) -> None:
        """Run the commands one after the other in the machine, and note what is said."""
        for one in commands:
            self._machine.run("sh", "-c", one)
        self.notes(what)

    def notes(self, what: str) -> None:
        """Wait until what happened was looked at, and note what was said."""
        for _ in range(2):
            # Looked at in order: what is told of this file is told after what happened before it was written.
            self._sentinel += 1
            path = f"/srv/www/sentinel{self._sentinel}"
            (self._machine.seen / path.lstrip("/")).write_text(f"{self._sentinel}\n")
            wait_until(f"a look at {path} in:\n{self._program.log}", partial(self._is_told, path), 120)
            time.sleep(0.3)  # longer than `again`: what was put off is looked at before the next one is
        wanted = "select rule_id, body from findings order by rowid limit -1 offset ?"
        rows = self._program.query(wanted, [self._findings])
        self._findings += len(rows)
        counted = Counter(rule.removeprefix("integrity-") for rule, body in rows if "/srv/www/sentinel" not in body)
        fresh = [
            (rule, key)
            for key, rule in self._program.query("select key, rule_id from alerts order by opened_at")
            if key not in self._known and "/srv/www/sentinel" not in key
        ]
        self._known |= {key for _, key in fresh}
        self.alerts += fresh
        said = ", ".join(f"{count} {rule}" for rule, count in sorted(counted.items())) or "nothing"
        self.table.append(f"{what:<62} {said}" + "".join(f"\n    ALERT {rule} {key}" for rule, key in fresh))

    def _is_told(self, path: str) -> bool:
        return bool(self._program.query("select 1 from findings where body like ?", [f'%{path}"%']))


@pytest.fixture
def day(machine: Machine, archive: Debian, scratch: Path) -> Iterator[Day]:
    machine.prepare()
    archive.build("linux-image", "6.1.1", kernel("6.1.1"), scripts=KERNEL_SCRIPTS)
    for name in UPGRADED:
        machine.repack(archive, name)
    archive.publish_repository()
    # What scripts of packages make when they run first is there on every machine.
    machine.run("sh", "-c", f"{APT} update && {APT} -y dist-upgrade && {APT} install -y linux-image")
    (machine.seen / "srv/www").mkdir(parents=True)
    settings = {
        "sources": {
            "file": [{"paths": [str(scratch / "no.log")]}],
            "integrity": {
                "trees": [*TREES, "/srv/www"],
                "again": "200ms",
                "passing_after": "30s",
                "every": "20s",
                "vouching": {"keyrings": ["/usr/share/keyrings/example.gpg"]},
            },
        }
    }
    program = Vedette(machine, scratch / "vedette", settings)  # type: ignore[arg-type]
    try:
        wait_until(f"a baseline in:\n{program.log}", lambda: any((program.data / "integrity").glob("*baseline*")), 60)
        yield Day(machine, program)
    finally:
        program.close()


def test_a_day_of_ordinary_use_and_an_evening_that_is_none(day: Day, machine: Machine, archive: Debian) -> None:
    live(day, machine, archive)
    time.sleep(52)  # two scans, and what has a passing name is looked at
    day.notes("24:00 everything was scanned")
    print("\n".join(day.table))
    assert [rule for rule, _ in day.alerts] == ["integrity-accounts", "integrity-access"], day.alerts
    assert "/home/alice/.ssh/authorized_keys" in day.alerts[1][1]
    attack(day)


def live(day: Day, machine: Machine, archive: Debian) -> None:
    """The day."""
    day.does("06:25 cron's daily jobs: logs rotated, man-db, dpkg's backup", "run-parts /etc/cron.daily")
    for name in UPGRADED:
        machine.repack(archive, name)
    archive.build("linux-image", "6.1.2", kernel("6.1.2"), scripts=KERNEL_SCRIPTS)
    archive.build("tool", "1.0", tool("1.0"), conffiles=TOOL_CONF, scripts=TOOL_SCRIPTS, depends="python3, adduser")
    archive.publish_repository()
    day.does("06:40 apt fetches its lists", f"{APT} update")
    day.does("06:45 upgrades: packages, kernel, initramfs, certificates", f"{APT} -y dist-upgrade")
    day.does("09:00 a package with a system account and an alternative", f"{APT} -y install tool")
    choose = "update-alternatives --set pager /bin/more", "update-alternatives --auto pager"
    day.does("09:10 an alternative is chosen and put back", *choose)
    day.does("09:15 ldconfig", "ldconfig")
    day.does("09:20 lists of kernel modules are made anew", f"depmod -a {KERNEL}")
    day.does("09:30 an administrator adds a user", "adduser --quiet --disabled-password --gecos '' alice")
    work = "echo x > notes.txt; echo alias ll=ls >> .bashrc; mkdir work; mkdir -m 700 .ssh"
    keys = 'ssh-keygen -q -t ed25519 -N "" -f .ssh/id_ed25519'
    day.does("10:00 the user works, and makes a key pair", as_alice(f"{work}; {keys}"))
    day.does("10:30 the user lets that key in", as_alice("cp .ssh/id_ed25519.pub .ssh/authorized_keys"))
    day.does("11:00 ssh remembers a host", as_alice("echo example.org ssh-ed25519 AAAA > .ssh/known_hosts"))
    day.does("12:00 /etc/motd is edited with vim", "vim.tiny -e -s -c 'normal oWelcome' -c wq /etc/motd")
    image = f"/boot/initrd.img-{KERNEL}"
    packed = [
        f"mkinitramfs -c {how} -o /tmp/image {KERNEL}; cp /tmp/image {image}{how}.new; mv {image}{how}.new {image}{how}"
        for how in ("xz", "gzip", "bzip2")
    ]
    day.does("13:00 the initramfs is made anew, and packed in other ways", f"update-initramfs -u -k {KERNEL}", *packed)
    for how, magic in (("", b"\x28\xb5\x2f\xfd"), ("xz", b"\xfd7zXZ"), ("gzip", b"\x1f\x8b"), ("bzip2", b"BZh")):
        content = (machine.seen / f"{image}{how}".lstrip("/")).read_bytes()
        assert content.startswith(b"070701"), how
        assert content.index(b"GenuineIntel.bin") < content.index(magic), how
    archive.build("tool", "1.1", tool("1.1"), conffiles=TOOL_CONF, scripts=TOOL_SCRIPTS, depends="python3, adduser")
    archive.publish_repository()
    day.does("14:00 a package is upgraded", f"{APT} update", f"{APT} -y install tool")
    day.does("15:00 a package is purged, apt cleans up", f"{APT} -y purge tool", f"{APT} -y clean")
    day.does("18:00 logs are rotated once more", "logrotate -f /etc/logrotate.conf")


def as_alice(command: str) -> str:
    return f"su alice -c 'cd /home/alice; {command}'"


def attack(day: Day) -> None:
    """What looks much like the day, and is none of it."""
    before = len(day.alerts)
    image, wants = f"/boot/initrd.img-{KERNEL}", "/etc/systemd/system/multi-user.target.wants"
    unit = "printf '[Service]\\nExecStart=/tmp/x\\n' > /etc/systemd/system/x.service"
    inside = "mkdir -p /tmp/i/scripts/init-top; echo /tmp/x > /tmp/i/scripts/init-top/x; cd /tmp/i"
    steps = {
        "an upgraded program is replaced": "printf x >> /usr/bin/vmstat",
        "another root": "useradd -o -u 0 -M toor",
        "a unit of nobody's, enabled": f"{unit}; mkdir -p {wants}; ln -s /etc/systemd/system/x.service {wants}",
        "a shipped unit that its script does not enable": f"ln -s /lib/systemd/system/man-db.service {wants}",
        "a list of kernel modules that depmod did not make": f"echo x >> /lib/modules/{KERNEL}/modules.dep",
        "a script more in the initramfs": f"{inside}; find . | cpio -o -H newc --quiet >> {image}",
        "a program under a passing name that stays": "cp /bin/true /usr/bin/x.dpkg-new",
    }
    for what, command in steps.items():
        day.does(what, command)
    time.sleep(32)
    day.notes("half a minute later")
    print("\n".join(day.table[-len(steps) - 1 :]))
    told = day.alerts[before:]
    for rule, path in (
        ("integrity-contradicted", "/usr/bin/vmstat"),
        ("integrity-root-account", "/etc/passwd"),
        ("integrity-access", "/etc/systemd/system/x.service"),
        ("integrity-access", f"{wants}/x.service"),
        ("integrity-access", f"{wants}/man-db.service"),
        ("integrity-program", "modules.dep"),
        ("integrity-program", image),
        ("integrity-program", "/usr/bin/x.dpkg-new"),
    ):
        assert any(one == rule and path in key for one, key in told), (rule, path, told)
