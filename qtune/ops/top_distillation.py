"""What a position costs against the few most likely tokens that a teacher wrote down.

Legend: C positions of a chunk, V vocabulary size, K tokens written down, L = K and all others as
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from qtune.ops.distillation import divergence_of, in_blocks

if TYPE_CHECKING:
    from torch import Tensor

    from qtune.ops.logits import Criterion

LEAST = -60_000.0
"""Log-probability of what cannot be, in a number that fp16 holds."""


@dataclass(frozen=True, kw_only=True)
class TopDistillation:
    """(1 - a) hard + a T^2 KL over the K most likely tokens and, as one outcome, all others.

    Both softmaxes are taken over the first `width` ids at temperature T before tokens are put
    together, so with p for the teacher and q for the student

        KL = sum_i p_i log(p_i / q_i) + p' log(p' / q'),  p' = 1 - sum_i p_i,  q' = 1 - sum_i q_i

    It is at most the whole divergence, and is it for K = width, where nothing is left over.
    """

    hard: Criterion
    width: int
    temperature: float = 2.0
    share: float = 0.5
    divergence: Literal["forward", "reverse"] = "forward"

    def losses(self, raw_CV: Tensor, target_C: Tensor, ids_CK: Tensor, logs_CL: Tensor) -> Tensor:
        """The definition: each position's loss in nats, fp32 [C]; `logs_CL` are log-probabilities
        at temperature T, of `ids_CK` and then of all others."""
        loss_C = (1.0 - self.share) * self.hard.losses(raw_CV, target_C)
        student_CV = self.hard.logits(raw_CV[:, : self.width].float()) / self.temperature
        whole = ids_CK.shape[1] == self.width
        student_CL = grouped(student_CV.log_softmax(1), ids_CK.long(), whole=whole)
        # written in few digits, they no longer add up to one exactly
        teacher_CL = logs_CL[:, : student_CL.shape[1]].float().log_softmax(1)
        soft_C = divergence_of(student_CL, teacher_CL, self.divergence)
        return loss_C + self.share * self.temperature**2 * soft_C

    def losses_and_gradient(
        self, raw_CV: Tensor, target_C: Tensor, ids_CK: Tensor, logs_CL: Tensor, *, factor: float
    ) -> tuple[Tensor, Tensor]:
        """`losses` without autograd, and `factor` times the gradient of their sum by the student's
        raw logits, in their dtype."""
        return in_blocks(self.losses, raw_CV, (target_C, ids_CK, logs_CL), factor=factor)


def grouped(logs_CV: Tensor, ids_CK: Tensor, *, whole: bool) -> Tensor:
    """Log-probabilities of some tokens and, unless they are the `whole` vocabulary, of all others
    together: [C, K + 1]."""
    chosen_CK = logs_CV.gather(1, ids_CK)
    if whole:
        return chosen_CK
    others_C1 = logs_CV.scatter(1, ids_CK, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([chosen_CK, others_C1], dim=1)


@torch.no_grad()
def most_likely(logits_CV: Tensor, top: int, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Ids [C, K] of the most likely tokens, and their log-probabilities at a temperature with that
    of all others last [C, K + 1]; K is at most V."""
    logs_CV = (logits_CV.float() / temperature).log_softmax(1)
    ids_CK = logs_CV.topk(min(top, logs_CV.shape[1]), dim=1).indices
    whole = ids_CK.shape[1] == logs_CV.shape[1]
    logs_CL = grouped(logs_CV, ids_CK, whole=whole)
    if whole:
        logs_CL = torch.cat([logs_CL, torch.full_like(logs_CL[:, :1], LEAST)], dim=1)
    return ids_CK, logs_CL.clamp_min(LEAST)
