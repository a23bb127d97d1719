"""`qtune data stats`: the encoded rows in numbers; no weights are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune import plan
from qtune.data import statistics
from qtune.data.batch import filler_id
from qtune.data.feed import make_feed
from qtune.data.packing import pack
from qtune.run.data import open_data
from qtune.run.shapes import shape_of_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.data import DataReport, Rows
    from qtune.data.statistics import Bar
    from qtune.recipe.sections import Recipe
    from qtune.run.data import Opened
    from qtune.run.display import Display


@dataclass(frozen=True, slots=True)
class Statistics:
    """The training rows of a recipe in numbers."""

    name: str
    report: DataReport
    quantiles: dict[str, int]
    bars: list[Bar]
    scripts: dict[str, float]
    micro_batch_size: int
    fill: dict[str, float]
    labels: dict[str, int]
    """Rows of each label of a classification."""

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
            "scripts": self.scripts,
            "labels": self.labels,
        }


def stats(path: str | Path, *, overrides: Sequence[str] = (), display: Display) -> Statistics:
    """Measure the training rows of a recipe."""
    opened = open_data(path, overrides=overrides, display=display)
    rows = opened.prepared.train
    micro = _micro_batch_size(opened.recipe, len(rows))
    seen = rows.pictures is not None
    return Statistics(
        name=opened.name,
        report=opened.prepared.report,
        quantiles=statistics.quantiles(rows.lengths),
        bars=statistics.histogram(rows.lengths, rows.supervised),
        scripts={} if seen else statistics.scripts(statistics.sample(rows, opened.tokenizer)),
        micro_batch_size=micro,
        fill={}
        if seen
        else fills(
            rows,
            opened.recipe,
            micro_batch_size=micro,
            pad_id=filler_id(opened.tokenizer),
        ),
        labels=_labels(opened),
    )


def _labels(opened: Opened) -> dict[str, int]:
    """Training rows of each label, in the order of their numbers."""
    if opened.recipe.model.task != "classification":
        return {}
    found = Counter(row.answer for row in opened.prepared.train)
    return {name: found[name] for name in opened.recipe.model.labels}


def fills(rows: Rows, asked: Recipe, *, micro_batch_size: int, pad_id: int) -> dict[str, float]:
    """Share of real tokens in the tensors of the first epoch, by way of filling them; the last is
    what best-fit reaches when a sequence may hold any rows, not those of one step only."""
    ways = {
        "padded": _with(asked, packing=False, group_by_length=False),
        "grouped": _with(asked, packing=False, group_by_length=True),
        "packed": _with(asked, packing=True, group_by_length=False),
    }
    shares = {
        name: make_feed(recipe, rows, micro_batch_size=micro_batch_size, pad_id=pad_id).fill()
        for name, recipe in ways.items()
    }
    lengths, capacity = rows.lengths, asked.data.max_length
    shares["packed_whole"] = lengths.sum() / (capacity * len(pack(lengths.tolist(), capacity)))
    return {name: round(float(share), 4) for name, share in shares.items()}


def _with(asked: Recipe, *, packing: bool, group_by_length: bool) -> Recipe:
    rows = asked.data.model_copy(update={"packing": packing})
    train = asked.train.model_copy(update={"group_by_length": group_by_length})
    return asked.model_copy(update={"data": rows, "train": train})


def _micro_batch_size(asked: Recipe, rows: int) -> int:
    """What the plan for this machine takes; nothing is loaded for it."""
    shape = shape_of_model(asked.model)
    return plan.make(asked, plan.Machine.probe(), shape, rows=rows).micro_batch_size
