"""What every section of a recipe is made of."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from qtune import templates
from qtune.recipe.scalars import scalar


class Section(BaseModel):
    """A part of a recipe: strict types, no unknown keys, never changed after reading."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


def _number(value: Any) -> Any:
    """A quoted number is still a number; every other text is left for pydantic to refuse."""
    number = scalar(value) if isinstance(value, str) else None
    return float(number) if isinstance(number, float) or type(number) is int else value


Real = Annotated[float, BeforeValidator(_number)]


def _size(value: Any) -> Any:
    """A number with a unit, above zero."""
    if isinstance(value, str) and _SIZE.fullmatch(value) and re.search("[1-9]", value):
        return value
    raise ValueError("is not a size such as 20GB or 512MiB")


def _regular_expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


def _chat_template(value: str) -> str:
    if value in templates.ENDS or templates.is_file(value) or templates.is_text(value):
        return value
    near = difflib.get_close_matches(value, templates.ENDS, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}?" if near else f"one of {', '.join(templates.ENDS)}"
    raise ValueError(f"is no built-in chat template and no .jinja file; {meant}")


_SIZE = re.compile(r"[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B")
Size = Annotated[str, BeforeValidator(_size), Field(pattern=f"^{_SIZE.pattern}$")]
ChatTemplate = Annotated[str, AfterValidator(_chat_template)]
Regex = Annotated[str, AfterValidator(_regular_expression)]
Share = Annotated[Real, Field(ge=0.0, le=1.0)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Indices = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)]
