"""A profile of chosen steps: what ran when, and on a GPU what held memory, for the tools that
draw them (ui.perfetto.dev, pytorch.org/memory_viz)."""

from __future__ import annotations

import gzip
import os
import re
from typing import TYPE_CHECKING

import torch

from qtune.training import Boundary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from qtune.run.display import Journal
    from qtune.training import Event

FOLDER = "profile"
_SILENT = "6"  # torch's profiler would write its own lines across the panel
# what torch writes of the machine: the draft's path and the host
_PRIVATE = re.compile(r'("(?:traceName|host_name)": )"[^"]*"')


class Profile:
    """Records the steps `first` to `last` of a run into its folder; of several processes the first
    one does, at the pace of all."""

    def __init__(
        self, steps: tuple[int, int] | None, folder: Path, journal: Journal, *, records: bool
    ) -> None:
        self.first, self.last = steps or (0, -1)
        self._folder = folder / FOLDER
        self._journal = journal
        self._records = records
        self._running: torch.profiler.profile | None = None
        self._began = 0

    def due(self, step: int) -> bool:
        """Whether recording begins or ends after a step, for which the device must be still; all
        processes must answer alike."""
        return step in (self.first - 1, self.last)

    def around(self, events: Iterable[Event], *, start: int) -> Iterator[Event]:
        """The same events of a run that goes on from step `start`. A run that ends early leaves a
        profile of the steps that it did."""
        done = start
        try:
            self._begin(done)
            for event in events:
                if isinstance(event, Boundary):
                    done = event.step
                    if done >= self.last:
                        self._end(done)
                yield event
                if isinstance(event, Boundary):
                    self._begin(done)
        finally:
            self._end(done)

    def _begin(self, done: int) -> None:
        inside = self.first <= done + 1 <= self.last
        if self._running is not None or not inside or not self._records:
            return
        os.environ.setdefault("KINETO_LOG_LEVEL", _SILENT)
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
            # without stacks, which name the machine's files
            torch.cuda.memory._record_memory_history(context=None)
        self._running = torch.profiler.profile(
            activities=activities,
            record_shapes=True,
            acc_events=True,  # torch 2.11 warns of what it would let go, and has one cycle here
        )
        self._running.start()
        self._began = done + 1

    def _end(self, done: int) -> None:
        if self._running is None:
            return
        running, self._running = self._running, None
        running.stop()
        if done < self._began:
            return
        self._folder.mkdir(exist_ok=True)
        name = f"steps-{self._began}-{done}"
        draft, trace = self._folder / "draft.json", self._folder / f"{name}.json.gz"
        running.export_chrome_trace(str(draft))
        with (
            draft.open(encoding="utf-8") as source,
            gzip.open(trace, "wt", encoding="utf-8", compresslevel=5) as target,
        ):
            target.writelines(_PRIVATE.sub(r'\1""', line) for line in source)
        draft.unlink()
        if torch.cuda.is_available():
            snapshot = self._folder / f"{name}-memory.pickle"
            torch.cuda.memory._dump_snapshot(str(snapshot))
            torch.cuda.memory._record_memory_history(enabled=None)
        steps = f"step {done}" if self._began == done else f"steps {self._began} to {done}"
        self._journal.line(
            f"profile of {steps} in {FOLDER}/{trace.name}: open it in ui.perfetto.dev"
        )
