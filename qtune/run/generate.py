"""`qtune generate` and `qtune chat`: try a model, prompted as it was trained."""

from __future__ import annotations

import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from qtune import evaluation, models
from qtune.data import Prompter, Turn, prompter
from qtune.errors import DataError, UsageError
from qtune.run.subject import load, refuse_overrides, resolve, working_device
from qtune.run.switching import Adapters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from qtune.run.display import Display

PARTIAL = "\N{REPLACEMENT CHARACTER}"  # stands at the end while a character's bytes are coming


class Speaker:
    """A loaded model that continues prompts, greedily or by sampling."""

    def __init__(
        self,
        thing: str,
        *,
        base: str | None = None,
        adapters: Sequence[str] = (),
        overrides: Sequence[str] = (),
        raw: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        display: Display,
    ) -> None:
        subject = resolve(thing, base=base, overrides=overrides)
        refuse_overrides(subject, overrides)
        if subject.model.task == "classification":
            hint = "measure it with qtune eval"
            raise UsageError("is a classifier, and writes no text", place=thing, hint=hint)
        others = [resolve(other, base=base) for other in adapters]
        self.adapters = Adapters([subject, *others])
        self.name, self.raw = subject.name, raw
        self.tokenizer = models.load_tokenizer(subject.model)
        self.prompter = prompter(self.tokenizer, subject.recipe, raw=raw)
        loading = partial(display.progress, "loading")
        self._loaded = load(subject, device=working_device(), on_progress=loading)
        self.model = self._loaded.base.model
        self.choose: Callable[[Tensor], Tensor] = evaluation.greedy
        if temperature > 0:
            self.choose = evaluation.sampler(temperature=temperature, seed=seed)

    def take(self, name: str) -> None:
        """Go on with another of the adapters, prompted as it was trained."""
        subject = self.adapters.take(name, self._loaded)
        self.name = subject.name
        self.prompter = prompter(self.tokenizer, subject.recipe, raw=self.raw)

    def reply(self, prompt: Sequence[int], *, max_new_tokens: int) -> Reply:
        """The continuation of a prompt, computed as it is read."""
        ends = evaluation.stop_ids(self.model, self.tokenizer) | self.prompter.stop_ids
        context = evaluation.context_length(self.model)
        room = context - len(prompt)
        if room < 1:
            raise DataError(
                f"the prompt has {len(prompt):,} tokens, and the model reads {context:,} with its "
                "answer",
                hint="shorten it; in a chat, /new begins anew",
            )
        return Reply(self, prompt, limit=min(max_new_tokens, room), ends=ends)


class Reply:
    """Pieces of text as they come; `ids` and `stopped` are known when they have ended."""

    def __init__(
        self, speaker: Speaker, prompt: Sequence[int], *, limit: int, ends: frozenset[int]
    ) -> None:
        self.ids: list[int] = []
        self.stopped = False
        self._speaker = speaker
        self._prompt = prompt
        self._limit = limit
        self._ends = ends

    def __iter__(self) -> Iterator[str]:
        told = 0
        for _ in self._tokens():
            text = self._text()
            # a character may take several tokens: wait until it is whole
            if not text.endswith(PARTIAL):
                yield text[told:]
                told = len(text)
        yield self._text()[told:]

    def _tokens(self) -> Iterator[int]:
        speaker = self._speaker
        tokens = evaluation.token_stream(speaker.model, [self._prompt], choose=speaker.choose)
        with evaluation.evaluating(speaker.model):
            for (token,) in islice(tokens, self._limit):
                if token in self._ends:
                    self.stopped = True
                    return
                self.ids.append(token)
                yield token

    def _text(self) -> str:
        text: str = self._speaker.tokenizer.decode(self.ids, skip_special_tokens=True)
        return text


def generate(speaker: Speaker, prompts: Sequence[str], *, max_new_tokens: int) -> dict[str, Any]:
    """Continue each prompt."""
    started = time.perf_counter()
    results = []
    for prompt in prompts:
        ids = speaker.prompter.ids(prompt)
        reply = speaker.reply(ids, max_new_tokens=max_new_tokens)
        results.append(
            {
                "prompt": prompt,
                "text": "".join(reply),
                "prompt_tokens": len(ids),
                "new_tokens": len(reply.ids),
                "stopped": reply.stopped,
            }
        )
    seconds = round(time.perf_counter() - started, 3)
    return {"thing": speaker.name, "results": results, "seconds": seconds}


class Chat:
    """A conversation that remembers its turns, where the model was trained on conversations."""

    def __init__(self, speaker: Speaker, *, max_new_tokens: int) -> None:
        self._speaker = speaker
        self._max_new_tokens = max_new_tokens
        self._begin()

    def _begin(self) -> None:
        speaker = self._speaker
        self._turns: list[Turn] = []
        conversational = speaker.prompter.layout in ("chat", "instruction")
        self.remembers = conversational and bool(speaker.tokenizer.chat_template)
        self._prompter = speaker.prompter
        if self.remembers:
            self._prompter = Prompter(
                speaker.tokenizer, layout="chat", settings=speaker.prompter.settings
            )

    def forget(self) -> None:
        """Begin anew."""
        self._turns = []

    def take(self, name: str) -> None:
        """Begin anew with another adapter."""
        self._speaker.take(name)
        self._begin()

    def reply(self, text: str) -> Iterator[str]:
        """The answer, piece by piece; it is remembered when it has been told to its end."""
        asked = [*self._turns, Turn("user", text)]
        prompter = self._prompter
        ids = prompter.conversation(asked) if self.remembers else prompter.ids(text)
        said = ""
        for piece in self._speaker.reply(ids, max_new_tokens=self._max_new_tokens):
            said += piece
            yield piece
        if self.remembers:
            self._turns = [*asked, Turn("assistant", said)]
