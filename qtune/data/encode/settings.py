"""What a recipe says about writing conversations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtune import templates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.recipe.sections import Recipe

OWN = "the tokenizer's chat template"


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """`variables` go to the template, `name` is what people call it, `thinking`: it is learnt."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    name: str = OWN
    thinking: bool = True

    @classmethod
    def of(cls, recipe: Recipe | None) -> ChatSettings:
        """The settings of a recipe; without one, those of any tokenizer."""
        if recipe is None:
            return cls()
        model = recipe.model
        name = templates.named(model.chat_template) if model.chat_template else OWN
        return cls(model.chat_template_kwargs, name, recipe.loss.train_on_thinking)
