"""The braille chart, dot by dot."""

from __future__ import annotations

from qtune.cli.chart import chart, resample


def test_a_falling_line_goes_from_the_top_left_to_the_bottom_right() -> None:
    # 2 columns x 4 rows of dots in one cell: the first value on top, the last at the bottom
    assert chart([1.0, 0.0], width=1, height=1) == [chr(0x2800 | 0x01 | 0x80)]


def test_a_flat_line_stays_on_one_row() -> None:
    assert chart([2.0] * 4, width=2, height=1) == [chr(0x2800 | 0x01 | 0x08) * 2]


def test_the_picture_has_the_size_asked_for() -> None:
    picture = chart([float(value) for value in range(500)], width=30, height=5)
    assert [len(line) for line in picture] == [30] * 5


def test_many_values_become_means_of_equal_shares() -> None:
    assert resample([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]
    assert resample([1.0, 2.0], 5) == [1.0, 2.0]
