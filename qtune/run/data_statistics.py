"""`qtune data stats`: the encoded rows in numbers; no weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune import plan
from qtune.data import statistics
from qtune.data.batch import epoch_order
from qtune.run.data import open_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qtune.data import DataReport, Rows
    from qtune.data.statistics import Bar
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display


@dataclass(frozen=True, slots=True)
class Statistics:
    """The training rows of a recipe in numbers."""

    name: str
    report: DataReport
    quantiles: dict[str, int]
    bars: list[Bar]
    scripts: dict[str, float]
    duplicates: int
    micro_batch_size: int
    fill: dict[str, float]

    @property
    def counts(self) -> dict[str, Any]:
        """Rows, tokens and learnt tokens of the training rows."""
        return self.report.train.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "recipe": self.name,
            **self.report.to_dict(),
            "lengths": {
                "quantiles": self.quantiles,
                "histogram": [bar.to_dict() for bar in self.bars],
            },
            "fill": {"micro_batch_size": self.micro_batch_size, **self.fill},
            "duplicates": self.duplicates,
            "scripts": self.scripts,
        }


def stats(path: str | Path, *, overrides: Sequence[str] = (), display: Display) -> Statistics:
    """Measure the training rows of a recipe."""
    opened = open_data(path, overrides=overrides, display=display)
    rows = opened.prepared.train
    micro = _micro_batch_size(opened.recipe, len(rows))
    return Statistics(
        name=opened.name,
        report=opened.prepared.report,
        quantiles=statistics.quantiles(rows.lengths),
        bars=statistics.histogram(rows.lengths, rows.supervised),
        scripts=statistics.scripts(statistics.sample(rows, opened.tokenizer)),
        duplicates=statistics.duplicates(rows),
        micro_batch_size=micro,
        fill=fills(rows, opened.recipe, micro),
    )


def fills(rows: Rows, asked: Recipe, micro: int) -> dict[str, float]:
    """Share of real tokens in the tensors of the first epoch, by way of filling them."""
    order = epoch_order(len(rows), seed=asked.train.seed, epoch=0, shuffle=asked.data.shuffle)
    size = asked.train.batch_size
    steps = [order[at : at + size] for at in range(0, len(order), size)]
    return {"padded": statistics.fill(rows.lengths, _split(steps, micro))}


def _split(steps: Sequence[Sequence[int]], micro: int) -> Iterator[Sequence[int]]:
    for step in steps:
        for at in range(0, len(step), micro):
            yield step[at : at + micro]


def _micro_batch_size(asked: Recipe, rows: int) -> int:
    """What the plan for this machine takes; nothing is loaded for it."""
    shape = plan.shape_of_model(asked.model)
    return plan.make(asked, plan.Machine.probe(), shape, rows=rows).micro_batch_size
