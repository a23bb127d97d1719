"""When a method that begins with its low-rank part alone goes on to the rest of it."""

from __future__ import annotations

from qtune.errors import UsageError


def end_of_warm_up(asked: int | None, total_steps: int, *, most: int) -> int:
    """The first step after it: `asked`, or a tenth of all steps and `most` at most; `UsageError`
    when the run ends before."""
    if asked is None:
        return min(most, total_steps // 10)
    if asked >= total_steps:
        raise UsageError(
            f"{asked} steps of the low-rank part alone leave none of {total_steps} for the rest",
            place="method.warmup_steps",
            hint="lower or remove it, or train longer",
        )
    return asked
