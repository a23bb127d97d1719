from __future__ import annotations

import pytest

from qtune.errors import UsageError
from qtune.sizes import count, human, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("48GB", 48_000_000_000),
        ("24GiB", 25_769_803_776),
        (" 1.5 gib ", 1_610_612_736),
        ("800MB", 800_000_000),
        ("7B", 7),
        ("2kB", 2000),
        ("1TiB", 1_099_511_627_776),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "24", "GB", "-3GB", "48 cards", "1e9", "0GB", "4GBs", "٤GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size") as caught:
        parse_size(text, place="--gpu")
    assert caught.value.faults[0].place == "--gpu"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (38_912_000_000, "38.9 GB"),
        (271_400_000, "271 MB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (999_600, "1.00 MB"),
        (-2_500_000, "-2.50 MB"),
        (155 * 10**9, "155 GB"),
        (1_500 * 10**12, "1500 TB"),
    ],
)
def test_sizes_are_written_with_three_digits(size: int, shown: str) -> None:
    assert human(size) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (64_760_053_760, "64.8 billion"),
        (799_539_200, "800 million"),
        (1_234_000, "1.23 million"),
        (9_996_000, "10.0 million"),
        (99_940_000, "99.9 million"),
        (99_960_000, "100 million"),
        (41_984, "41,984"),
    ],
)
def test_counts_are_said(number: int, shown: str) -> None:
    assert count(number) == shown
