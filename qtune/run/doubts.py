"""What the numbers of a run say against it: it came to its end, and is worth nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.training import Progress

_WORSE = 0.02  # nats a token, two hundredths of the perplexity: less may be chance
_HINT = "lower optim.learning_rate, or look at the rows"


def doubts(progress: Progress, adapter_step: int, data: Mapping[str, Any]) -> list[str]:
    """A line for each reason to doubt the adapter of a step, or what was measured of it; `data`:
    the report's account of the rows."""
    lines = [risen(progress)] if progress.has_risen() else []
    losses = {int(record["step"]): record["loss"] for record in progress.evaluations}
    base, result = losses.get(0), losses.get(adapter_step)
    if base is not None and result is not None and result > base + _WORSE:
        lines.append(
            f"the adapter's held-out loss, {result:.4f}, is above the untouched base's, "
            f"{base:.4f} ({_HINT})"
        )
    learnt = data.get("training_rows_in_eval", 0)
    if learnt and not data["deduplicated"] and progress.evaluations:
        lines.append(
            f"held-out measures, and gates on them, are of rows that were learnt too: {learnt:,} "
            "training rows are among them (data.deduplicate: true takes those out)"
        )
    return lines


def risen(progress: Progress) -> str:
    """That the loss has gone up, with its numbers."""
    return (
        f"the loss was {progress.loss_begun:.4f} in the first steps and is "
        f"{progress.loss_recent:.4f} in the last ({_HINT}; watchdog.loss_limit ends such a run)"
    )
