"""Run as a program in a fresh mount namespace: lays other files over the machine's own, then becomes another program.
Counterpart: sshd.py and journald.py describe the layout as JSON and start this file through `unshare -m`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def lay(run: Path, devlog: str | None, binds: list[list[str]], run_folders: list[str]) -> None:
    """Bind `binds` (source, target), put `run` on /run and a small /dev with /dev/log -> `devlog` on /dev.

    `run_folders` are made under /run.

    Nothing of this is seen outside: all mounts are private and vanish with the last process in the namespace.
    """
    _mount("--make-rprivate", "/")
    device_folder = run / "dev"
    (device_folder / "pts").mkdir(parents=True, exist_ok=True)
    for name in _DEVICES:
        subprocess.run(["cp", "-a", f"/dev/{name}", str(device_folder / name)], check=True)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (device_folder / name).symlink_to(target)
    if devlog is not None:
        (device_folder / "log").symlink_to(devlog)
    for folder in run_folders:
        (run / folder).mkdir(mode=0o755, parents=True, exist_ok=True)
    for source, target in binds:
        _mount("--bind", source, target)
    _mount("--rbind", "/dev/pts", str(device_folder / "pts"))
    _mount("--rbind", str(run), "/run")
    _mount("--rbind", "/run/dev", "/dev")


def main() -> None:
    """`private_root.py LAYOUT.json`: lay it out and exec its `exec` vector under the same pid."""
    layout = json.loads(Path(sys.argv[1]).read_text())
    lay(Path(layout["run"]), layout["devlog"], layout["binds"], layout["run_folders"])
    os.execv(layout["exec"][0], layout["exec"])


if __name__ == "__main__":
    main()
