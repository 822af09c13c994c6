"""A disk that can lose power: ext4 in a file, mounted by a loop device, cut off at any moment.
Counterpart: test_power_cut.py; full disks are small file systems in memory, made where they are needed."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from pathlib import Path

from .processes import run, wait_until

# FS_IOC_SHUTDOWN, _IOR('X', 125, __u32): with FS_SHUTDOWN_FLAGS_NOLOGFLUSH nothing more reaches the device, the
# journal's open transaction neither; only what had been written to it by then is there at the next mount.
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2


class Disk:
    """Mounted at `folder`/disk from `mount` to `close`. of: one that was cut off, whose content this one begins with:
    for where it cannot be unmounted, since other programs have it in mount namespaces of their own.
    """

    def __init__(self, folder: Path, size: str = "64M", *, of: Disk | None = None) -> None:
        self._image = folder / "disk.img"
        self.place = folder / "disk"
        self.place.mkdir(parents=True)
        if of is not None:
            run(["cp", "--sparse=always", str(of._image), str(self._image)])
        else:
            run(["truncate", "-s", size, str(self._image)])
            run(["mkfs.ext4", "-q", str(self._image)])
        self._mounted = False
        self.mount()

    def mount(self) -> None:
        """As at the next start of the machine."""
        run(["mount", "-o", "loop", str(self._image), str(self.place)])
        self._mounted = True

    def cut_between_calls(self, pid: int) -> None:
        """The power fails while a program is in no system call; it goes on afterwards, with errors from the disk.

        A sync that is under way during a plain `cut` is told as done, though what it wrote is gone: SQLite alone lost
        the last commit it was told of in 23 of 100 cuts. After a real one nobody is there to be told.
        """
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(f"process {pid} stands still", lambda: _stands_still(pid))
            self.cut()
        finally:
            os.kill(pid, signal.SIGCONT)

    def cut(self) -> None:
        """The power fails. Programs that have files open there get errors until they end."""
        descriptor = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("=I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Whoever has files open there must have ended; programs in other namespaces are waited for."""
        run(["umount", str(self.place)])
        self._mounted = False
        # Mounted again before that, it would still be the file system that was cut off.
        wait_until("the disk let go", lambda: not run(["losetup", "--associated", str(self._image)]))

    def close(self) -> None:
        """Take it down, whatever is open there."""
        if self._mounted:
            run(["umount", "--lazy", str(self.place)], check=False)


def _stands_still(pid: int) -> bool:
    """Whether every thread was stopped, which none is before its system call has returned."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(state == "T" for state in states)
