"""How the C library gives memory back."""

from __future__ import annotations

import ctypes
from contextlib import suppress

THRESHOLD = 2**20  # bytes
KEPT, KEPT_BLOCK = 2**24, 2**22  # bytes
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h


def give_back_at_once() -> bool:
    """Let tensors of a megabyte and more have pages of their own, which the system gets back when
    they go, as it gets now what is kept of others; False where the C library cannot be told.

    glibc raises this threshold with every large block that is freed, and then keeps hundreds of
    megabytes of unfolded weights, or of gathered layers, in its heap: as much as streaming a base
    or sharing it out saves.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.malloc_trim(ctypes.c_size_t(0))
        return bool(library.mallopt(_MMAP_THRESHOLD, THRESHOLD))
    return False


def keep_for_the_next() -> bool:
    """Let each thread keep some freed megabytes for tensors alike; False as above.

    Else the system gives, and empties, new pages for each block of a weight that is merged.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        told = library.mallopt(_MMAP_THRESHOLD, KEPT_BLOCK)
        return bool(told and library.mallopt(_TRIM_THRESHOLD, KEPT))
    return False
