"""Run as a program in a namespace: prints when the kernel says that a set there got an element with an address.
Counterpart: `bench.time_to_block` starts it and takes its time as the moment the drop took effect."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
from ipaddress import ip_address

_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP, _NO_ENOBUFS = 12, 270, 1, 5
_GROUP_NFTABLES = 7
_SUBSYSTEM_NFTABLES, _NEW_SET_ELEMENT = 10, 12


def main() -> None:
    """`nft_watch.py ADDRESS`: a line `ready`, then the time (microseconds UTC) of each addition."""
    wanted = ip_address(sys.argv[1]).packed
    # The observer must not be the one that is late; it sleeps until the kernel speaks.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as listener:
        listener.bind((0, 0))
        listener.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        listener.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
        print("ready", flush=True)
        while True:
            data = listener.recv(1 << 17)
            now = time.time_ns() // 1000
            at = 0
            while at + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind == _SUBSYSTEM_NFTABLES << 8 | _NEW_SET_ELEMENT and wanted in data[at + 16 : at + length]:
                    print(now, flush=True)
                at += max(length + 3 & ~3, 16)


if __name__ == "__main__":
    main()
