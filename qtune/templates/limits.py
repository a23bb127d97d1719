"""What a chat template may take to write one conversation, and the errors when it takes more."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from qtune.errors import DataError
from qtune.templates.ceiling import HEADROOM, Ceiling
from qtune.templates.watch import SECONDS, TakesTooLong, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_OUTPUT = 1_000_000
_HINT = "set model.chat_template to a built-in one"

T = TypeVar("T")


class Limits:
    """Runs one template's renders: bounded time and memory, and any error of it as its refusal."""

    def __init__(self, name: str, seconds: float = SECONDS, headroom: int = HEADROOM) -> None:
        self._name = name
        self._seconds = seconds
        self._headroom = headroom
        self._watch = Watch(seconds)
        self._ceiling = Ceiling(headroom)

    def call(self, render: Callable[[], T]) -> T:
        """What the template gives; `DataError` names it."""
        try:
            return self._watch.call(lambda: self._ceiling.call(render))
        except TakesTooLong:
            message = f"takes more than {self._seconds:g} s to write this conversation"
        except MemoryError:
            message = f"takes more than {self._headroom >> 20:,} MiB to write this conversation"
        except Exception as error:  # a template is foreign code: whatever it raises is its refusal
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{self._name} refuses this conversation: {reason}") from None
        raise DataError(f"{self._name} {message}", hint=_HINT)

    def check(self, text: str, given: object) -> None:
        """`DataError` for a text that is far longer than what was given to write."""
        if len(text) > LARGEST_OUTPUT and len(text) > LARGEST_OUTPUT + 2 * len(repr(given)):
            raise DataError(
                f"{self._name} writes {len(text):,} characters for this conversation", hint=_HINT
            )
