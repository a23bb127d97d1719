"""What every section of a recipe is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


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
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


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


_SIZE = re.compile(r"[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B")
Size = Annotated[str, BeforeValidator(_size), Field(pattern=f"^{_SIZE.pattern}$")]
Regex = Annotated[str, AfterValidator(_regular_expression)]
Share = Annotated[Real, Field(ge=0.0, le=1.0)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Indices = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)]
