"""What a recipe's model is made of: by the plan's formulas, or, of another family, measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtune import plan
from qtune.errors import ModelError, UsageError
from qtune.plan import TensorShape, UnknownFamilyError
from qtune.recipe.inputs import ModelSection
from qtune.recipe.lessons import lessons_of
from qtune.recipe.methods import BridgeConfig

if TYPE_CHECKING:
    from qtune.plan import ModelShape
    from qtune.recipe.sections import Recipe

NEEDS_WEIGHTS = ("SHIRA",)
"""Tuners of PEFT that do not start on the meta device."""
COUNTED_WITH_WEIGHTS = 10**9


def shape_of_model(model: ModelSection) -> ModelShape:
    """The shape of a recipe's model; only its config.json is read."""
    return shape_and_note(model, published=False)[0]


def shape_for(asked: Recipe) -> ModelShape:
    """The shape of a recipe's model, with what a tuner of PEFT would train in it and with its
    teacher's."""
    return with_teacher(asked, with_bridge(asked, shape_of_model(asked.model)))


def teacher_of(asked: Recipe) -> ModelSection | None:
    """The other model that teaches, if there is one."""
    name = asked.loss.teacher
    if name in (None, "base") or lessons_of(asked) is not None:
        return None
    return ModelSection(
        name_or_path=str(name),
        attn_implementation=asked.model.attn_implementation,
        offline=asked.model.offline,
    )


def with_teacher(asked: Recipe, shape: ModelShape, *, published: bool = False) -> ModelShape:
    """The shape with the teacher's, if another model teaches."""
    teacher = teacher_of(asked)
    if teacher is None:
        return shape
    try:
        found, _ = shape_and_note(teacher, published=published)
    except ModelError as error:  # which of the two models it is, is for the key to tell
        raise ModelError.of(
            [replace(fault, place="loss.teacher") for fault in error.faults]
        ) from error
    return replace(shape, teacher=found)


def with_bridge(asked: Recipe, shape: ModelShape) -> ModelShape:
    """The shape with the tensors of method peft, which PEFT makes on the meta device; torch and
    PEFT are imported for this method alone."""
    if not isinstance(asked.method, BridgeConfig):
        return shape
    import torch

    from qtune import methods
    from qtune.models.files import SMALL, locate
    from qtune.models.preparation import freeze
    from qtune.models.skeleton import build

    section = asked.model
    folder = locate(section.name_or_path, revision=section.revision, patterns=SMALL)
    network = build(folder, section, dtype=torch.float32)
    if asked.method.type in NEEDS_WEIGHTS:
        if shape.total_parameters > COUNTED_WITH_WEIGHTS:
            raise UsageError(
                f"what {asked.method.type} trains in so large a model is not known before it loads",
                place="method.type",
            )
        network = network.to_empty(device="cpu")
    freeze(network)
    method = methods.create(asked.method, seed=0)
    method.attach(network)
    made = method.parameters().items()
    return replace(shape, bridged=tuple(TensorShape(name, tuple(t.shape)) for name, t in made))


def shape_and_note(model: ModelSection, *, published: bool = True) -> tuple[ModelShape, str]:
    """The shape, and where it comes from if not from the formulas on the model's own config.json.

    torch is imported for an unknown family alone.
    """
    find = plan.shape_before_download if published else plan.shape_of_model
    try:
        found = find(model)
    except UnknownFamilyError as unknown:
        from qtune.models import measure

        content = plan.read_config(model.name_or_path, model.revision)
        place = f"{model.name_or_path}/config.json"
        if model.task == "classification" and not model.labels:
            message = "a classification's labels are not known"
            raise UsageError(message, place="model.labels") from None
        shape = measure(content, place=place, section=model)
        if shape is None:
            raise unknown from None
        return shape, f"{shape.family} is measured on transformers' own class"
    return found if isinstance(found, tuple) else (found, "")
