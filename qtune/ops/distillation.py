"""What a supervised position costs against its label and a teacher's logits, and the gradient.

Legend: S supervised positions, C of a chunk, V vocabulary size, H and G hidden sizes of student
and teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from qtune.ops.cross_entropy import through_head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from qtune.ops.logits import Criterion

# Elements in fp32 at a time: on a CPU few enough for its caches, on a GPU 64 MB each.
CPU_BLOCK = 1 << 18
GPU_BLOCK = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """(1 - a) hard + a T^2 KL, for a share a and a temperature T (Hinton et al. 2015).

    `hard` is the criterion of the label; it and `teacher` say what becomes of a head's output.
    forward: KL(teacher || student), the student covers all that the teacher may say; reverse:
    KL(student || teacher), it keeps to what the teacher says.
    """

    hard: Criterion
    teacher: Criterion
    temperature: float = 2.0
    share: float = 0.5
    divergence: Literal["forward", "reverse"] = "forward"

    def losses(self, raw_CV: Tensor, target_C: Tensor, teacher_CV: Tensor) -> Tensor:
        """The definition: each position's loss in nats, fp32 [C], of what the two heads put out.

        Where one vocabulary is filled up to more rows than the other, the ids of both count.
        """
        loss_C = (1.0 - self.share) * self.hard.losses(raw_CV, target_C)
        width = min(raw_CV.shape[1], teacher_CV.shape[1])
        student_CV = self.hard.logits(raw_CV[:, :width].float()) / self.temperature
        teacher_CV = self.teacher.logits(teacher_CV[:, :width].float()) / self.temperature
        logs = student_CV.log_softmax(1), teacher_CV.log_softmax(1)
        soft_C = divergence_of(*logs, self.divergence)
        return loss_C + self.share * self.temperature**2 * soft_C

    def losses_and_gradient(
        self, raw_CV: Tensor, target_C: Tensor, teacher_CV: Tensor, *, factor: float
    ) -> tuple[Tensor, Tensor]:
        """`losses` without autograd, and `factor` times the gradient of their sum by the student's
        raw logits, in their dtype; a block of rows in fp32 at a time."""
        return in_blocks(self.losses, raw_CV, (target_C, teacher_CV), factor=factor)


def divergence_of(
    student_CV: Tensor, teacher_CV: Tensor, kind: Literal["forward", "reverse"]
) -> Tensor:
    """KL of two log-probabilities, [C]: (teacher || student) forward, (student || teacher)
    reverse."""
    logs = (student_CV, teacher_CV)
    of_CV, against_CV = logs if kind == "reverse" else logs[::-1]
    return (of_CV.exp() * (of_CV - against_CV)).sum(1)


def in_blocks(
    losses: Callable[..., Tensor], raw_CV: Tensor, targets: Sequence[Tensor], *, factor: float
) -> tuple[Tensor, Tensor]:
    """`losses(raw, *targets)` [C] without autograd, and `factor` times the gradient of their sum
    by `raw_CV`, in its dtype; a block of rows in fp32 at a time."""
    elements = CPU_BLOCK if raw_CV.device.type == "cpu" else GPU_BLOCK
    rows = max(1, elements // raw_CV.shape[1])
    gradient_CV = torch.empty_like(raw_CV)
    found_losses = []
    blocks = (each.split(rows) for each in (raw_CV, gradient_CV, *targets))
    for raw, gradient, *block in zip(*blocks, strict=True):
        leaf = raw.detach().float().requires_grad_()
        with torch.enable_grad():
            loss_C = losses(leaf, *block)
        each_C = torch.full_like(loss_C, factor)
        (found,) = torch.autograd.grad(loss_C, leaf, each_C)
        gradient.copy_(found)
        found_losses.append(loss_C.detach())
    return torch.cat(found_losses), gradient_CV


def distilled(
    hidden_SH: Tensor,
    target_S: Tensor,
    hidden_SG: Tensor,
    head: nn.Module,
    criterion: Distillation,
    *,
    teach: Callable[[Tensor], Tensor],
    chunk_size: int,
    divisor: float = 1.0,
) -> Tensor:
    """Sum of `criterion` over all positions, an fp32 scalar; at most chunk_size x V logits of the
    student and of the teacher exist at a time.

    `teach` is the teacher's head: of hidden states [C, G] its output [C, V].
    """

    def measure(
        raw_CV: Tensor, target_C: Tensor, hidden_CG: Tensor, *, factor: float
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher_CV = teach(hidden_CG)
        return criterion.losses_and_gradient(raw_CV, target_C, teacher_CV, factor=factor)

    targets = (target_S, hidden_SG)
    return through_head(hidden_SH, targets, head, measure, chunk_size=chunk_size, divisor=divisor)
