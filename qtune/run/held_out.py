"""The held-out measures that training takes on its way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from qtune import evaluation, losses, training
from qtune.run.details import keep_details

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.data import Rows
    from qtune.run.display import Journal
    from qtune.run.prepare import Learner
    from qtune.run.train import Settled
    from qtune.training import Measures, Progress, StopRequest


@dataclass(frozen=True)
class HeldOut:
    """Measures `rows` when called, each process its own part; a signal to stop interrupts it
    (`Interrupted`)."""

    rows: Rows
    settled: Settled
    pupil: Learner
    journal: Journal
    stop: StopRequest
    done: Progress

    def __call__(self) -> Measures:
        """The measures by name."""
        try:
            of_labels = self.settled.asked.model.task == "classification"
            return self._labels() if of_labels else self._answers()
        except evaluation.Unfinished as left:
            raise training.Interrupted from left

    def _labels(self) -> Measures:
        measured = evaluation.measure_labels(
            self.pupil.base.model,
            self.rows,
            scores=losses.scores,
            batch_size=self._batch_size,
            device=next(self.pupil.base.model.parameters()).device,
            on_progress=partial(self._progress, "evaluating"),
            together=self._together,
        )
        self._keep(measured.to_dict(), [])
        return measured.means()

    def _answers(self) -> Measures:
        section = self.settled.asked.eval
        return evaluation.evaluate(
            self.pupil.base.model,
            self.pupil.tokenizer,
            self.rows,
            section.model_copy(update={"batch_size": self._batch_size}),
            loss=losses.CausalLoss(chunk_size=self.settled.plan.loss_chunk_size),
            on_progress=self._progress,
            on_details=self._keep,
            together=self._together,
        )

    @property
    def _batch_size(self) -> int:
        return self.settled.asked.eval.batch_size or self.done.micro_batch_size

    @property
    def _together(self) -> evaluation.Together:
        return together(self.settled, self.pupil, stops=lambda: self.stop.code is not None)

    def _progress(self, what: str, done: int, total: int) -> None:
        if self.settled.plan.strategy != "fsdp":  # else all leave before the same pass
            self.stop.interrupt()
        self.journal.progress(what, done, total)

    def _keep(self, figures: dict[str, Any], answers: list[evaluation.Answer]) -> None:
        if self.settled.ranks.first:
            told = [one.to_dict() for one in answers]
            keep_details(self.settled.folder, self.done.step, figures, told)


def together(
    settled: Settled, pupil: Learner, stops: Callable[[], bool] = lambda: False
) -> evaluation.Together:
    """How the processes of a run measure; `stops` is asked by those that go in step."""
    ranks = settled.ranks
    in_step = settled.plan.strategy == "fsdp"
    pace = evaluation.Pace(ranks, pupil.base.model, stops) if in_step else None
    return evaluation.Together(ranks, pace)
