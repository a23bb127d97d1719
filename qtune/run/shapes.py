"""What a recipe's model is made of: by the plan's formulas, or, of another family, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune import plan
from qtune.errors import UsageError
from qtune.plan import UnknownFamilyError

if TYPE_CHECKING:
    from qtune.plan import ModelShape
    from qtune.recipe.sections import ModelSection


def shape_of_model(model: ModelSection) -> ModelShape:
    """The shape of a recipe's model; only its config.json is read."""
    return shape_and_note(model, published=False)[0]


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
