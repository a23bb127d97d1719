"""How well a classifier labels rows: accuracy, F1, Matthews correlation, confusions.

N rows, C labels. A confusion matrix [C, C] has a row for each true label, a column for each given.
Macro-F1 is the mean over the labels that are true or given somewhere. Matthews correlation of many
labels: Gorodkin (2004).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.nn import functional

from qtune import oom
from qtune.data.batch import collate_classified
from qtune.data.rounding import placed
from qtune.evaluation.batches import each_row
from qtune.evaluation.intervals import mean_interval
from qtune.evaluation.likelihood import LossMeasure, summarise
from qtune.evaluation.sharing import BY_ONE, Together
from qtune.evaluation.tally import mean_tally
from qtune.oom import during

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from qtune.data import Rows
    from qtune.data.batch import Batch
    from qtune.evaluation.batches import Progress

    Scores = Callable[[Any, Batch], torch.Tensor]


@dataclass(frozen=True)
class Labelled:
    """What a model made of one row."""

    place: str
    label: str
    given: str
    share: float
    """The probability of what was given."""

    def to_dict(self) -> dict[str, Any]:
        """One line of a predictions file."""
        return asdict(self)


@dataclass(frozen=True)
class LabelMeasure:
    """The loss a row in nats, and what was given for each true label."""

    loss: LossMeasure
    names: tuple[str, ...]
    rows: tuple[Labelled, ...] = field(repr=False)

    @property
    def right(self) -> list[float]:
        """1.0 for each row that is labelled rightly."""
        return [float(row.label == row.given) for row in self.rows]

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Rows by true and given label [C, C]."""
        numbers = {name: number for number, name in enumerate(self.names)}
        true, given = ([numbers[getattr(r, k)] for r in self.rows] for k in ("label", "given"))
        return confusion(true, given, len(self.names))

    def means(self) -> dict[str, float]:
        """The measures by name."""
        counts = self.confusion
        return {
            "loss": self.loss.loss,
            "accuracy": accuracy(counts),
            "macro_f1": macro_f1(counts),
            "matthews": matthews(counts),
        }

    def to_dict(self) -> dict[str, Any]:
        """For the report: the measures with intervals over rows, and the confusions."""
        counts, interval = self.confusion, mean_interval(self.right)
        mixed = sorted(
            (-int(counts[true, given]), true, given) for true, given in np.argwhere(counts).tolist()
        )
        confused = [
            {"label": self.names[true], "given": self.names[given], "rows": -rows}
            for rows, true, given in mixed
            if true != given
        ]
        return self.means() | {
            "loss_low": self.loss.low,
            "loss_high": self.loss.high,
            "accuracy_low": interval.low,
            "accuracy_high": interval.high,
            "rows": len(self.rows),
            "labels": list(self.names),
            "confusion": counts.tolist(),
            "confused": confused,
        }


def measure_labels(
    model: Any,
    rows: Rows,
    *,
    scores: Scores,
    batch_size: int,
    device: torch.device,
    on_progress: Progress | None = None,
    together: Together = BY_ONE,
) -> LabelMeasure:
    """Label every row once; `on_progress(done, all)` after each batch of this process's part."""
    names = tuple(model.config.id2label[number] for number in range(model.config.num_labels))
    longest = int(rows.lengths.max()) - 1  # the last of a row is the number of its label
    padding = getattr(model.config, "pad_token_id", None) or 0

    def measure(numbers: Sequence[int]) -> Iterator[tuple[float, Labelled]]:
        batch = collate_classified(rows, numbers, pad_id=padding)
        batch = placed(batch, device, longest=longest, pad_id=padding)
        with during(oom.EVALUATION, tokens=batch.computed):
            logits_BC = scores(model, batch)
        return _labelled(logits_BC, batch, names)

    found = each_row(
        model, rows, measure, batch_size=batch_size, on_progress=on_progress, together=together
    )
    losses, ordered = zip(*found, strict=True)
    return LabelMeasure(summarise(losses, [1] * len(rows)), names, ordered)


def _labelled(
    logits_BC: torch.Tensor, batch: Batch, names: Sequence[str]
) -> Iterator[tuple[float, Labelled]]:
    """The loss of each row, and what was made of it."""
    losses_B = functional.cross_entropy(logits_BC, batch.labels, reduction="none")
    shares_B, given_B = logits_BC.softmax(-1).max(-1)
    columns = (losses_B, batch.labels, given_B, shares_B)
    told = zip(batch.places, *(column.tolist() for column in columns), strict=True)
    for place, loss, label, given, share in told:
        yield loss, Labelled(place, names[label], names[given], round(share, 6))


def label_difference(ours: LabelMeasure, base: LabelMeasure) -> dict[str, float]:
    """Accuracy of ours minus that of the base on the same rows, with the paired interval."""
    moved = [one - other for one, other in zip(ours.right, base.right, strict=True)]
    interval = mean_interval(moved)
    chance = mean_tally(ours.right).beyond(mean_tally(base.right), "accuracy")["accuracy_p"]
    return {
        "accuracy": sum(moved) / len(moved),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "accuracy_p": chance,
    }


def confusion(true: Sequence[int], given: Sequence[int], size: int) -> NDArray[np.int64]:
    """Rows by true and given label [size, size]."""
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (np.asarray(true, dtype=np.int64), np.asarray(given, dtype=np.int64)), 1)
    return counts


def accuracy(counts: NDArray[np.int64]) -> float:
    """The share of rows on the diagonal."""
    return float(counts.trace() / counts.sum())


def macro_f1(counts: NDArray[np.int64]) -> float:
    """The mean F1 of the labels that are there: 2 right / (true + given)."""
    there = counts.sum(axis=1) + counts.sum(axis=0)
    known = there > 0
    return float((2 * counts.diagonal()[known] / there[known]).mean())


def matthews(counts: NDArray[np.int64]) -> float:
    """Correlation of true and given labels; 0 where one of them never changes."""
    rows, right = float(counts.sum()), float(counts.trace())
    true, given = counts.sum(axis=1).astype(np.float64), counts.sum(axis=0).astype(np.float64)
    spread = (rows**2 - given @ given) * (rows**2 - true @ true)
    return float((right * rows - true @ given) / np.sqrt(spread)) if spread > 0 else 0.0
