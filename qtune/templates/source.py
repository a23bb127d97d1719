"""What is wrong with the text of a template, told before it runs."""

from __future__ import annotations

import re
from typing import NamedTuple

from qtune.templates import LARGEST

# transformers' own tag, which a parser of jinja alone does not know.
_GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")


class SourceFault(NamedTuple):
    """A fault and its line, where it has one."""

    message: str
    line: int | None = None


def fault_of(text: str) -> SourceFault | None:
    """Why a text cannot be a chat template; None if it can.

    Powers are refused: `10 ** 10 ** 10` is one step of the interpreter that no watch can end.
    """
    from jinja2 import Environment, TemplateError
    from jinja2.nodes import Pow

    size = len(text.encode("utf-8", "surrogatepass"))
    if size > LARGEST:
        return SourceFault(f"has {size:,} bytes, at most {LARGEST:,} are read")
    if not text.strip():
        return SourceFault("is empty")
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(  # noqa: S701 - no HTML
            _GENERATION.sub("", text)
        )
        power = next(parsed.find_all(Pow), None)
    except TemplateError as error:
        return SourceFault(f"is no Jinja: {error.message}", getattr(error, "lineno", None))
    except RecursionError:
        return SourceFault("is nested too deeply")
    if power is None:
        return None
    return SourceFault("raises to a power (**), which it may not", power.lineno)
