"""Which rows an epoch takes, in which order: a pure function of the settings, seed and epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qtune.recipe.sections import Recipe

    Numbers = NDArray[np.int64]

_WINDOW_STEPS = 50


@dataclass(frozen=True)
class Order:
    """The order of `lengths.size` rows from one or more sources.

    `sources`: the source of each row [N]; `lengths`: tokens of each row [N]; `weights`: what
    `mix: weighted` gives each source. An epoch takes as many rows as there are.
    """

    lengths: NDArray[np.int64]
    sources: NDArray[np.int32]
    seed: int
    shuffle: bool = True
    mix: str = "concat"
    weights: tuple[float, ...] = ()
    batch_size: int = 1
    group_by_length: bool = False
    _by_source: list[Numbers] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = [np.flatnonzero(self.sources == one) for one in np.unique(self.sources)]
        object.__setattr__(self, "_by_source", found)

    @classmethod
    def of_recipe(
        cls, recipe: Recipe, *, lengths: NDArray[np.int64], sources: NDArray[np.int32]
    ) -> Order:
        """The order that a recipe asks for."""
        return cls(
            lengths=lengths,
            sources=sources,
            seed=recipe.train.seed,
            shuffle=recipe.data.shuffle,
            mix=recipe.data.mix,
            weights=tuple(source.weight for source in recipe.data.train),
            batch_size=recipe.train.batch_size,
            group_by_length=recipe.train.group_by_length,
        )

    @property
    def size(self) -> int:
        """Rows of an epoch."""
        return len(self.lengths)

    def of(self, epoch: int) -> Numbers:
        """The row numbers of an epoch, in order."""
        if self.mix == "weighted":
            order = self._weighted(epoch)
        elif self.mix == "round_robin":
            shuffled = [self._shuffled(rows, epoch, n) for n, rows in enumerate(self._by_source)]
            order = _interleaved(shuffled, turns=[1.0] * len(shuffled))
        else:
            order = permuted(self.size, self.seed, epoch) if self.shuffle else np.arange(self.size)
        return self._grouped(order, epoch) if self.group_by_length else order

    def _shuffled(self, rows: Numbers, epoch: int, number: int) -> Numbers:
        return rows[permuted(len(rows), self.seed, epoch, number)] if self.shuffle else rows

    def _weighted(self, epoch: int) -> Numbers:
        """Each source's share of the epoch, gone on with where the epoch before stopped.

        Pass p over a source has an order of its own, so rows [e * share, (e + 1) * share) of all
        passes are known without replaying any.
        """
        present = np.unique(self.sources)
        shares = _shares(np.array([self.weights[one] for one in present]), self.size)
        taken = []
        for number, (rows, share) in enumerate(zip(self._by_source, shares, strict=True)):
            start, end = epoch * share, (epoch + 1) * share
            passes = range(start // len(rows), -(-end // len(rows)))
            stream = [self._shuffled(rows, one, number) for one in passes]
            offset = start - passes.start * len(rows)
            whole = np.concatenate(stream) if stream else rows[:0]
            taken.append(whole[offset : offset + share])
        return _interleaved(taken, turns=[float(max(share, 1)) for share in shares])

    def _grouped(self, order: Numbers, epoch: int) -> Numbers:
        """Rows of like length in one step: sorted within windows, then the steps shuffled."""
        window = self.batch_size * _WINDOW_STEPS
        parts = [order[at : at + window] for at in range(0, len(order), window)]
        near = np.concatenate(
            [part[np.argsort(self.lengths[part], kind="stable")] for part in parts]
        )
        full = len(near) // self.batch_size * self.batch_size
        steps = near[:full].reshape(-1, self.batch_size)
        shuffled = steps[permuted(len(steps), self.seed, epoch, -1)].reshape(-1)
        return np.concatenate([shuffled, near[full:]])


def permuted(count: int, seed: int, *salt: int) -> Numbers:
    """A permutation that depends on its arguments only.

    RandomState is the one numpy stream that is promised never to change.
    """
    entropy = [seed, *(number if number >= 0 else 2**31 for number in salt)]
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(entropy)))
    order: Numbers = generator.permutation(count)
    return order


def _shares(weights: NDArray[np.float64], rows: int) -> list[int]:
    """Whole rows for each weight, `rows` in all, by largest remainder."""
    exact = weights / weights.sum() * rows
    shares = np.floor(exact).astype(int)
    for number in np.argsort(shares - exact, kind="stable")[: rows - int(shares.sum())]:
        shares[number] += 1
    return [int(share) for share in shares]


def _interleaved(parts: list[Numbers], *, turns: list[float]) -> Numbers:
    """All parts in one, each spread evenly: row k of a part stands at time (k + 1/2) / turns."""
    times = [(np.arange(len(p)) + 0.5) / turn for p, turn in zip(parts, turns, strict=True)]
    return np.concatenate(parts)[np.argsort(np.concatenate(times), kind="stable")]
