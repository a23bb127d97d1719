"""The chat template of model.chat_template, set on the tokenizer; the end mark must be a token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, TemplateError

from qtune import templates
from qtune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from qtune.recipe.sections import ModelSection

KEY = "model.chat_template"
# transformers' own tag, which a parser of jinja alone does not know.
_GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")


def set_chat_template(tokenizer: Any, section: ModelSection) -> None:
    """Give the tokenizer the template that the recipe names; a faulty one is refused here."""
    value = section.chat_template
    if value is None:
        _check_own(tokenizer)
        return
    if value in templates.ENDS:
        _check_end(tokenizer, value)
        tokenizer.chat_template = templates.text_of(value)
        return
    text = _text(value)
    place = value if templates.is_file(value) else KEY
    _check_size(text, place)
    _check_syntax(text, place)
    tokenizer.chat_template = text


def _text(value: str) -> str:
    if templates.is_text(value):
        return value
    try:
        return Path(value).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise UsageError(f"{KEY}: {reason or 'cannot be read'}", place=value) from None


def _check_own(tokenizer: Any) -> None:
    """The tokenizer's own templates: one text, or several by name."""
    own = tokenizer.chat_template or ""
    for text in own.values() if isinstance(own, dict) else [own]:
        _check_size(str(text), str(tokenizer.name_or_path), ModelError)


def _check_size(
    text: str, place: str, kind: type[ModelError] | type[UsageError] = UsageError
) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > templates.LARGEST:
        raise kind(
            f"the chat template has {size:,} bytes, at most {templates.LARGEST:,} are read",
            place=place,
            hint="set model.chat_template to a built-in one",
        )


def _check_syntax(text: str, place: str) -> None:
    if not text.strip():
        raise UsageError("the chat template is empty", place=place)
    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(  # noqa: S701 - parsed only
            _GENERATION.sub("", text)
        )
    except (TemplateError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        at = f"{place}:{line}" if line and place != KEY else place
        reason = getattr(error, "message", None) or "too deeply nested"
        raise UsageError(f"the chat template is no Jinja: {reason}", place=at) from None


def _check_end(tokenizer: Any, name: str) -> None:
    """Generation stops at single tokens; an end mark in pieces would never be met as one."""
    special = set(tokenizer.all_special_tokens)
    added = tokenizer.added_tokens_decoder.values()
    special |= {str(token) for token in added if token.special}
    end = templates.ENDS[name]
    if not end or end in special:
        return
    fitting = [other for other, mark in templates.ENDS.items() if not mark or mark in special]
    raise UsageError(
        f"{name} ends answers with {end}, which this tokenizer has no token for",
        place=KEY,
        hint=f"fitting this tokenizer: {', '.join(fitting)}",
    )
