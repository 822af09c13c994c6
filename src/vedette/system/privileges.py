"""Give up every privilege but the named ones, for good.
Counterpart: `app` runs the engine without root, and the kernel helper keeps CAP_NET_ADMIN alone."""

# capabilities(7), prctl(2), capset(2); the numbers below are theirs.
from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from contextlib import suppress

CAP_DAC_READ_SEARCH = 2
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21

_CAPBSET_DROP, _SET_KEEPCAPS, _SET_NO_NEW_PRIVS, _CAP_AMBIENT = 24, 8, 38, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4
_LAST_CAPABILITY = 63
_VERSION_3 = 0x20080522


def keep_only(capabilities: Sequence[int], *, uid: int, gid: int, groups: Sequence[int] = ()) -> None:
    """Become `uid`/`gid` where started by root, keep `capabilities` (ambient, so that children have them), and
    never gain another one.

    OSError where this process does not have one of them. Single-threaded callers only: capset(2) is per thread.
    """
    if os.geteuid() == 0:
        for capability in range(_LAST_CAPABILITY + 1):
            if capability not in capabilities:
                with suppress(OSError):  # EINVAL beyond the last one this kernel has
                    _prctl(_CAPBSET_DROP, capability)
        _prctl(_SET_KEEPCAPS, 1)
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    kept = sum(1 << capability for capability in capabilities)
    words = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("=II", _VERSION_3, 0)
    data = struct.pack("=IIIIII", words[0], words[0], words[0], words[1], words[1], words[1])
    if ctypes.CDLL(None, use_errno=True).capset(header, data) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    for capability in capabilities:
        _prctl(_CAP_AMBIENT, _AMBIENT_RAISE, capability)
    _prctl(_SET_NO_NEW_PRIVS, 1)


def keep_from_children() -> None:
    """Programs that this thread starts from now on get none of our capabilities; what it has itself stays."""
    with suppress(OSError):  # EINVAL: a kernel that knows no ambient ones gives children none
        _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)


def _prctl(*arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*(ctypes.c_ulong(one) for one in (*arguments, *([0] * (5 - len(arguments)))))) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
