"""From hidden states and labels to a summed loss and a count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.losses.causal import CausalLoss, LossOutput
from qtune.losses.classification import ClassificationLoss, scores
from qtune.losses.distillation import DistillationLoss, Teacher
from qtune.losses.head import check_head
from qtune.losses.lessons import LessonsLoss

if TYPE_CHECKING:
    from qtune.recipe.inputs import LossSection, Task

__all__ = [
    "CausalLoss",
    "ClassificationLoss",
    "DistillationLoss",
    "LessonsLoss",
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
    lesson_width: int | None = None,
) -> CausalLoss | ClassificationLoss | DistillationLoss | LessonsLoss:
    """The training loss of a recipe; `teacher` is the one it names, loaded, or `lesson_width` of
    how many ids one wrote."""
    if task == "classification":
        return ClassificationLoss(label_smoothing=section.label_smoothing, z_loss=section.z_loss)
    taught: dict[str, Any] = {
        "chunk_size": chunk_size,
        "temperature": section.temperature,
        "soft_share": section.soft_share,
        "divergence": section.divergence,
        "label_smoothing": section.label_smoothing,
        "z_loss": section.z_loss,
    }
    if lesson_width is not None:
        return LessonsLoss(width=lesson_width, **taught)
    if teacher is not None:
        return DistillationLoss(teacher, **taught)
    return CausalLoss(
        chunk_size=chunk_size, label_smoothing=section.label_smoothing, z_loss=section.z_loss
    )
