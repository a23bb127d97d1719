"""A run's checkpoints: the adapter in PEFT's format, and all that the rest of the run needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from qtune import methods, training
from qtune.durable import write_json
from qtune.errors import ModelError
from qtune.ranks import ALONE

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from torch.optim import Optimizer

    from qtune.ranks import Ranks
    from qtune.run.prepare import Learner
    from qtune.runs import RunFolder
    from qtune.training import Progress, Watchdog

TENSORS_FILE, STATE_FILE = "training.safetensors", "state.json"


@dataclass(frozen=True)
class Saver:
    """Writes the checkpoints of one run; `facts` go into each manifest."""

    folder: RunFolder
    pupil: Learner
    optimizer: Optimizer
    watchdog: Watchdog
    facts: dict[str, Any]
    keep: int
    ranks: Ranks = ALONE

    def save(self, progress: Progress) -> None:
        """Write a checkpoint of the last step, then let older ones go; every process comes here,
        and the first one's folder writes.

        Raises `DivergedError` instead of keeping weights that are no numbers.
        """
        training.check_finite(self.pupil.method.parameters())
        training.check_same(self.pupil.method.parameters(), self.ranks)
        _, *others = self.ranks.everyones(training.random_state())
        best = progress.best.step
        self.folder.save_checkpoint(
            progress.step,
            lambda draft: self._fill(draft, progress, others),
            facts=self.facts | {"plan": self.facts["plan"] | _standing(progress)},
            newest=self.keep,
            pinned=frozenset() if best is None else frozenset({best}),
        )

    def _fill(self, draft: Path, progress: Progress, others: list[dict[str, Tensor]]) -> None:
        self.pupil.save(draft)
        tensors, numbers = training.training_state(self.pupil.method, self.optimizer, others)
        save_file(tensors, draft / TENSORS_FILE)
        state = {"progress": progress.to_dict(), "above": self.watchdog.above, "numbers": numbers}
        write_json(draft / STATE_FILE, state)


def _standing(progress: Progress) -> dict[str, int]:
    """What the plan decided and memory has changed since."""
    return {"micro_batch_size": progress.micro_batch_size} if progress.shrunk else {}


def load_progress(checkpoint: Path) -> Progress:
    """What the run had done when a checkpoint was saved."""
    return training.Progress.from_dict(_state(checkpoint)["progress"])


def load_into(
    checkpoint: Path,
    pupil: Learner,
    optimizer: Optimizer,
    watchdog: Watchdog,
    ranks: Ranks = ALONE,
) -> None:
    """Put adapter, optimizer, method, random generators and the watchdog's count back, which the
    first process reads; `ModelError` if they do not belong to this run's model and settings."""
    try:
        pupil.method.load_adapter(ranks.of_first(lambda: methods.read(checkpoint).tensors))
        tensors = ranks.of_first(lambda: load_file(checkpoint / TENSORS_FILE))
        state = ranks.of_first(lambda: _state(checkpoint))
        training.restore(pupil.method, optimizer, tensors, state["numbers"], rank=ranks.seat.rank)
        watchdog.above = state["above"]
    except ModelError as error:
        fault = error.faults[0]
        raise ModelError(
            f"this checkpoint does not fit: {fault.message}",
            place=f"{checkpoint.parent.name}/{checkpoint.name}",
            hint=fault.hint,
        ) from error


def _state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / STATE_FILE).read_text())
    return state
