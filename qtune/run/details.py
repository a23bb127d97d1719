"""What an evaluation on the way leaves beside its measures: intervals, and some answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.runs.samples import keep_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qtune.runs import RunFolder

_ENDS = ("_low", "_high")


def keep_details(
    folder: RunFolder,
    step: int,
    figures: Mapping[str, Any],
    answers: Iterable[dict[str, Any]],
) -> None:
    """A record of the intervals in metrics.jsonl, and the first answers in samples.jsonl."""
    ends = {name: value for name, value in figures.items() if name.endswith(_ENDS)}
    if ends:
        folder.append_metrics({"kind": "interval", "step": step} | ends)
    keep_samples(folder.path, step, answers)
