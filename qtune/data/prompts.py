"""What a person types, encoded exactly as the prompts that the model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.data.encode.encoder import Encoder
from qtune.data.encode.layouts import layout_for
from qtune.data.encode.settings import ChatSettings
from qtune.data.encode.tokens import Tokens
from qtune.data.faults import Faults
from qtune.data.formats.detect import detect
from qtune.data.formats.prompt_completion import places
from qtune.data.report import SourceReport
from qtune.data.row import Example, Turn
from qtune.data.source import read
from qtune.errors import DataError, QtuneError
from qtune.recipe.inputs import DataSection, SourceSection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data.formats.base import Format
    from qtune.recipe.sections import Recipe

NO_LIMIT = 2**31
# An answer that stands in for the one to come; segments are tokenised apart, so any text does.
_ANSWER = Turn("assistant", "x", train=True)


class Prompter:
    """Encodes prompts in one layout: chat, instruction or completion."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        layout: str,
        template: str | None = None,
        settings: ChatSettings | None = None,
    ) -> None:
        self.layout = layout
        self.settings = settings
        self._template = template
        source = SourceSection(path="prompt")
        self._report = SourceReport("prompt", "", "", "")
        tokens = Tokens(tokenizer)
        self._encoder = Encoder(
            tokens,
            layout_for(layout, tokens, settings),
            DataSection(train=(source,), max_length=NO_LIMIT),
            train_on="assistant",
            cut=False,
        )

    @property
    def stop_ids(self) -> frozenset[int]:
        """What ends an answer in this layout; known after the first prompt."""
        return frozenset(self._encoder.stop_ids)

    def ids(self, text: str) -> list[int]:
        """The prompt of one request."""
        if self.layout == "chat":
            return self.conversation([Turn("user", text)])
        if self.layout == "instruction":
            return self._encode((Turn("instruction", text), _ANSWER))
        return self._encode((Turn("prompt", self._filled(text)), _ANSWER))

    def conversation(self, turns: Sequence[Turn]) -> list[int]:
        """The prompt for the assistant's next turn."""
        return self._encode((*turns, _ANSWER))

    def _filled(self, text: str) -> str:
        """The run's prompt_template around the text, when it has one place."""
        if self._template is None:
            return text
        names = set(places(self._template))
        return self._template.format(**{names.pop(): text}) if len(names) == 1 else text

    def _encode(self, turns: tuple[Turn, ...]) -> list[int]:
        faults = Faults()
        rows = list(self._encoder.encode([Example("prompt", 1, turns)], self._report, faults))
        faults.raise_if_any()
        ids = rows[0].ids[: rows[0].prompt_length]
        if not ids:
            raise DataError("the prompt has no token", hint="write something")
        return ids


def prompter(tokenizer: Any, recipe: Recipe | None, *, raw: bool = False) -> Prompter:
    """The layout of a run's own data; without a run, chat where the tokenizer has a template.

    `raw` feeds the text as it stands, behind the begin-of-sequence token if there is one.
    """
    if raw:
        return Prompter(tokenizer, layout="completion")
    source = recipe.data.train[0] if recipe is not None else None
    form = _format(source) if source is not None else None
    if form is None:
        layout = "chat" if tokenizer.chat_template else "completion"
    else:
        layout = "completion" if form.layout in ("document", "tokens") else form.layout
    template = source.prompt_template if source is not None else None
    template = template or (form.prompt if form is not None else None)
    settings = ChatSettings.of(recipe)
    return Prompter(tokenizer, layout=layout, template=template, settings=settings)


def _format(source: SourceSection) -> Format | None:
    """The format of a source, read off the first row; None if it is not there any more."""
    try:
        row = next(iter(read(source, Faults())), None)
        return None if row is None else detect(row, source).format
    except QtuneError:
        return None
