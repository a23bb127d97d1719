"""A chat template is foreign code, which may not flood the memory: one huge allocation cannot be
interrupted by a watch, so it meets a ceiling of the address space."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

HEADROOM = 1 << 30
_SIZES = Path("/proc/self/statm")

T = TypeVar("T")


class Ceiling:
    """Runs functions that may take at most so much more memory; `MemoryError` above it.

    The limit is the whole process's, so it is set in the main thread only, where nothing else
    works meanwhile, and where Linux tells how much is in use.
    """

    def __init__(self, headroom: int = HEADROOM) -> None:
        self._headroom = headroom
        self._at = 0
        self._told = _SIZES.exists()

    def call(self, function: Callable[[], T]) -> T:
        """The function's value."""
        if not self._told or threading.current_thread() is not threading.main_thread():
            return function()
        if self._at:
            try:
                return self._below(self._at, function)
            except MemoryError:  # perhaps the process itself has grown since
                pass
        self._at = self._headroom + _in_use()
        return self._below(self._at, function)

    @staticmethod
    def _below(ceiling: int, function: Callable[[], T]) -> T:
        import resource  # of Unix only, as is the file looked for above

        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY and soft <= ceiling:
            return function()
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, hard))
        try:
            return function()
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _in_use() -> int:
    """Bytes of the process's address space."""
    return int(_SIZES.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
