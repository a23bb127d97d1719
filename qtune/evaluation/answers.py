"""Answers by greedy decoding, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qtune import oom
from qtune.evaluation.batches import by_batch, slices
from qtune.evaluation.decode import decode, stop_ids
from qtune.evaluation.sharing import BY_ONE, Together
from qtune.evaluation.texts import tallies
from qtune.oom import during

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from qtune.data import Rows
    from qtune.recipe.results import CacheKind

    Progress = Callable[[int, int], None]
    Listener = Callable[[Mapping[int, "Answer"]], None]

MEASURES = ("exact_match", "token_f1", "stopped")
_LOOK_BACK = 8  # tokens more than a stop text has characters: one may stand on many


@dataclass(frozen=True)
class Prompt:
    """What a model is asked, and every text that is a right answer."""

    place: str
    text: str
    ids: tuple[int, ...]
    references: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a model said to one prompt, beside what was wanted."""

    place: str
    prompt: str
    reference: str
    text: str
    stopped: bool
    more: tuple[str, ...] = ()
    """Other references, as good as the first."""

    @property
    def references(self) -> tuple[str, ...]:
        """Every text that is a right answer."""
        return (self.reference, *self.more)

    def to_dict(self) -> dict[str, Any]:
        """One line of a predictions file."""
        several = {"references": list(self.references)} if self.more else {}
        return {
            "place": self.place,
            "prompt": self.prompt,
            "reference": self.reference,
            **several,
            "text": self.text,
            "stopped": self.stopped,
        }


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How answers are generated."""

    max_new_tokens: int
    batch_size: int
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end an answer, beside those that the model and its tokenizer name."""
    stop_texts: tuple[str, ...] = ()
    """Texts that end an answer, and are cut off with all behind them."""
    cache: CacheKind = "dynamic"


def answerable(rows: Rows, limit: int) -> Rows:
    """The first `limit` rows that have a prompt and a reference answer."""
    found: list[int] = []
    for number in range(len(rows)):
        if len(found) == limit:
            break
        row = rows[number]
        if row.prompt_ids and row.answer is not None:
            found.append(number)
    return rows.take(found)


def prompts_of(rows: Rows, tokenizer: Any) -> list[Prompt]:
    """The prompts of answerable rows, as training encoded them."""
    return [
        Prompt(
            place=row.place,
            text=tokenizer.decode(row.prompt_ids),
            ids=tuple(row.prompt_ids or ()),
            references=(row.answer or "",),
        )
        for row in (rows[number] for number in range(len(rows)))
    ]


def answer(
    model: nn.Module,
    tokenizer: Any,
    rows: Rows,
    *,
    max_new_tokens: int,
    batch_size: int,
    cache: CacheKind = "dynamic",
    on_progress: Progress | None = None,
    together: Together = BY_ONE,
) -> list[Answer]:
    """Greedy answers in the order of `rows`; `on_progress(done, all)` after each batch of this
    process's part.

    An answer ends at the token that ends answers in these rows, or at one that the model names.
    """
    manner = Manner(
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        stop_ids=frozenset(rows.stop_ids),
        cache=cache,
    )
    prompts = prompts_of(rows, tokenizer)
    return answer_all(model, tokenizer, prompts, manner, on_progress=on_progress, together=together)


def answer_all(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    manner: Manner,
    *,
    known: Mapping[int, Answer] | None = None,
    on_answers: Listener | None = None,
    on_progress: Progress | None = None,
    together: Together = BY_ONE,
) -> list[Answer]:
    """Greedy answers in the order of the prompts, `known` ones as they are.

    `on_answers` gets the answers of each batch of this process's part by the numbers of their
    prompts; `on_progress(done, all)` tells of that part.
    """
    answers = dict(known or {})
    # prompts of like length share a batch: less padding, and the same answers
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number].ids))
    order = [number for number in order if number not in answers]

    def say(numbers: Sequence[int]) -> list[Answer]:
        return _batch(model, tokenizer, [prompts[number] for number in numbers], manner)

    answers |= by_batch(
        order,
        slices(manner.batch_size),
        say,
        on_found=on_answers,
        on_progress=on_progress,
        together=together,
    )
    return [answers[number] for number in range(len(prompts))]


def _batch(
    model: nn.Module, tokenizer: Any, asked: Sequence[Prompt], manner: Manner
) -> list[Answer]:
    longest = max((len(text) for text in manner.stop_texts), default=0) + _LOOK_BACK

    def ended(ids: list[int]) -> bool:
        text = tokenizer.decode(ids[-longest:], skip_special_tokens=True)
        return any(stop in text for stop in manner.stop_texts)

    with during(oom.GENERATION):
        continued = decode(
            model,
            [prompt.ids for prompt in asked],
            max_new_tokens=manner.max_new_tokens,
            stop_ids=stop_ids(model, tokenizer) | manner.stop_ids,
            ended=ended if manner.stop_texts else None,
            cache=manner.cache,
        )
    return [
        _cut(
            Answer(
                place=prompt.place,
                prompt=prompt.text,
                reference=prompt.references[0],
                text=tokenizer.decode(continuation.ids, skip_special_tokens=True),
                stopped=continuation.stopped,
                more=prompt.references[1:],
            ),
            manner.stop_texts,
        )
        for prompt, continuation in zip(asked, continued, strict=True)
    ]


def _cut(said: Answer, stop_texts: Sequence[str]) -> Answer:
    """The answer up to the first stop text in it."""
    ends = [place for stop in stop_texts if (place := said.text.find(stop)) >= 0]
    return replace(said, text=said.text[: min(ends)], stopped=True) if ends else said


def score(answers: Sequence[Answer], measures: Sequence[str] = MEASURES) -> dict[str, Any]:
    """Each measure over the answers, with the ends of its interval."""
    figures: dict[str, Any] = {"rows": len(answers)}
    for name, tally in tallies(answers, measures).items():
        figures |= tally.figures(name)
    return figures


def means(answers: Sequence[Answer], measures: Sequence[str] = MEASURES) -> dict[str, float]:
    """Each measure over the answers."""
    return {name: tally.value for name, tally in tallies(answers, measures).items()}


def score_difference(
    ours: Sequence[Answer], base: Sequence[Answer], measures: Sequence[str] = MEASURES
) -> dict[str, float]:
    """Scores of ours minus those of the base on the same rows: paired intervals and p-values."""
    assert [one.place for one in ours] == [one.place for one in base], "the rows differ"
    figures: dict[str, float] = {}
    theirs = tallies(base, measures)
    for name, tally in tallies(ours, measures).items():
        figures |= tally.beyond(theirs[name], name)
    return figures
