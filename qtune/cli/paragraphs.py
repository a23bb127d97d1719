"""The help of a verb: its docstring in paragraphs that are as wide as the terminal."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_WITHIN = re.compile(r"(?<!\n)\n(?=\S)")


def paragraphs(verb: Callable[..., Any] | None) -> str:
    """A docstring without the line breaks of its source; indented lines, the examples, stay."""
    return _WITHIN.sub(" ", inspect.getdoc(verb) or "")
