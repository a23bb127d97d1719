"""The columns of an evaluation: adapter and base, the base in 16 bits, a merged model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtune import merging, models
from qtune.errors import ModelError, UsageError
from qtune.evaluation.ledger import Ledger
from qtune.recipe.inputs import QuantizationSection
from qtune.run.subject import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qtune.run.bench import Held, Limits
    from qtune.run.display import Display
    from qtune.run.subject import Subject

STEPS = {
    "quantization": ("base", "base16"),
    "tuning": ("adapter", "base"),
    "merge": ("merged", "adapter"),
}
"""What a step did: the model after it, and the one before."""


def names(limits: Limits) -> tuple[str, ...]:
    """What the report calls the other models."""
    return (*(("base16",) if limits.base16 else ()), *(("merged",) if limits.merged else ()))


def beside(subject: Subject, limits: Limits, display: Display) -> list[Subject]:
    """The other models that are measured, in the order of their names."""
    if subject.adapter is None and names(limits):
        option = "--base16" if limits.base16 else "--merged"
        raise UsageError("needs a run or an adapter to stand beside", place=option)
    found = []
    if limits.base16:
        if subject.quantization.bits == 16:
            raise UsageError("the base is in 16 bits already", place="--base16")
        dtype = subject.quantization.compute_dtype
        dense = QuantizationSection(bits=16, compute_dtype=dtype)
        found.append(replace(subject, quantization=dense, adapter=None, recipe=None))
    if limits.merged:
        merged = resolve(limits.merged)
        if merged.kind != "model":
            raise UsageError(
                f"{merged.name} is no merged model",
                place="--merged",
                hint=f"qtune merge {subject.name} -o FOLDER writes one",
            )
        _refuse_foreign(merged, subject, display)
        found.append(merged)
    return found


def _refuse_foreign(merged: Subject, subject: Subject, display: Display) -> None:
    """`ModelError` for a model that was merged of another adapter or base than the subject's."""
    noted = merging.made_of(models.resolve(merged.model))
    if not noted:
        display.line(f"{merged.name} holds no record that it is a merge of {subject.name}")
        return
    own = {
        "adapter": subject.read_adapter().digest(),
        "base": models.fingerprint(models.resolve(subject.model)),
    }
    for part, digest in own.items():
        if noted[part] != digest:
            raise ModelError(
                f"{merged.name} was merged of another {part} ({noted[part][:12]}) than that of "
                f"{subject.name} ({digest[:12]})",
                place="--merged",
                hint=f"qtune merge {subject.name} -o FOLDER",
            )


def comparisons(sides: Mapping[str, Any]) -> dict[str, Any]:
    """What quantising, tuning and merging changed each, where there are more than two models."""
    if not {"base16", "merged"} & sides.keys():
        return {}
    return {
        "comparisons": {
            step: sides[after].against(sides[before])
            for step, (after, before) in STEPS.items()
            if after in sides and before in sides
        }
    }


def kept(target: Path | None, columns: Sequence[Subject], held: Held, display: Display) -> Ledger:
    """Where the answers of tasks are kept until the evaluation is done."""
    if target is None or not held.tasks:
        return Ledger(None, {})
    models_asked = [
        [
            models.fingerprint(models.resolve(column.model)),
            column.quantization.model_dump(),
            column.read_adapter().digest() if column.adapter else None,
        ]
        for column in columns
    ]
    ledger = Ledger(
        target.parent, {"models": models_asked, "tasks": [task.settings() for task in held.tasks]}
    )
    if len(ledger):
        display.line(f"going on with {len(ledger)} answers of an evaluation that was interrupted")
    return ledger
