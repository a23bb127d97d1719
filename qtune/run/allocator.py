"""How the C library gives memory back."""

from __future__ import annotations

import ctypes
from contextlib import suppress

THRESHOLD = 2**20  # bytes
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h


def give_back_at_once() -> bool:
    """Let tensors of a megabyte and more have pages of their own, which the system gets back when
    they go; False where the C library cannot be told.

    glibc raises this threshold with every large block that is freed, and then keeps hundreds of
    megabytes of unfolded weights in its heap: as much as streaming a base saves.
    """
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, THRESHOLD))
    return False
