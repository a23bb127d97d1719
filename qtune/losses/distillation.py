"""A teacher's probabilities beside the labels, on the supervised positions only."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qtune.losses.causal import LossOutput, supervised
from qtune.losses.head import criterion_of, output_layer
from qtune.losses.soft import Soft
from qtune.ops.distillation import Distillation, distilled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from qtune.losses.causal import TokenBatch


class Teacher:
    """A network that answers without gradients, in eval mode.

    `alone` is entered for each answer: for a teacher that is the student without what it learns.
    """

    def __init__(
        self, network: Any, *, alone: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self.network = network
        self._alone = alone

    @torch.no_grad()
    def hidden(self, batch: TokenBatch) -> Tensor:
        """Its hidden states at the supervised positions [S, G]."""
        with self._alone(), _in_eval_mode(self.network):
            return supervised(self.network, batch)[0]

    @torch.no_grad()
    def head(self, hidden_CG: Tensor) -> Tensor:
        """What its head puts out for such hidden states [C, V]."""
        with self._alone():
            raw_CV: Tensor = output_layer(self.network)(hidden_CG)
        return raw_CV


@contextmanager
def _in_eval_mode(network: Any) -> Iterator[None]:
    """Without dropout inside; nothing is drawn, so the student draws as it would alone."""
    if not network.training:
        yield
        return
    network.eval()
    try:
        yield
    finally:
        network.train()


@dataclass(frozen=True)
class DistillationLoss(Soft):
    """Sum over supervised tokens of (1 - soft_share) times the plain loss and soft_share T^2 KL."""

    teacher: Teacher

    def __call__(self, model: Any, batch: TokenBatch, *, divisor: float = 1.0) -> LossOutput:
        """The teacher's pass, then the student's; `divisor` is what the sum is divided by."""
        # the teacher first: what its pass takes is free again when the student's begins
        hidden_SG = self.teacher.hidden(batch)
        hidden_SH, target_S = supervised(model, batch)
        criterion = Distillation(
            hard=self.hard(model),
            teacher=criterion_of(self.teacher.network),
            temperature=self.temperature,
            share=self.soft_share,
            divergence=self.divergence,
        )
        total = distilled(
            hidden_SH,
            target_S,
            hidden_SG,
            output_layer(model),
            criterion,
            teach=self.teacher.head,
            chunk_size=self.chunk_size,
            divisor=divisor,
        )
        return LossOutput(sum=total, count=target_S.numel())
