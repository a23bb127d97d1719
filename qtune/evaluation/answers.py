"""Answers by greedy decoding, and how good they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qtune import oom
from qtune.evaluation.decode import decode, stop_ids
from qtune.evaluation.intervals import mean_interval
from qtune.evaluation.match import exact_match, token_f1
from qtune.oom import during

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from qtune.data import Rows

    Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Answer:
    """What a model said to one prompt, beside what was wanted."""

    place: str
    prompt: str
    reference: str
    text: str
    stopped: bool

    def to_dict(self) -> dict[str, Any]:
        """One line of a predictions file."""
        return asdict(self)


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


def answer(
    model: nn.Module,
    tokenizer: Any,
    rows: Rows,
    *,
    max_new_tokens: int,
    batch_size: int,
    on_progress: Progress | None = None,
) -> list[Answer]:
    """Greedy answers in the order of `rows`; `on_progress(done, all)` after each batch.

    An answer ends at the token that ends answers in these rows, or at one that the model names.
    """
    order = (-rows.lengths).argsort(kind="stable").tolist()
    ends = stop_ids(model, tokenizer) | frozenset(rows.stop_ids)
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        asked = [rows[index] for index in chosen]
        prompts = [row.prompt_ids or [] for row in asked]
        with during(oom.GENERATION):
            continued = decode(model, prompts, max_new_tokens=max_new_tokens, stop_ids=ends)
        for index, row, continuation in zip(chosen, asked, continued, strict=True):
            answers[index] = Answer(
                place=row.place,
                prompt=tokenizer.decode(row.prompt_ids),
                reference=row.answer or "",
                text=tokenizer.decode(continuation.ids, skip_special_tokens=True),
                stopped=continuation.stopped,
            )
        if on_progress is not None:
            on_progress(start + len(chosen), len(order))
    return [answers[index] for index in range(len(rows))]


def score(answers: Sequence[Answer]) -> dict[str, Any]:
    """Means over the answers, each with the ends of its interval."""
    figures: dict[str, Any] = {"rows": len(answers)} | means(answers)
    for name, values in row_scores(answers).items():
        interval = mean_interval(values)
        figures[f"{name}_low"], figures[f"{name}_high"] = interval.low, interval.high
    return figures


def means(answers: Sequence[Answer]) -> dict[str, float]:
    """The mean of each measure over the answers."""
    return {name: sum(each) / len(each) for name, each in row_scores(answers).items()}


def row_scores(answers: Sequence[Answer]) -> dict[str, list[float]]:
    """Each measure's value for each answer."""
    return {
        "exact_match": [exact_match(one.text, one.reference) for one in answers],
        "token_f1": [token_f1(one.text, one.reference) for one in answers],
        "stopped": [float(one.stopped) for one in answers],
    }


def score_difference(ours: Sequence[Answer], base: Sequence[Answer]) -> dict[str, float]:
    """Scores of ours minus those of the base on the same rows, with paired intervals."""
    assert [one.place for one in ours] == [one.place for one in base], "the rows differ"
    figures: dict[str, float] = {}
    theirs = row_scores(base)
    for name, values in row_scores(ours).items():
        moved = [one - other for one, other in zip(values, theirs[name], strict=True)]
        interval = mean_interval(moved)
        figures[name] = sum(moved) / len(moved)
        figures[f"{name}_low"], figures[f"{name}_high"] = interval.low, interval.high
    return figures
