"""Following a training run: what its events leave in files, trackers and on the screen."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from qtune.errors import ExitCode, QtuneError
from qtune.oom import HARMLESS, MEASURING, OutOfMemory
from qtune.plan import human
from qtune.recipe.duration import seconds
from qtune.run.doubts import risen
from qtune.run.memory import peak_bytes
from qtune.training import (
    Agreement,
    Boundary,
    EvalEvent,
    ShrinkEvent,
    Standing,
    StepEvent,
    merge_steps,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qtune.ranks import Ranks
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Journal
    from qtune.run.monitoring.alerts import Alert
    from qtune.run.monitoring.monitor import Monitor
    from qtune.runs import RunFolder
    from qtune.training import Event, Progress, RehearsalEvent, StopRequest


class Tracker(Protocol):
    """What accelerate's `Accelerator` offers to log with."""

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Send named numbers of a step to every tracker."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """When time asks for something; monotonic seconds."""

    started: float
    max_time: float | None
    save_every: float | None

    @classmethod
    def of_recipe(cls, recipe: Recipe, *, started: float) -> Clock:
        """The limits of a recipe for a process that began at `started` (time.perf_counter)."""
        limit, every = recipe.train.max_time, recipe.checkpoint.every
        return cls(
            started=started,
            max_time=None if limit is None else seconds(limit),
            save_every=None if every is None else seconds(every),
        )

    def is_up(self) -> bool:
        """Whether the run's own time limit has passed."""
        return self.max_time is not None and time.perf_counter() - self.started >= self.max_time

    def save_is_due(self, saved: float) -> bool:
        """Whether a checkpoint is due when the last one was made at `saved`."""
        return self.save_every is not None and time.perf_counter() - saved >= self.save_every


@dataclass(frozen=True, kw_only=True)
class Outlets:
    """Where the news of a run go."""

    folder: RunFolder
    journal: Journal
    tracker: Tracker


class Follower:
    """Logs every so many steps, saves at boundaries, and says when to stop."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        progress: Progress,
        outlets: Outlets,
        save: Callable[[Progress], None],
        clock: Clock,
        monitor: Monitor,
        stop: StopRequest,
        ranks: Ranks,
    ) -> None:
        self.progress = progress
        self._recipe = recipe
        self._folder = outlets.folder
        self._journal = outlets.journal
        self._tracker = outlets.tracker
        self._write = save
        self._clock = clock
        self._monitor = monitor
        self._first = self._saved_step = progress.step
        self._saved_at = time.perf_counter()
        self._evaluated = self._warned = False
        self._joining = 0.0
        self._agreed = Agreement(
            ranks,
            stop,
            time_is_up=clock.is_up,
            saves=lambda: clock.save_is_due(self._saved_at),
            tell=lambda: Standing(
                peak_bytes=peak_bytes(),
                joining=self._joining,
                micro_batch_size=progress.micro_batch_size,
            ),
        )

    def follow(self, events: Iterable[Event]) -> ExitCode | None:
        """Consume the events until they end, a signal asks to stop or time is up; the last
        boundary is always saved. Returns why it stopped early, if it did."""
        code: ExitCode | None = None
        try:
            for event in events:
                if isinstance(event, Boundary):
                    self._on_boundary(event)
                    self._agreed.settle()  # on what has come while it saved
                    code = self._agreed.code or self._time_limit(event)
                    if code is not None:
                        break
                else:
                    self._on_news(event)
        except OutOfMemory as error:
            self._keep_what_is_done(error)
            raise
        self._save_now()
        return code

    def _on_news(self, event: StepEvent | EvalEvent | RehearsalEvent | ShrinkEvent) -> None:
        if isinstance(event, StepEvent):
            self._on_step(event)
        elif isinstance(event, EvalEvent):
            self._on_evaluation(event)
        elif isinstance(event, ShrinkEvent):
            self._on_shrink(event)
        else:
            tokens = f"{event.rows} x {event.length:,} tokens in {event.seconds:.1f} s"
            held = human(peak_bytes())
            self._journal.line(f"the longest batch ran first: {tokens}, {held} at the peak")

    def due(self, step: int) -> bool:
        """Whether this has something to do at the end of a step, for which the device must have
        done it."""
        self._agreed.settle()
        return (
            self._save_is_due(step)
            or self._agreed.code is not None
            or self._agreed.save
            or self._agreed.over
            or step == self._first + 1  # early news: the panel, and what the first step proves
        )

    def _save_is_due(self, step: int) -> bool:
        every = self._recipe.checkpoint.steps
        return (every is not None and step % every == 0) or self._agreed.save_due

    def _time_limit(self, event: Boundary) -> ExitCode | None:
        """Whether time is up. Each process does one step at least: one whose start takes longer
        than its limit would otherwise be repeated for ever."""
        if event.step == self._first or event.last or not self._agreed.over:
            return None
        return ExitCode.TIME_LIMIT

    def _on_step(self, event: StepEvent) -> None:
        self.progress.add_step(event)
        self._hear_shrinks()
        self._joining += event.joining
        if event.step % self._recipe.logging.steps == 0 or event.step == event.total:
            self._log(self._rated(merge_steps(self.progress.unlogged)))
            self.progress.unlogged = []
        if not self._warned and self.progress.has_risen():
            self._warned = True
            self._journal.line(f"warning: {risen(self.progress)}")

    def _rated(self, event: StepEvent) -> StepEvent:
        """The event with its share of the limit; the progress with that of the whole run."""
        ceiling = self._monitor.ceiling
        self.progress.limit_share = ceiling.share_of(self.progress)
        return replace(event, limit_share=ceiling.share_of(event))

    def _log(self, event: StepEvent) -> None:
        values = {
            "loss": event.loss,
            "grad_norm": event.grad_norm,
            "learning_rate": event.learning_rate,
            "tokens_per_second": event.tokens_per_second,
        }
        if event.limit_share is not None:
            values["limit_share"] = event.limit_share
        counts = {"epoch": event.epoch, "tokens": event.tokens, "supervised": event.supervised}
        self._folder.append_metrics({"kind": "train", "step": event.step} | values | counts)
        self._tracker.log({f"train/{name}": value for name, value in values.items()}, event.step)
        self._journal.step(event)
        self._warn(event.step, self._monitor.on_step(event))
        self._on_ranks(event)
        self._on_hardware(event.step, now=event.step == event.total)

    def _on_ranks(self, event: StepEvent) -> None:
        """Log what each process told last, where there are several."""
        told = self._agreed.told
        if told:
            joining = [round(one.joining, 3) for one in told]
            record = {"joining": joining, "peak_bytes": [one.peak_bytes for one in told]}
            self._folder.append_metrics({"kind": "ranks", "step": event.step} | record)
            self._warn(event.step, self._monitor.on_ranks(joining))

    def _on_hardware(self, step: int, *, now: bool = False) -> None:
        """Log what the machine did, now and then."""
        taken = self._monitor.take(now=now)
        if taken is None:
            return
        found, alerts = taken
        self._folder.append_metrics({"kind": "hardware", "step": step} | found)
        self._tracker.log({f"hardware/{name}": value for name, value in found.items()}, step)
        self._journal.hardware(found)
        self._warn(step, alerts)

    def _warn(self, step: int, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            record = {"name": alert.name, "message": alert.message}
            self._folder.append_metrics({"kind": "alert", "step": step} | record)
            self._journal.alert(alert.message)

    def _on_evaluation(self, event: EvalEvent) -> None:
        self.progress.add_evaluation(event)
        self._evaluated = True
        self._folder.append_metrics({"kind": "eval", "step": event.step} | event.measures)
        self._tracker.log(
            {f"eval/{name}": value for name, value in event.measures.items()}, event.step
        )
        self._journal.evaluation(event)
        self._on_hardware(event.step)

    def _on_shrink(self, event: ShrinkEvent) -> None:
        """Say it loudly, and keep it: who goes on from here goes on with the smaller ones."""
        record = self.progress.add_shrink(event)
        self._folder.append_metrics({"kind": "shrink"} | record)
        passes = -(-self._recipe.train.batch_size // (event.rows * self._agreed.ranks.size))
        self._journal.line(
            f"OUT OF MEMORY {event.where}: step {event.step + 1} and those after it take "
            f"micro-batches of {event.rows} rows instead of {event.before}, {passes} a step; batch "
            "and loss stay as they are"
        )
        if event.step and self._agreed.ranks.alone:  # the others are at that step
            self._save()

    def _hear_shrinks(self) -> None:
        """Say it of the other processes, too: a run that goes on does so with the smallest."""
        if not self._agreed.ranks.first:
            return
        for rank, one in enumerate(self._agreed.told):
            before = self.progress.micro_batch_size
            if one.micro_batch_size < before:
                self._on_shrink(
                    ShrinkEvent(
                        step=self.progress.step,
                        rows=one.micro_batch_size,
                        before=before,
                        where=f"on rank {rank}",
                    )
                )

    def _keep_what_is_done(self, error: OutOfMemory) -> None:
        """Save the last whole step of a run that memory ends, if no weight has been touched since;
        the error counts for more than a save that fails, too."""
        if error.phase not in HARMLESS or not self._agreed.ranks.alone:  # others wait elsewhere
            return
        if error.phase in MEASURING:
            self.progress.evaluation_due = True
        with suppress(QtuneError, OSError, RuntimeError, MemoryError):
            self._save_now()

    def _on_boundary(self, event: Boundary) -> None:
        self.progress.evaluation_due = not event.evaluated
        self._agreed.settle()
        asked = self._agreed.take_save()
        if asked or self._evaluated or self._save_is_due(event.step):
            self._save_now()
        self._evaluated = False
        if asked:
            self._journal.line(f"checkpoint of step {event.step} saved, as USR1 asked")

    def _save_now(self) -> None:
        """Save the progress unless it is saved already; before the first step nothing is."""
        if self.progress.step != self._saved_step:
            self._save()
        self._saved_at = time.perf_counter()

    def _save(self) -> None:
        fullest = max((one.peak_bytes for one in self._agreed.told), default=0)
        self.progress.peak_bytes = max(self.progress.peak_bytes, peak_bytes(), fullest)
        self._write(self.progress)
        self._saved_step = self.progress.step
