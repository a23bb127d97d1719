"""Multiple choice by log-likelihood: the choice that a model takes for the likeliest.

Summed over a choice's tokens, and divided by its characters, as the harness of EleutherAI does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from qtune import oom
from qtune.data.batch import collate
from qtune.data.rounding import placed
from qtune.data.rows import IGNORED, EncodedRow
from qtune.errors import ModelError
from qtune.evaluation.batches import by_batch
from qtune.evaluation.decode import context_length, evaluating
from qtune.evaluation.labels import macro_f1, matthews
from qtune.evaluation.sharing import BY_ONE, Together
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


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How choices are scored."""

    loss: CausalLoss
    batch_size: int
    pad_id: int


def choose(
    model: nn.Module,
    questions: Sequence[ChoiceQuestion],
    scoring: Scoring,
    *,
    known: Mapping[int, Chosen] | None = None,
    on_chosen: Listener | None = None,
    on_progress: Progress | None = None,
    together: Together = BY_ONE,
) -> list[Chosen]:
    """The log-likelihoods of every question's choices, in the order of the questions.

    The choices of a question stay together, so that a batch may have more rows than its size.
    `on_chosen` and `on_progress(done, all)` tell of this process's part.
    """
    room, device = context_length(model), next(model.parameters()).device
    chosen = dict(known or {})
    longest = {n: max(len(row.ids) for row in one.rows) for n, one in enumerate(questions)}
    order = sorted(longest.keys() - chosen.keys(), key=lambda number: (-longest[number], number))

    def measure(numbers: Sequence[int]) -> list[Chosen]:
        asked = [questions[number] for number in numbers]
        rows = [row.row(room) for one in asked for row in one.rows]
        batch = placed(
            collate(rows, pad_id=scoring.pad_id), device, longest=room, pad_id=scoring.pad_id
        )
        with evaluating(model), during(oom.EVALUATION, tokens=batch.computed):
            sums, _ = scoring.loss.per_row(model, batch)
        scores = (-sums).tolist()
        if not np.isfinite(scores).all():
            raise ModelError("a likelihood is NaN", hint="the weights are broken, or overflow")
        each = iter(scores)
        own = [tuple(islice(each, len(one.rows))) for one in asked]
        return [
            Chosen(one.place, one.prompt, one.choices, one.gold, likelihoods)
            for one, likelihoods in zip(asked, own, strict=True)
        ]

    chosen |= by_batch(
        order,
        partial(_batches, questions, scoring.batch_size),
        measure,
        on_found=on_chosen,
        on_progress=on_progress,
        together=together,
    )
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
    questions: Sequence[ChoiceQuestion], batch_size: int, numbers: Sequence[int]
) -> list[list[int]]:
    """The numbered questions, in their order, in batches of about `batch_size` choices."""
    batches: list[list[int]] = []
    rows = batch_size
    for number in numbers:
        own = len(questions[number].rows)
        if rows + own > batch_size:
            batches.append([])
            rows = 0
        batches[-1].append(number)
        rows += own
    return batches
