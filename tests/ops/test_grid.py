"""The grid of lengths."""

from __future__ import annotations

from qtune.ops.grid import rounded


def test_the_grid_is_coarse_and_costs_little() -> None:
    lengths = range(1, 8193)
    found = [rounded(length, 10_000) for length in lengths]
    assert len(set(found)) == 16 + 5 * 16, "16 up to 256, and 16 an octave from there"
    assert all(length <= new for length, new in zip(lengths, found, strict=True))
    assert all(
        new <= length * 17 / 16 for length, new in zip(lengths, found, strict=True) if length > 255
    )
    assert found == sorted(found)


def test_the_longest_there_may_be_is_never_passed() -> None:
    assert rounded(500, 500) == 500
    assert rounded(499, 500) == 500
    assert rounded(510, 500) == 510, "what is longer already stays"
