"""The chat template of model.chat_template, set on the tokenizer; the end mark must be a token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import templates
from qtune.errors import ModelError, UsageError
from qtune.templates.source import fault_of

if TYPE_CHECKING:
    from qtune.recipe.inputs import ModelSection

KEY = "model.chat_template"


def set_chat_template(tokenizer: Any, section: ModelSection) -> None:
    """Give the tokenizer the template that the recipe names; a faulty one is refused here."""
    value = section.chat_template
    if value is None:
        _check_own(tokenizer, section)
        return
    if value in templates.ENDS:
        _check_end(tokenizer, value)
        tokenizer.chat_template = templates.text_of(value)
        return
    text = _text(value)
    if fault := fault_of(text):
        place = value if templates.is_file(value) else KEY
        at = f"{place}:{fault.line}" if fault.line and place != KEY else place
        raise UsageError(f"the chat template {fault.message}", place=at)
    tokenizer.chat_template = text


def _check_own(tokenizer: Any, section: ModelSection) -> None:
    own = tokenizer.chat_template
    fault = fault_of(own) if isinstance(own, str) else None
    if fault is not None:
        raise ModelError(
            f"the tokenizer's own chat template {fault.message}",
            place=section.tokenizer or section.name_or_path,
            hint=f"set {KEY} to a built-in one, or to a file",
        )


def _text(value: str) -> str:
    if templates.is_text(value):
        return value
    try:
        return Path(value).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise UsageError(f"{KEY}: {reason or 'cannot be read'}", place=value) from None


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
