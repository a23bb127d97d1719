"""What the ends of several processes make of the run."""

from __future__ import annotations

import pytest

from qtune.run.launching.ends import End, code_of

DONE = [End(1, 0), End(0, 0)]
GATE = [End(1, 0), End(0, 9)]
TIME = [End(1, 75), End(0, 75)]
STOP = [End(1, 143), End(0, 143)]
TOLD = [End(1, 3), End(0, 3)]
LOST_FIRST = [End(1, 5), End(0, 1)]  # who lost another was faster than the one with a bug
MEMORY = [End(1, 5), End(0, 5)]
FULL_DISK = [End(1, 143), End(0, 5)]
LATE = [End(0, 6), End(1, -6)]  # torn down after the first had diverged
FORCED = [End(0, 0), End(1, -15, forced=True)]


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (DONE, 0),
        (GATE, 9),
        (TIME, 75),
        (STOP, 143),
        (TOLD, 3),
        (LOST_FIRST, 1),
        (MEMORY, 5),
        (FULL_DISK, 5),
        (LATE, 6),
        (FORCED, 0),
    ],
)
def test_the_first_that_failed_gives_the_code(ends: list[End], code: int) -> None:
    assert code_of(ends) == (code, None)


@pytest.mark.parametrize(
    "ends",
    [
        [End(1, -9), End(0, 5)],
        [End(0, 5), End(1, -9)],  # the one that lost it was seen earlier
        [End(0, 143), End(1, -9), End(2, 143)],  # while all stopped
        [End(2, 0), End(1, -9), End(0, -15, forced=True)],
    ],
)
def test_one_that_was_killed_is_told_of(ends: list[End]) -> None:
    code, fault = code_of(ends)
    assert code == 5
    assert fault is not None
    assert fault.message.startswith("rank 1 was killed by SIGKILL")
    assert "--resume" in fault.hint


def test_signals_without_a_name_are_told_as_numbers() -> None:
    fault = code_of([End(0, -40)])[1]
    assert fault is not None
    assert fault.message == "rank 0 was killed by signal 40"
