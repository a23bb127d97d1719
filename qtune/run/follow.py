"""Following a training run: what its events leave in files, trackers and on the screen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from qtune.training import Best, EvalEvent, StepEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from qtune.recipe.sections import Recipe
    from qtune.run.display import Journal
    from qtune.runs import RunFolder
    from qtune.training import StopRequest


class Tracker(Protocol):
    """What accelerate's `Accelerator` offers to log with."""

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Send named numbers of a step to every tracker."""


class Follower:
    """Logs every so many steps, keeps the best and the last weights, counts what was done."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        folder: RunFolder,
        journal: Journal,
        tracker: Tracker,
        save: Callable[[Path], None],
    ) -> None:
        self.best = Best(recipe.checkpoint.metric)
        self.evaluations: list[dict[str, float]] = []
        self.steps: list[StepEvent] = []
        self._recipe = recipe
        self._folder = folder
        self._journal = journal
        self._tracker = tracker
        self._save = save
        self._unlogged: list[StepEvent] = []

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.steps[-1].step if self.steps else 0

    def follow(self, events: Iterable[StepEvent | EvalEvent], stop: StopRequest) -> None:
        """Consume the events until they end or a signal asks to stop; then save the weights."""
        for event in events:
            if isinstance(event, StepEvent):
                self._on_step(event)
            else:
                self._on_evaluation(event)
            if stop.code is not None:
                break
        if self.step:
            self._save_weights()

    def _on_step(self, event: StepEvent) -> None:
        self.steps.append(event)
        self._unlogged.append(event)
        if event.step % self._recipe.logging.steps == 0 or event.step == event.total:
            self._log(merge_steps(self._unlogged))
            self._unlogged = []
        every = self._recipe.checkpoint.steps
        if every is not None and event.step % every == 0:
            self._save_weights()

    def _log(self, event: StepEvent) -> None:
        values = {
            "loss": event.loss,
            "grad_norm": event.grad_norm,
            "learning_rate": event.learning_rate,
            "tokens_per_second": event.tokens_per_second,
        }
        counts = {"epoch": event.epoch, "tokens": event.tokens, "supervised": event.supervised}
        self._folder.append_metrics({"kind": "train", "step": event.step} | values | counts)
        self._tracker.log({f"train/{name}": value for name, value in values.items()}, event.step)
        self._journal.step(event)

    def _on_evaluation(self, event: EvalEvent) -> None:
        self.evaluations.append({"step": event.step} | event.measures)
        self._folder.append_metrics({"kind": "eval", "step": event.step} | event.measures)
        self._tracker.log(
            {f"eval/{name}": value for name, value in event.measures.items()}, event.step
        )
        self._journal.evaluation(event)
        # the untouched model is no result, however good: there is nothing to save at step 0
        if event.step > 0:
            self.best.update(event)
            self._save_weights()

    def _save_weights(self) -> None:
        keep = {self.best.step} if self.best.step is not None else set()
        self._folder.save_checkpoint(self.step, self._save, keep=keep)


def merge_steps(events: list[StepEvent]) -> StepEvent:
    """One event for several steps: losses weighted by supervised tokens, the largest norm."""
    supervised = sum(event.supervised for event in events)
    return replace(
        events[-1],
        loss=sum(event.loss * event.supervised for event in events) / supervised,
        grad_norm=max(event.grad_norm for event in events),
        tokens=sum(event.tokens for event in events),
        supervised=supervised,
        computed=sum(event.computed for event in events),
        seconds=sum(event.seconds for event in events),
    )
