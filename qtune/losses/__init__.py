"""From hidden states and labels to a summed loss and a count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.losses.causal import CausalLoss, LossOutput
from qtune.losses.classification import ClassificationLoss, scores
from qtune.losses.distillation import DistillationLoss, Teacher
from qtune.losses.head import check_head

if TYPE_CHECKING:
    from qtune.recipe.inputs import LossSection, Task

__all__ = [
    "CausalLoss",
    "ClassificationLoss",
    "DistillationLoss",
    "LossOutput",
    "Teacher",
    "check_head",
    "make",
    "scores",
]


def make(
    section: LossSection,
    *,
    chunk_size: int,
    task: Task = "causal",
    teacher: Teacher | None = None,
) -> CausalLoss | ClassificationLoss | DistillationLoss:
    """The training loss of a recipe; `teacher` is the one it names, loaded."""
    if task == "classification":
        return ClassificationLoss(label_smoothing=section.label_smoothing, z_loss=section.z_loss)
    if teacher is not None:
        return DistillationLoss(
            teacher,
            chunk_size=chunk_size,
            temperature=section.temperature,
            soft_share=section.soft_share,
            divergence=section.divergence,
            label_smoothing=section.label_smoothing,
            z_loss=section.z_loss,
        )
    return CausalLoss(
        chunk_size=chunk_size, label_smoothing=section.label_smoothing, z_loss=section.z_loss
    )
