"""The training loop as a stream of events, the step inside it, and how it is stopped."""

from qtune.training.best import Best
from qtune.training.loop import EvalEvent, Job, StepEvent, fit
from qtune.training.signals import StopRequest, stop_on_signals
from qtune.training.step import train_step

__all__ = [
    "Best",
    "EvalEvent",
    "Job",
    "StepEvent",
    "StopRequest",
    "fit",
    "stop_on_signals",
    "train_step",
]
