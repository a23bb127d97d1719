"""What `qtune eval` measures of an adapter and of its base, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from qtune import evaluation, losses
from qtune.data.batch import filler_id
from qtune.plan import loss_chunk_size

if TYPE_CHECKING:
    from qtune.data import Rows
    from qtune.evaluation import Answer, LabelMeasure, LossMeasure
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display
    from qtune.run.subject import Loaded, Subject

BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much to measure, what is not given is the recipe's; and whether to judge its gates."""

    rows: int | None = None
    generate: int | None = None
    max_new_tokens: int | None = None
    gates: bool = False


class Side:
    """What was measured of one model."""

    def __init__(self, loss: LossMeasure, answers: list[Answer]) -> None:
        self.loss = loss
        self.answers = answers

    def figures(self) -> dict[str, Any]:
        """For the report."""
        scores = evaluation.score(self.answers) if self.answers else None
        return self.loss.to_dict() | ({"answers": scores} if scores else {})

    def against(self, base: Self) -> dict[str, Any]:
        """This minus the base on the same rows, with paired intervals."""
        moved: dict[str, Any] = evaluation.difference(self.loss, base.loss)
        if self.answers:
            moved["answers"] = evaluation.score_difference(self.answers, base.answers)
        return moved


class LabelSide:
    """What was measured of one classifier."""

    def __init__(self, measured: LabelMeasure) -> None:
        self.measured = measured
        self.answers = measured.rows

    def figures(self) -> dict[str, Any]:
        """For the report."""
        return self.measured.to_dict()

    def against(self, base: Self) -> dict[str, Any]:
        """This minus the base on the same rows, with paired intervals."""
        moved: dict[str, Any] = evaluation.difference(self.measured.loss, base.measured.loss)
        return moved | evaluation.label_difference(self.measured, base.measured)


class Bench:
    """The rows and settings that every side is measured with."""

    def __init__(
        self,
        asked: Recipe,
        loaded: Loaded,
        tokenizer: Any,
        rows: Rows,
        asked_rows: Rows,
        limits: Limits,
        display: Display,
    ) -> None:
        micro = asked.memory.micro_batch_size
        self._batch_size = asked.eval.batch_size or (micro if micro != "auto" else BATCH_SIZE)
        self._loss = losses.CausalLoss(chunk_size=loss_chunk_size(asked))
        self._max_new_tokens = limits.max_new_tokens or asked.eval.max_new_tokens
        self._loaded = loaded
        self._tokenizer = tokenizer
        self._rows = rows
        self._asked_rows = asked_rows
        self._display = display

    def measure(self, subject: Subject) -> dict[str, Any]:
        """{model} for a plain model; {adapter, base} where there is an adapter to switch off."""
        method = self._loaded.method
        if method is None:
            return {"model": self._side(subject.name)}
        adapter = self._side("adapter")
        with method.disabled():
            return {"adapter": adapter, "base": self._side("base")}

    def _side(self, name: str) -> Any:
        model = self._loaded.base.model
        progress = self._display.progress
        loss = evaluation.measure_loss(
            model,
            self._rows,
            loss=self._loss,
            batch_size=self._batch_size,
            pad_id=filler_id(self._tokenizer),
            device=next(model.parameters()).device,
            on_progress=partial(progress, f"measuring the {name}"),
        )
        answers = evaluation.answer(
            model,
            self._tokenizer,
            self._asked_rows,
            max_new_tokens=self._max_new_tokens,
            batch_size=self._batch_size,
            on_progress=partial(progress, f"answers of the {name}"),
        )
        return Side(loss, answers)


class LabelBench(Bench):
    """The same for a classifier."""

    def _side(self, name: str) -> LabelSide:
        model = self._loaded.base.model
        return LabelSide(
            evaluation.measure_labels(
                model,
                self._rows,
                scores=losses.scores,
                batch_size=self._batch_size,
                device=next(model.parameters()).device,
                on_progress=partial(self._display.progress, f"measuring the {name}"),
            )
        )
