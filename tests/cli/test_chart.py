"""The braille chart, dot by dot."""

from __future__ import annotations

from qtune.cli.chart import chart, resample


def test_a_falling_line_is_one_stroke_from_the_top_to_the_bottom() -> None:
    # 2 columns x 4 rows of dots in one cell: a dot on top, then the rest of the way down
    assert chart([1.0, 0.0], total=2, width=1, height=1) == [
        chr(0x2800 | 0x01 | 0x10 | 0x20 | 0x80)
    ]


def test_a_flat_line_stays_on_one_row() -> None:
    assert chart([2.0] * 4, total=4, width=2, height=1) == [chr(0x2800 | 0x01 | 0x08) * 2]


def test_half_of_the_run_fills_half_of_the_picture() -> None:
    [line] = chart([2.0] * 4, total=8, width=4, height=1)
    assert line == chr(0x2800 | 0x01 | 0x08) * 2 + chr(0x2800) * 2


def test_a_rising_line_ends_at_the_top() -> None:
    top, bottom = chart([0.0, 0.0, 1.0, 1.0], total=4, width=2, height=2)
    assert ord(bottom[0]) == 0x2800 | 0x40 | 0x80
    assert ord(top[1]) & 0x08


def test_the_picture_has_the_size_asked_for() -> None:
    picture = chart([float(value) for value in range(500)], total=500, width=30, height=5)
    assert [len(line) for line in picture] == [30] * 5


def test_many_values_become_means_of_equal_shares() -> None:
    assert resample([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]


def test_few_values_are_repeated() -> None:
    assert resample([1.0, 2.0], 4) == [1.0, 1.0, 2.0, 2.0]
