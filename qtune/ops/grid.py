"""Lengths in coarse steps, so that products on a CPU have few shapes.

oneDNN makes a kernel for each shape of a bf16 product that it meets and keeps about 0.5 MB for it,
some of it for ever: with new lengths in each step a run grows by 10 MB a step and spends 0.3 ms on
each of them. Sixteen lengths an octave bound that, for 3% more tokens. On a GPU nothing is kept.
"""

from __future__ import annotations

_STEPS_AN_OCTAVE = 4  # as a power of two
_LEAST = 16


def rounded(length: int, most: int) -> int:
    """The next length of the grid, at most `most`; what is longer already stays."""
    step = max(_LEAST, 1 << max(0, length.bit_length() - 1 - _STEPS_AN_OCTAVE))
    return max(length, min(most, -(-length // step) * step))
