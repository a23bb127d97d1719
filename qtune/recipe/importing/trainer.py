"""Rows, optimizer, length and files of a run under the names of transformers' Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.recipe.importing import shared

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft


def trainer(draft: Draft, *, learning_rate: float) -> None:
    """Every key of its that several tools pass on, with its defaults but for the peak rate."""
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps")
    shared.batch(draft, *keys, defaults=(8, 1))
    shared.optimizer(draft, "optim", default="adamw")
    shared.schedule(draft, "lr_scheduler_type", default="linear")
    shared.rates(draft, learning_rate=learning_rate)
    shared.length(draft, epochs=3.0)
    run(draft)


def run(draft: Draft) -> None:
    """Seed, folder, order, checkpoints and evaluations."""
    draft.move("seed", "train.seed")
    draft.move("output_dir", "train.output_dir")
    draft.move("group_by_length", "train.group_by_length", {False: None})
    shared.saving(draft)
    shared.evaluating(draft)
