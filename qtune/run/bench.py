"""What `qtune eval` measures of an adapter, of its base, and of others, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from qtune import evaluation, losses
from qtune.data.batch import filler_id
from qtune.evaluation.texts import tallies
from qtune.plan import loss_chunk_size
from qtune.run.harness import measure_harness
from qtune.run.tasks import BATCH_SIZE, Means, TaskResult, measure, with_measures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.data import Rows
    from qtune.evaluation import Answer, LabelMeasure, LossMeasure
    from qtune.evaluation.ledger import Ledger
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display
    from qtune.run.subject import Loaded
    from qtune.run.tasks import AskedTask


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much to measure, what is not given is the recipe's; and whether to judge its gates.

    `tasks`: task files; `harness`: tasks of lm-eval; `base16`: the base in 16 bits, too; `merged`:
    a merged model's folder.
    """

    rows: int | None = None
    generate: int | None = None
    max_new_tokens: int | None = None
    gates: bool = False
    tasks: tuple[str, ...] = ()
    harness: tuple[str, ...] = ()
    base16: bool = False
    merged: str | None = None


@dataclass(frozen=True, kw_only=True)
class Held:
    """All that every model is asked: held-out rows, those of them to answer, and tasks."""

    rows: Rows | None
    answered: Rows | None
    tasks: Sequence[AskedTask]
    harness: Sequence[Any] = ()


class Side:
    """What was measured of one model."""

    def __init__(
        self,
        loss: LossMeasure | None,
        answers: list[Answer],
        measures: Sequence[str],
        tasks: dict[str, TaskResult],
    ) -> None:
        self._loss = loss
        self._answers = answers
        self._measures = measures
        self._tasks = tasks

    def figures(self) -> dict[str, Any]:
        """For the report."""
        figures: dict[str, Any] = {} if self._loss is None else self._loss.to_dict()
        if self._answers:
            figures["answers"] = evaluation.score(self._answers, self._measures)
        if self._tasks:
            figures["tasks"] = {name: task.figures() for name, task in self._tasks.items()}
        return figures

    def against(self, base: Self) -> dict[str, Any]:
        """This minus the base on the same rows, with paired intervals and p-values."""
        moved: dict[str, Any] = {}
        if self._loss is not None and base._loss is not None:
            moved |= evaluation.difference(self._loss, base._loss)
        if self._answers:
            ours, theirs = self._answers, base._answers
            moved["answers"] = evaluation.score_difference(ours, theirs, self._measures)
        if self._tasks:
            pairs = ((name, task, base._tasks[name]) for name, task in self._tasks.items())
            moved["tasks"] = {name: task.beyond(other) for name, task, other in pairs}
        return moved

    def records(self) -> list[dict[str, Any]]:
        """The lines of the predictions file."""
        own = with_measures(self._answers, tallies(self._answers, self._measures))
        for name, task in self._tasks.items():
            own += [{"task": name, **record} for record in task.records]
        return own


class LabelSide:
    """What was measured of one classifier."""

    def __init__(self, measured: LabelMeasure) -> None:
        self.measured = measured

    def figures(self) -> dict[str, Any]:
        """For the report."""
        return self.measured.to_dict()

    def against(self, base: Self) -> dict[str, Any]:
        """This minus the base on the same rows, with paired intervals and p-values."""
        moved: dict[str, Any] = evaluation.difference(self.measured.loss, base.measured.loss)
        return moved | evaluation.label_difference(self.measured, base.measured)

    def records(self) -> list[dict[str, Any]]:
        """The lines of the predictions file."""
        return [row.to_dict() for row in self.measured.rows]


class Bench:
    """The rows and settings that every side is measured with."""

    def __init__(
        self,
        asked: Recipe,
        tokenizer: Any,
        held: Held,
        limits: Limits,
        ledger: Ledger,
        display: Display,
    ) -> None:
        micro = asked.memory.micro_batch_size
        self._batch_size = asked.eval.batch_size or (micro if micro != "auto" else BATCH_SIZE)
        self._loss = losses.CausalLoss(chunk_size=loss_chunk_size(asked))
        self._max_new_tokens = limits.max_new_tokens or asked.eval.max_new_tokens
        self._section = asked.eval
        self._tokenizer = tokenizer
        self._held = held
        self._harness_rows = limits.rows
        self._ledger = ledger
        self._display = display

    def measure(self, loaded: Loaded, name: str) -> dict[str, Any]:
        """{name} for a plain model; {adapter, base} where there is an adapter to switch off."""
        model = loaded.base.model
        if loaded.method is None:
            return {name: self._side(model, name)}
        adapter = self._side(model, "adapter")
        with loaded.method.disabled():
            return {"adapter": adapter, "base": self._side(model, "base")}

    def _side(self, model: Any, name: str) -> Any:
        held, loss, answers = self._held, None, []
        progress = self._display.progress
        if held.rows is not None:
            loss = evaluation.measure_loss(
                model,
                held.rows,
                loss=self._loss,
                batch_size=self._batch_size,
                pad_id=filler_id(self._tokenizer),
                device=next(model.parameters()).device,
                on_progress=partial(progress, f"measuring the {name}"),
            )
        if held.answered is not None:
            answers = evaluation.answer(
                model,
                self._tokenizer,
                held.answered,
                max_new_tokens=self._max_new_tokens,
                batch_size=self._batch_size,
                cache=self._section.cache,
                on_progress=partial(progress, f"answers of the {name}"),
            )
        means = Means(
            tokenizer=self._tokenizer,
            loss=self._loss,
            batch_size=self._batch_size,
            ledger=self._ledger,
            display=self._display,
        )
        tasks = {task.name: measure(task, model, name, means) for task in held.tasks}
        tasks |= measure_harness(
            held.harness,
            model,
            self._tokenizer,
            batch_size=self._batch_size,
            rows=self._harness_rows,
        )
        return Side(loss, answers, self._section.measures, tasks)


class LabelBench(Bench):
    """The same for a classifier."""

    def _side(self, model: Any, name: str) -> LabelSide:
        assert self._held.rows is not None
        return LabelSide(
            evaluation.measure_labels(
                model,
                self._held.rows,
                scores=losses.scores,
                batch_size=self._batch_size,
                device=next(model.parameters()).device,
                on_progress=partial(self._display.progress, f"measuring the {name}"),
            )
        )
