"""Whether the kernel believes its clock: windows, leases and silences rest on it.
Counterpart: `doctor` shows it; the clock itself is injected everywhere."""

# adjtimex(2): the call with modes = 0 changes nothing and returns the clock's state.
from __future__ import annotations

import ctypes

_TIME_ERROR = 5
_TIMEX_BYTES = 512
"""More than any `struct timex` has (208 on 64-bit Linux)."""


def synchronised() -> bool | None:
    """Whether something keeps the clock right; None where the kernel does not say."""
    try:
        call = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    state = call(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR
