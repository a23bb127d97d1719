"""What a run has done so far: the numbers that its report tells and a checkpoint carries."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from qtune.training.best import Best
from qtune.training.events import EvalEvent, ShrinkEvent, StepEvent

WINDOW = 10  # steps of one mean: single batches differ
_RISEN_NATS, _RISEN_FACTOR = 2.0, 2.0


@dataclass(kw_only=True)
class Progress:
    """Sums over all steps, the held-out measures, and the steps that are not logged yet.

    `loss_begun` is the mean loss of the first `WINDOW` steps, `loss_recent` about that of the last.
    `micro_batch_size` is the next step's, `shrunk` tells each time that memory made it smaller.
    """

    best: Best
    step: int = 0
    tokens: int = 0
    supervised: int = 0
    computed: int = 0
    shared: int = 0
    seconds: float = 0.0
    loss_first: float | None = None
    loss_last: float | None = None
    loss_begun: float = 0.0
    loss_recent: float = 0.0
    evaluations: list[dict[str, float]] = field(default_factory=list)
    unlogged: list[StepEvent] = field(default_factory=list)
    evaluation_due: bool = False
    limit_share: float | None = None
    micro_batch_size: int = 0
    shrunk: list[dict[str, Any]] = field(default_factory=list)
    peak_bytes: int = 0

    def add_step(self, event: StepEvent) -> None:
        """Count an optimizer step."""
        self.step = event.step
        self.tokens += event.tokens
        self.supervised += event.supervised
        self.computed += event.computed
        self.shared += event.shared
        self.seconds += event.seconds
        if self.loss_first is None:
            self.loss_first = event.loss
        self.loss_last = event.loss
        self.loss_recent += (event.loss - self.loss_recent) / min(event.step, WINDOW)
        if event.step <= WINDOW:
            self.loss_begun = self.loss_recent
        self.unlogged.append(event)

    def has_risen(self) -> bool:
        """Whether the loss is far above where it began, over several steps."""
        much = max(_RISEN_FACTOR * self.loss_begun, self.loss_begun + _RISEN_NATS)
        return self.step >= 2 * WINDOW and self.loss_recent > much

    def add_evaluation(self, event: EvalEvent) -> None:
        """Note held-out measures; the untouched model is no result, so step 0 is never the best."""
        self.evaluations.append({"step": event.step} | event.measures)
        if event.step > 0:
            self.best.update(event)

    def add_shrink(self, event: ShrinkEvent) -> dict[str, Any]:
        """Note that micro-batches are smaller from here on; returns the record of it."""
        self.micro_batch_size = event.rows
        record = {"step": event.step, "micro_batch_size": event.rows, "before": event.before}
        self.shrunk.append(record | {"where": event.where})
        return self.shrunk[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Take back what `to_dict` gave; TypeError or KeyError for anything else."""
        best = Best(**values["best"])
        unlogged = [StepEvent(**event) for event in values["unlogged"]]
        return cls(**(values | {"best": best, "unlogged": unlogged}))


def merge_steps(events: list[StepEvent]) -> StepEvent:
    """One event for several steps: losses weighted by supervised tokens, the largest norm."""
    supervised = sum(event.supervised for event in events)
    last = asdict(events[-1])
    sums = {
        name: sum(getattr(event, name) for event in events)
        for name in ("tokens", "supervised", "computed", "shared", "seconds", "waited", "joining")
    }
    loss = sum(event.loss * event.supervised for event in events) / supervised
    norm = max(event.grad_norm for event in events)
    return StepEvent(**(last | sums | {"loss": loss, "grad_norm": norm}))
