"""Loss and perplexity over rows, weighted by tokens as in training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qtune import oom
from qtune.data.batch import collate
from qtune.data.rounding import placed
from qtune.errors import DataError, ModelError
from qtune.evaluation.batches import each_row
from qtune.evaluation.intervals import Interval, ratio_interval
from qtune.evaluation.sharing import BY_ONE, Together
from qtune.evaluation.tally import Tally, ratio_tally
from qtune.oom import during

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from qtune.data import Rows
    from qtune.evaluation.batches import Progress
    from qtune.evaluation.tally import Floats
    from qtune.losses import CausalLoss

_HOPELESS = 700.0  # nats; exp of more is no float


@dataclass(frozen=True)
class LossMeasure:
    """Mean negative log-likelihood per supervised token in nats, with its interval over rows."""

    loss: float
    low: float
    high: float
    tokens: int
    rows: int
    row_sums: tuple[float, ...] = field(repr=False)
    row_counts: tuple[int, ...] = field(repr=False)

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return _exp(self.loss)

    def tallies(self) -> dict[str, Tally]:
        """Loss and perplexity by row."""
        loss = ratio_tally(self.row_sums, self.row_counts)

        def perplexity(sums_DK: Floats) -> Floats:
            exponents_D: Floats = np.exp(np.minimum(loss.score(sums_DK), _HOPELESS))
            return exponents_D

        return {"loss": loss, "perplexity": Tally(loss.sums, perplexity)}

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            "loss": self.loss,
            "loss_low": self.low,
            "loss_high": self.high,
            "perplexity": self.perplexity,
            "perplexity_low": _exp(self.low),
            "perplexity_high": _exp(self.high),
            "tokens": self.tokens,
            "rows": self.rows,
        }


def measure_loss(
    model: torch.nn.Module,
    rows: Rows,
    *,
    loss: CausalLoss,
    batch_size: int,
    pad_id: int,
    device: torch.device,
    on_progress: Progress | None = None,
    together: Together = BY_ONE,
) -> LossMeasure:
    """Measure every row once; `on_progress(done, all)` after each batch of this process's part."""
    longest = int(rows.lengths.max())

    def measure(numbers: Sequence[int]) -> Iterable[tuple[float, int]]:
        batch = collate([rows[number] for number in numbers], pad_id=pad_id)
        batch = placed(batch, device, longest=longest, pad_id=pad_id)
        with during(oom.EVALUATION, tokens=batch.computed):
            row_sums, row_counts = loss.per_row(model, batch)
        return zip(row_sums.tolist(), row_counts.tolist(), strict=True)

    found = each_row(
        model, rows, measure, batch_size=batch_size, on_progress=on_progress, together=together
    )
    sums, counts = zip(*found, strict=True)
    return summarise(sums, counts)


def summarise(sums: Sequence[float], counts: Sequence[int]) -> LossMeasure:
    """The measure of rows whose summed losses and supervised tokens are known."""
    tokens = sum(counts)
    if tokens == 0:
        raise DataError(
            "no row has a token to be measured on",
            hint="the answers are empty, or cut off by data.max_length",
        )
    if not all(map(math.isfinite, sums)):
        raise ModelError(
            "the loss is NaN or infinite on some rows", hint="the weights are broken, or overflow"
        )
    interval = ratio_interval(sums, counts)
    return LossMeasure(
        loss=math.fsum(sums) / tokens,
        low=interval.low,
        high=interval.high,
        tokens=tokens,
        rows=len(sums),
        row_sums=tuple(sums),
        row_counts=tuple(counts),
    )


def difference(ours: LossMeasure, base: LossMeasure) -> dict[str, float]:
    """Loss of ours minus that of the base on the same rows, with the paired interval."""
    assert ours.row_counts == base.row_counts, "a paired difference needs the same rows"
    interval: Interval = ratio_interval(
        [one - other for one, other in zip(ours.row_sums, base.row_sums, strict=True)],
        ours.row_counts,
    )
    chance = ours.tallies()["loss"].beyond(base.tallies()["loss"], "loss")["loss_p"]
    return {
        "loss": ours.loss - base.loss,
        "loss_low": interval.low,
        "loss_high": interval.high,
        "loss_p": chance,
    }


def _exp(loss: float) -> float:
    """exp, but no overflow for a model that is hopeless."""
    return math.exp(min(loss, _HOPELESS))
