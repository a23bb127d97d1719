"""The processes of a run on its page: the memory of each, and how long it waited for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.run.pages.fragments import bars, duration, size, table

if TYPE_CHECKING:
    from qtune.run.pages.fragments import Cell
    from qtune.run.pages.told import Told


def processes(told: Told) -> str:
    """A row for each, as the last record has them; nothing of a run by one alone."""
    records = told.records.get("ranks", [])
    last = records[-1] if records else {}
    joining, peaks = (_numbers(last.get(name)) for name in ("joining", "peak_bytes"))
    if not peaks or len(joining) != len(peaks):
        return ""
    most = max([*peaks, 1])
    rows: list[tuple[Cell, ...]] = [
        (f"process {rank}", bars(None, peak / most), size(peak), duration(waited))
        for rank, (waited, peak) in enumerate(zip(joining, peaks, strict=True))
    ]
    heads = ("", "", "memory at the peak", "waited for the others, or sent them its gradients")
    return table(heads, rows, kinds=("k", "bars", "n", "n"))


def _numbers(values: object) -> list[float]:
    """The numbers of a list; a file may hold anything."""
    found = values if isinstance(values, list) else []
    return [one for one in found if isinstance(one, int | float)]
