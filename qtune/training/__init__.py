"""The training loop as a stream of events, the step inside it, and how it is stopped."""

from qtune.training.best import Best
from qtune.training.events import (
    Boundary,
    EvalEvent,
    Event,
    Measures,
    RehearsalEvent,
    ShrinkEvent,
    StepEvent,
)
from qtune.training.loop import Job, fit
from qtune.training.progress import Progress, merge_steps
from qtune.training.signals import Interrupted, StopRequest, stop_on_signals
from qtune.training.state import restore, training_state
from qtune.training.step import accumulate, train_step
from qtune.training.watch import Watchdog, check_finite

__all__ = [
    "Best",
    "Boundary",
    "EvalEvent",
    "Event",
    "Interrupted",
    "Job",
    "Measures",
    "Progress",
    "RehearsalEvent",
    "ShrinkEvent",
    "StepEvent",
    "StopRequest",
    "Watchdog",
    "accumulate",
    "check_finite",
    "fit",
    "merge_steps",
    "restore",
    "stop_on_signals",
    "train_step",
    "training_state",
]
