"""Load the tokenizer of a base model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError
from qtune.models.files import locate

if TYPE_CHECKING:
    from qtune.recipe.sections import ModelSection


def load_tokenizer(section: ModelSection) -> Any:
    """The tokenizer of `model.tokenizer`, or of the model itself."""
    from transformers import AutoTokenizer

    own = section.tokenizer is None
    folder = locate(
        section.tokenizer or section.name_or_path, revision=section.revision if own else None
    )
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"no usable tokenizer: {error}", place=str(folder)) from error
