"""The training loop as a stream of events, the step inside it, and how it is stopped."""

from qtune.training.agreement import Agreement, Standing
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
from qtune.training.state import random_state, restore, training_state
from qtune.training.step import Counts, Learning, accumulate, train_step
from qtune.training.watch import Watchdog, check_finite, check_same

__all__ = [
    "Agreement",
    "Best",
    "Boundary",
    "Counts",
    "EvalEvent",
    "Event",
    "Interrupted",
    "Job",
    "Learning",
    "Measures",
    "Progress",
    "RehearsalEvent",
    "ShrinkEvent",
    "Standing",
    "StepEvent",
    "StopRequest",
    "Watchdog",
    "accumulate",
    "check_finite",
    "check_same",
    "fit",
    "merge_steps",
    "random_state",
    "restore",
    "stop_on_signals",
    "train_step",
    "training_state",
]
