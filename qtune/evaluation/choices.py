"""Multiple choice by log-likelihood: the choice that a model takes for the likeliest.

Summed over a choice's tokens, and divided by its characters, as the harness of EleutherAI does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qtune import oom
from qtune.data.batch import collate
from qtune.data.rounding import placed
from qtune.data.rows import IGNORED, EncodedRow
from qtune.errors import ModelError
from qtune.evaluation.decode import context_length, evaluating
from qtune.evaluation.labels import macro_f1, matthews
from qtune.evaluation.tally import Tally, mean_tally
from qtune.oom import during

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from qtune.evaluation.tally import Floats
    from qtune.losses import CausalLoss

    Progress = Callable[[int, int], None]
    Listener = Callable[[Mapping[int, "Chosen"]], None]


@dataclass(frozen=True)
class Continued:
    """Tokens of a prompt and of a text behind it; the first `given` are the prompt's."""

    place: str
    ids: tuple[int, ...]
    given: int

    def row(self, room: int) -> EncodedRow:
        """The row to measure: what does not fit into `room` tokens is cut off at the left."""
        over = max(0, len(self.ids) - room)
        ids, given = list(self.ids[over:]), max(1, self.given - over)
        return EncodedRow(ids, [*[IGNORED] * given, *ids[given:]], self.place)


@dataclass(frozen=True)
class ChoiceQuestion:
    """A prompt, its choices as text and behind the prompt as tokens, and the right one's number."""

    place: str
    prompt: str
    choices: tuple[str, ...]
    gold: int
    rows: tuple[Continued, ...]


@dataclass(frozen=True)
class Chosen:
    """What a model made of one question: the log-likelihood of each choice in nats."""

    place: str
    prompt: str
    choices: tuple[str, ...]
    gold: int
    scores: tuple[float, ...]

    @property
    def given(self) -> int:
        """The choice that is likeliest; the first of equals."""
        return int(np.argmax(self.scores))

    @property
    def given_by_length(self) -> int:
        """The choice that is likeliest by character."""
        sizes = [max(1, len(choice)) for choice in self.choices]
        return int(np.argmax(np.array(self.scores) / sizes))

    def to_dict(self) -> dict[str, Any]:
        """One line of a predictions file."""
        return asdict(self)

    def measures(self) -> dict[str, Any]:
        """What came of it, for the predictions file."""
        return {"given": self.given, "right": self.given == self.gold}


def choose(
    model: nn.Module,
    questions: Sequence[ChoiceQuestion],
    *,
    loss: CausalLoss,
    batch_size: int,
    pad_id: int,
    known: Mapping[int, Chosen] | None = None,
    on_chosen: Listener | None = None,
    on_progress: Progress | None = None,
) -> list[Chosen]:
    """The log-likelihoods of every question's choices, in the order of the questions.

    The choices of a question stay together, so that a batch may have more rows than `batch_size`.
    """
    room, device = context_length(model), next(model.parameters()).device
    chosen = dict(known or {})
    for numbers in _batches(questions, batch_size, without=chosen):
        rows = [row.row(room) for number in numbers for row in questions[number].rows]
        batch = placed(collate(rows, pad_id=pad_id), device, longest=room, pad_id=pad_id)
        with evaluating(model), during(oom.EVALUATION, tokens=batch.computed):
            sums, _ = loss.per_row(model, batch)
        scores = iter((-sums).tolist())
        found = {}
        for number in numbers:
            asked = questions[number]
            own = tuple(next(scores) for _ in asked.rows)
            found[number] = Chosen(asked.place, asked.prompt, asked.choices, asked.gold, own)
        if not np.isfinite([score for one in found.values() for score in one.scores]).all():
            raise ModelError("a likelihood is NaN", hint="the weights are broken, or overflow")
        chosen |= found
        if on_chosen is not None:
            on_chosen(found)
        if on_progress is not None:
            on_progress(len(chosen), len(questions))
    return [chosen[number] for number in range(len(questions))]


def choice_tallies(chosen: Sequence[Chosen]) -> dict[str, Tally]:
    """Accuracy by the sum, and by the sum over characters."""
    return {
        "accuracy": mean_tally([float(one.given == one.gold) for one in chosen]),
        "accuracy_norm": mean_tally([float(one.given_by_length == one.gold) for one in chosen]),
    }


def label_tallies(chosen: Sequence[Chosen]) -> dict[str, Tally]:
    """Accuracy, macro-F1 and Matthews correlation of choices that are the same for every row."""
    size = len(chosen[0].choices)
    cells = np.zeros((len(chosen), size * size))
    for number, one in enumerate(chosen):
        cells[number, one.gold * size + one.given] = 1.0

    def of(measure: Callable[[Any], float]) -> Tally:
        def score(sums_DK: Floats) -> Floats:
            tables = sums_DK.reshape(-1, size, size).round().astype(np.int64)
            return np.array([measure(table) for table in tables])

        return Tally(cells, score)

    accuracy = mean_tally([float(one.given == one.gold) for one in chosen])
    return {"accuracy": accuracy, "macro_f1": of(macro_f1), "matthews": of(matthews)}


def _batches(
    questions: Sequence[ChoiceQuestion], batch_size: int, *, without: Mapping[int, Chosen]
) -> list[list[int]]:
    """Numbers of questions of like length whose choices make about `batch_size` rows."""
    left = [number for number in range(len(questions)) if number not in without]
    longest = {n: max(len(row.ids) for row in questions[n].rows) for n in left}
    batches: list[list[int]] = []
    rows = batch_size
    for number in sorted(left, key=lambda number: -longest[number]):
        own = len(questions[number].rows)
        if rows + own > batch_size:
            batches.append([])
            rows = 0
        batches[-1].append(number)
        rows += own
    return batches
