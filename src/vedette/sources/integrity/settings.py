"""What an operator may say about the source `integrity`, and the trees that are watched when nothing is said.
Counterpart: `sources.settings` has it beside the others; docs/integrity.md explains the choice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveInt, model_validator

from vedette.text.times import positive_duration

Duration = Annotated[str, AfterValidator(positive_duration)]

OWN = ("/etc/vedette", "/etc/systemd/system/vedette.service", "/usr/lib/systemd/system/vedette.service")
"""What watches is watched first."""

TREES = (
    *OWN,
    # programs and libraries; of merged /usr the links alone
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/local/lib",
    "/opt",
    # whose signature counts
    "/usr/share/keyrings",
    # how the machine starts, with kernel modules under /usr/lib
    "/boot",
    "/usr/share/initramfs-tools",
    # who may ask root to do something
    "/usr/share/polkit-1",
    "/usr/share/dbus-1",
    # configuration: PAM, ssh, sudoers, cron, units, ld.so, accounts
    "/etc",
    # jobs and keys outside it
    "/var/spool/cron",
    "/root/.ssh",
    "/root/.bashrc",
    "/root/.profile",
    "/home/*/.ssh",
    # web roots
    "/var/www",
    "/srv/www",
)
"""Of Debian and Red Hat families alike; what is not there is passed by until it is."""

LEAVE_OUT = (
    "/etc/mtab",
    "/etc/resolv.conf",
    "/etc/adjtime",
    "/etc/cups/subscriptions.conf*",
    "/etc/lvm/cache/*",
    "/etc/lvm/archive/*",
    "/etc/lvm/backup/*",
    "*/__pycache__",
    "*.swp",
    "*/.git",
)
"""Written all the time by what nobody would call a change."""

PASSING = (
    "*.dpkg-new",
    "*.dpkg-tmp",
    "/boot/initrd.img-*.new",
    "/boot/initrd.img-*.dpkg-bak",
    "/etc/ld.so.cache~",
    "/etc/ssl/certs/ca-certificates.crt.new",
    "/etc/passwd[+.]*",
    "/etc/shadow[+.]*",
    "/etc/group[+.]*",
    "/etc/gshadow[+.]*",
    "/etc/subuid[+.]*",
    "/etc/subgid[+.]*",
    "/etc/alternatives/*.dpkg-tmp",
    "*/modules.*.[0-9]*.[0-9]*.[0-9]*",
    "*/4913",
)
"""Names that dpkg, shadow, kmod, ldconfig, mkinitramfs and vim write to before they put it where it belongs."""

RPM_KEYS = (
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-centosofficial*",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-[Rr]ocky*",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-AlmaLinux*",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-*",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-oracle*",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-amazon-linux*",
)
"""Keys of distributions; those of others count only if named."""


class VouchingSettings(BaseModel):
    """Who may vouch for changes (docs/integrity.md). All absolute.

    keyrings: whose signature on an archive counts; pools: folders with packages, each of which counts only if such an
    archive lists it; lists: of apt. rpm_keys: shell patterns of files with keys whose signature over an rpm counts.
    reports: where the hub lays the reports of configuration management. root: the file tree whose dpkg and rpm are
    asked; dpkg_log: none = its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keyrings: tuple[Path, ...] = (
        Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
        Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
    )
    rpm_keys: tuple[str, ...] = RPM_KEYS
    pools: tuple[Path, ...] = (Path("/var/cache/apt/archives"),)
    lists: Path = Path("/var/lib/apt/lists")
    reports: Path | None = None
    root: Path = Path("/")
    dpkg_log: Path | None = None

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        for path in (*self.keyrings, *self.pools, self.lists, self.reports, self.root, self.dpkg_log):
            if path is not None and not path.is_absolute():
                raise ValueError(f"{str(path)!r} is not absolute")
        for key in self.rpm_keys:
            if not key.startswith("/"):
                raise ValueError(f"rpm_keys: {key!r} is not absolute")
        return self


class IntegritySettings(BaseModel):
    """Watches files.

    trees: absolute folders or files, with shell patterns; none = those of a Debian or Red Hat system. leave_out: shell
    patterns of absolute paths that are passed by, in place of the usual ones. every: how often everything is looked
    at, trusting change times; full_every: reading every file. settle: how long after a change it is looked at.
    again: how soon the same path is looked at once more. burst: changes told one by one of one look; of what is
    beyond the number is told, and `vedette integrity check` has the rest. vouching: what makes a change informational.
    passing: shell patterns of names that programs write to before they rename: told only if they are still there after
    passing_after.
    differences: whether masked copies of configuration files are kept, so that what changed in them can be told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trees: tuple[str, ...] = TREES
    leave_out: tuple[str, ...] = LEAVE_OUT
    every: Duration = "1h"
    full_every: Duration = "1d"
    settle: Duration = "200ms"
    again: Duration = "2s"
    passing: tuple[str, ...] = PASSING
    passing_after: Duration = "1m"
    burst: PositiveInt = 20_000
    vouching: VouchingSettings = VouchingSettings()
    differences: bool = True

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        for one in (*self.trees,):
            if not one.startswith("/"):
                raise ValueError(f"trees: {one!r} is not absolute")
        if not self.trees:
            raise ValueError("trees: at least one is needed")
        return self

    def paths(self, root: Path = Path("/")) -> list[Path]:
        """The trees that are there now. Links among them are watched as links, and what they name as itself."""
        found: list[Path] = []
        for pattern in self.trees:
            found += sorted(root.glob(pattern.lstrip("/"))) if pattern != "/" else [root]
        return found
