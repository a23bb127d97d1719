"""What processes other than the first say on stderr: each line with its rank before it."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 65536
_KEPT = 200  # lines that wait for the first process to leave the terminal


class Voices:
    """Passes lines on at once; or, `held`, keeps the last ones until `release`, as the panel of the
    first process would be torn by them."""

    def __init__(self, say: Callable[[str], object], *, held: bool) -> None:
        self._say = say
        self._held: deque[str] | None = deque(maxlen=_KEPT) if held else None
        self._rests: dict[int, bytes] = {}

    def read(self, rank: int, source: int) -> bool:
        """Take what a descriptor that does not block has; False at its end."""
        try:
            piece = os.read(source, _PIECE)
        except BlockingIOError:
            return True
        text = self._rests.pop(rank, b"") + piece
        *lines, rest = text.replace(b"\r", b"\n").split(b"\n")
        if rest and piece:
            self._rests[rank] = rest
        elif rest:
            lines.append(rest)
        for line in lines:
            if line.strip():
                self._take(f"rank {rank}: {line.decode(errors='replace')}")
        return bool(piece)

    def release(self) -> None:
        """Say what was held back, and from now on say all at once."""
        held, self._held = self._held or (), None
        for line in held:
            self._say(line)

    def _take(self, line: str) -> None:
        if self._held is None:
            self._say(line)
        else:
            self._held.append(line)
