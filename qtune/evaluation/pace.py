"""Passes of a model whose layers are shared out: its processes make each of them together."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qtune.evaluation.decode import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qtune.ranks import Ranks


class Unfinished(Exception):  # noqa: N818 - no fault of anybody's
    """The work was left by all, or another process has left its part of it."""


@dataclass(frozen=True)
class Pace:
    """Keeps processes in step that make each its own number of passes of one `model`; `stops` is
    asked before every pass whether all are to leave."""

    ranks: Ranks
    model: Any
    stops: Callable[[], bool]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The passes of a block, and those of the others until the last of them is done.

        `Unfinished` at all of them, before the same pass, when one stops.
        """
        root = self.model.base_model  # what torch gathers the layers for, whoever calls it
        asked = root.register_forward_pre_hook(self._before, prepend=True)
        try:
            yield
        finally:
            asked.remove()
        token = torch.zeros(1, 1, dtype=torch.int64, device=next(root.parameters()).device)
        with evaluating(self.model):
            while self._ask(working=False):
                root(input_ids=token, use_cache=False)

    def _before(self, *_: object) -> None:
        self._ask(working=True)

    def _ask(self, *, working: bool) -> bool:
        """Whether anybody still has passes to make."""
        table = self.ranks.table([working, self.stops()])
        if any(stops for _, stops in table):
            raise Unfinished
        return any(works for works, _ in table)
